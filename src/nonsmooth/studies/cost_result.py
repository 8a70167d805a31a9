"""The result of the study of cost: what was counted and measured, the slopes, and the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.cost.measured import Measured, Timing
from nonsmooth.report.files import write_report
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table

__all__ = ["AXES", "WAYS", "CostStudy", "NetworkCost", "Slope", "WayCost", "fit_slopes", "overhead"]

AXES = ("layers", "neurons", "batch")
"""What the overhead of a network is drawn against."""

WAYS: Mapping[str, str] = {
    "gradient": "the framework's own gradient, one reverse sweep",
    "backprop": "backprop with at_kinks=0.5, one reverse sweep",
    "subgradient": "ns.subgradient: one tangent decides the kinks, one reverse sweep",
    "tangents": "p tangents at once by the framework's forward mode (wrong at kinks)",
    "coordinate derivatives": "ns.coordinate_derivatives: p one-sided derivatives, one after the other",
    "lexicographic": "ns.lexicographic along p drawn directions",
    "forward subgradient": "ns.forward_subgradient: lexicographic along the p unit vectors",
}
"""The ways to differentiate that are compared."""


@dataclass(frozen=True)
class NetworkCost:
    """A network with cross-entropy on a batch, counted and measured.

    Attributes:
        entries: its parameters, with respect to which it is differentiated.
        evaluation, backprop: scalar operations, each at price 1. Status: computed, exactly, from the shapes.
        bound: w_b of the operations that it uses. Status: proved.
        uncounted: steps that could not be counted; none as a rule.
        measured: times and memory of evaluating, of the framework's own gradient, and of the library's backprop.
    """

    framework: str
    images: str
    network: str
    layers: int
    neurons: int
    batch: int
    entries: int
    evaluation: float
    backprop: float
    bound: float
    uncounted: tuple[str, ...]
    measured: Measured

    @property
    def counted(self) -> float:
        """The counted overhead: cost(backprop(P)) / cost(P)."""
        return self.backprop / self.evaluation

    @property
    def gradient(self) -> Timing:
        """The framework's own gradient, measured."""
        return self.measured.rows[1]

    @property
    def ours(self) -> Timing:
        """The library's backprop with at_kinks=0.5, measured."""
        return self.measured.rows[2]


@dataclass(frozen=True)
class WayCost:
    """One way to differentiate a relu network of p inputs: operations counted (status: computed), and times measured.

    `measured` is None where the way was only counted.
    """

    framework: str
    p: int
    way: str
    operations: float
    counted: float
    measured: Timing | None


@dataclass(frozen=True)
class Slope:
    """How the overhead of a way grows: the slope of its logarithm against log p, with its standard error.

    Attributes:
        kind: "counted" or "measured", which overhead.
        least, most: the smallest and the largest p; `points`, how many.
        slope, error: the exponent of p and its standard error. Status: computed, by least squares; the error of a counted
            slope says how far it is from a power of p, not that a count is uncertain.
    """

    framework: str
    way: str
    kind: str
    least: int
    most: int
    points: int
    slope: float
    error: float


def fit_slopes(ways: Sequence[WayCost]) -> tuple[Slope, ...]:
    """Fit the slopes over all p, and over the larger half of them, where calls weigh the least against arithmetic."""
    found = []
    for framework, way in dict.fromkeys((w.framework, w.way) for w in ways):
        own = sorted((w for w in ways if (w.framework, w.way) == (framework, way)), key=lambda w: w.p)
        for kind in ("counted", "measured"):
            points = [(w.p, ratio) for w in own if (ratio := overhead(w, kind)) is not None]
            for part in dict.fromkeys((tuple(points), tuple(points[len(points) // 2 :]))):
                if len(part) > 2:
                    ends = part[0][0], part[-1][0], len(part)
                    found.append(Slope(framework, way, kind, *ends, *_slope(*zip(*part, strict=True))))
    return tuple(found)


def overhead(way: WayCost, kind: str) -> float | None:
    """Give the counted or the measured overhead of a way; None if it was not measured."""
    if kind == "counted":
        return way.counted
    return None if way.measured is None else way.measured.ratio


def _slope(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Fit a power of p: its exponent and the standard error.

    >>> _slope([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]), _slope([1, 2, 4], [3.0, 3.0, 3.0])
    ((1.0, 0.0), (0.0, 0.0))
    """
    import numpy as np

    (slope, intercept), logs = np.polyfit(np.log2(sizes), np.log2(values), 1), np.log2(sizes)
    residual = np.sum((np.log2(values) - slope * logs - intercept) ** 2)
    error = np.sqrt(residual / (len(sizes) - 2) / np.sum((logs - logs.mean()) ** 2))
    return round(float(slope), 9) + 0.0, round(float(error), 9)


@dataclass(frozen=True)
class CostStudy(Reported):
    """What differentiating costs: counted, bounded and measured; `status` says which number is which."""

    format_version: int
    versions: Mapping[str, str]
    setting: Mapping[str, Any]
    status: Mapping[str, str]
    base: Mapping[str, int]
    networks: tuple[NetworkCost, ...]
    ways: tuple[WayCost, ...]
    slopes: tuple[Slope, ...]
    theory: tuple[Any, ...]
    seconds: float

    def along(self, axis: str) -> Iterator[NetworkCost]:
        """Give the networks that differ from the base along one axis alone, and the base."""
        for n in self.networks:
            usual = {**self.base, "neurons": self.base["channels" if "cnn" in n.network else "neurons"]}
            if all(getattr(n, other) == usual[other] for other in AXES if other != axis):
                yield n

    def document(self) -> Document:
        """Lay the study out for reading."""
        parts: list[str | Table] = ["\n".join(self._story())]
        parts += [self._overheads(axis) for axis in AXES]
        parts += [
            self._slopes(),
            *(self._ways(name, kind) for name in self.versions for kind in ("counted", "measured")),
        ]
        for result in self.theory:
            document = result.document()
            parts += [document.title, *document.parts]
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        measured = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        parts.append(f"{measured}; {setting}.\nIn {self.seconds:.0f} s (measured).")
        return Document("What a derivative costs: counted, bounded and measured", tuple(parts))

    def _story(self) -> Iterator[str]:
        """Say what was seen."""
        over = [n for n in self.networks if n.backprop > n.bound * n.evaluation]
        counted = [n.counted for n in self.networks]
        yield (
            f"Counted, a gradient costs {min(counted):.2f} to {max(counted):.2f} values of the network in "
            f"{len(self.networks)} networks; bounded by {_span(n.bound for n in self.networks)} (proved)."
        )
        if over:
            yield f"{len(over)} COUNTS EXCEED THEIR BOUND: this is a defect of nonsmooth; please report it."
        for name in self.versions:
            ratios = sorted(n.gradient.ratio for n in self.networks if n.framework == name)
            ours = sorted(n.ours.ratio for n in self.networks if n.framework == name)
            yield (
                f"Measured, {name}'s own gradient takes {ratios[0]:.2f} to {ratios[-1]:.2f} times as long as the value "
                f"(half of the networks\nat most {ratios[len(ratios) // 2]:.2f}), the library's backprop {ours[0]:.2f} to "
                f"{ours[-1]:.2f} (at most {ours[len(ours) // 2]:.2f})."
            )
        for name in self.versions:
            yield f"{name}, relu networks of p inputs (counted; measured): " + ", ".join(
                f"{way} {_both(self.slopes, name, way)}"
                for way in ("backprop", "subgradient", "tangents", "lexicographic")
            )

    def _overheads(self, axis: str) -> Table:
        """Give the overheads along one axis."""
        rows = [
            (
                f"{n.framework}, {n.images}", n.network, getattr(n, axis), f"{n.counted:.2f}", f"{n.bound:.4g}",
                f"{n.gradient.ratio:.2f}", _quartiles(n.gradient), f"{n.ours.ratio:.2f}", _times(n.gradient.memory_ratio),
            )
            for n in sorted(self.along(axis), key=lambda n: (n.framework != "torch", n.images, n.network, getattr(n, axis)))
        ]  # fmt: skip
        others = ", ".join(
            f"{self.base[k]} {k}" for k in self.base if k != axis and (axis, k) != ("neurons", "channels")
        )
        return Table(
            f"Overhead of a gradient against {'neurons (cnn: channels) a layer' if axis == 'neurons' else axis}",
            ("images", "network", axis, "counted", "bound", "measured", "quartiles", "ours", "memory"),
            tuple(rows),
            f"elsewhere {others} (channels in the cnn). counted: computed; bound: proved; measured: the framework's own gradient "
            "over the value; ours: backprop with at_kinks=0.5; memory: of the own gradient, peak over that of the value.",
        )

    def _slopes(self) -> Table:
        """Give the slopes."""
        rows = [
            (s.framework, s.way, s.kind, f"{s.least} - {s.most}", f"{round(s.slope, 2) + 0.0:.2f}", f"{s.error:.2f}")
            for s in self.slopes
        ]
        lines = "; ".join(f"{way}: {what}" for way, what in WAYS.items())
        return Table(
            "How the overhead grows with p, the number of inputs: slope of log(overhead) against log(p)",
            ("framework", "way", "", "p", "slope", "s.e."),
            tuple(rows),
            f"relu networks of p inputs and layers p wide, at 0, where every relu is at its kink. {lines}.",
        )

    def _ways(self, framework: str, kind: str) -> Table:
        """Give the overheads of the ways in one framework for each p."""
        own = [w for w in self.ways if w.framework == framework]
        sizes = sorted({w.p for w in own})
        rows = []
        for way in WAYS:
            found = {w.p: overhead(w, kind) for w in own if w.way == way}
            rows.append((way, *(_ratio(found.get(p)) for p in sizes)))
        return Table(f"Overhead by p in {framework}, {kind}", ("way", *(f"p={p}" for p in sizes)), tuple(rows))

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the pictures into a folder, made if need be; give what was written."""
        from nonsmooth.studies.cost_picture import draw_overheads, draw_ways

        pictures = {
            "overhead": lambda path: draw_overheads(path, self),
            "directions": lambda path: draw_ways(path, self),
        }
        return write_report(folder, self, pictures)


def _span(values: Any) -> str:
    """Print the smallest and the largest value."""
    known = sorted(set(values))
    return f"{known[0]:.4g}" if len(known) == 1 else f"{known[0]:.4g} to {known[-1]:.4g}"


def _quartiles(row: Timing) -> str:
    """Print the spread of a ratio."""
    return f"{row.quartiles[0]:.2f} - {row.quartiles[1]:.2f}"


def _times(ratio: float | None) -> str:
    """Print a ratio that may not be known."""
    return "-" if ratio is None else f"{ratio:.2f}"


def _ratio(value: float | None) -> str:
    """Print a ratio of any size."""
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _both(slopes: Sequence[Slope], framework: str, way: str) -> str:
    """Print the counted and the measured power of p, each over the larger half of the p where that was fitted."""
    found = {s.kind: f"p^{round(s.slope, 2) + 0.0:.2f}" for s in slopes if (s.framework, s.way) == (framework, way)}
    return f"({found.get('counted', '-')}; {found.get('measured', '-')})"
