"""The result of the study of batch normalisation: bounds by both lists of constants, what they say, and the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, log10
from pathlib import Path
from typing import Any

from nonsmooth.bounds.recursion import ChainBounds
from nonsmooth.report.files import write_report
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table
from nonsmooth.studies.batchnorm_constants import CONSTANTS
from nonsmooth.studies.batchnorm_networks import PLACES

__all__ = ["CLAIMS", "QUANTITIES", "BatchNormStudy", "Claim", "Crossing", "Curve", "NetworkBounds", "Piece", "log_of"]

QUANTITIES: Mapping[str, str] = {"lipschitz": "l", "smoothness": "L"}
"""What is compared, and its letter."""

CLAIMS: Mapping[float, str] = {1e-2: "larger", 1e2: "smaller"}
"""What the slides say of the bounds with batch normalisation beside those without, by eps."""


@dataclass(frozen=True)
class NetworkBounds:
    """The bounds of a network with respect to all weights, and of its mean logistic loss, by each list of constants.

    Attributes:
        eps: of batch normalisation; None: there is none.
        place: where it stands; None: nowhere.
        by_layer: for each list of constants what holds after each layer.
        objective: for each list of constants what holds of the loss.
        walk: what the walk over the program finds of the network; None where it was not made, `why` says why.
    """

    depth: int
    smooth: bool
    eps: float | None
    place: str | None
    by_layer: Mapping[str, tuple[ChainBounds, ...]]
    objective: Mapping[str, ChainBounds]
    walk: ChainBounds | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """What the network is called."""
        name = f"VGG-{self.depth}" + (" smooth" if self.smooth else "")
        return name if self.eps is None else f"{name} + BN {self.eps:g}"

    def network(self, constants: str) -> ChainBounds:
        """Give the bounds of the network by a list of constants."""
        return self.by_layer[constants][-1]


@dataclass(frozen=True)
class Claim:
    """An inequality between the bounds with batch normalisation and without: what is said, and what is found."""

    eps: float
    quantity: str
    constants: str
    place: str
    said: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether it is as it is said."""
        return self.said == self.found


@dataclass(frozen=True)
class Crossing:
    """The eps from which on batch normalisation makes a bound smaller; None: at no eps that was tried."""

    depth: int
    quantity: str
    constants: str
    place: str
    eps: float | None


@dataclass(frozen=True)
class Curve:
    """Bounds of a smooth network with batch normalisation against eps."""

    constants: str
    place: str
    eps: tuple[float, ...]
    lipschitz: tuple[float, ...]
    smoothness: tuple[float, ...]


@dataclass(frozen=True)
class Piece:
    """One constant of a layer, in the printed list and right."""

    layer: str
    constant: str
    printed: float
    right: float


@dataclass(frozen=True)
class BatchNormStudy(Reported):
    """What batch normalisation does to the bounds of VGG; `status` says which number is which."""

    format_version: int
    setting: Mapping[str, Any]
    status: Mapping[str, str]
    depth: int
    networks: tuple[NetworkBounds, ...]
    claims: tuple[Claim, ...]
    crossings: tuple[Crossing, ...]
    curves: tuple[Curve, ...]
    pieces: tuple[Piece, ...]
    seconds: float

    def find(self, depth: int, eps: float | None, place: str | None, *, smooth: bool = True) -> NetworkBounds:
        """Give the bounds of one network."""
        wanted = (depth, smooth, eps, place)
        return next(n for n in self.networks if (n.depth, n.smooth, n.eps, n.place) == wanted)

    def document(self) -> Document:
        """Lay the study out for reading."""
        own = [n for n in self.networks if n.depth == self.depth]
        parts: list[str | Table] = ["\n".join(self._story())]
        parts += [self._bounds(own), *([self._claims()] if self.claims else [])]
        parts += [self._crossings(), self._depths(), self._objectives(own), self._pieces()]
        words = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        parts.append(f"{words}.\nIn {self.seconds:.0f} s (measured).")
        return Document("Batch normalisation and the smoothness of VGG", tuple(parts))

    def _story(self) -> Iterator[str]:
        """Say what was found."""
        failed = [c for c in self.claims if not c.holds]
        if self.claims:
            yield (
                f"{len(self.claims) - len(failed)} of {len(self.claims)} hold: the {len(CLAIMS) * len(QUANTITIES)} inequalities "
                "of the slides, by each list of constants and place of batch normalisation."
            )
        for c in failed:
            yield f"NOT SO: at eps {c.eps:g}, {c.place}, by {c.constants}: {QUANTITIES[c.quantity]} is {c.found}, not {c.said}."
        for k in self.crossings:
            if (k.depth, k.constants, k.place) == (self.depth, "right", "layers"):
                where = "at no eps that was tried" if k.eps is None else f"from eps = {k.eps:.3g} on"
                yield f"By the right constants batch normalisation makes {QUANTITIES[k.quantity]} of VGG-{k.depth} smaller {where}."
        without = self.find(self.depth, None, None)
        printed, right = (without.network(name).lipschitz for name in ("printed", "right"))
        if isfinite(printed):
            yield (
                f"The printed constants give VGG-{self.depth} smooth an l that is 10^{log_of(printed / right)} times the one "
                "that the right constants give."
            )
        for why in dict.fromkeys(n.why for n in self.networks if n.why):
            yield f"The walk over the program was not made: {why}"
        if any(n.eps == 0 for n in self.networks):
            yield "At eps = 0 batch normalisation is not Lipschitz: the bounds are infinite."

    def _bounds(self, own: list[NetworkBounds]) -> Table:
        """Give the bounds of the networks of the table."""
        rows = [
            (
                n.name if k == 0 else "", (n.place or "") if k == 0 else "", letter,
                *(log_of(getattr(n.network(name), quantity)) for name in CONSTANTS if name in n.by_layer),
                *["-"] * (len(CONSTANTS) - len(n.by_layer)),
                "-" if n.walk is None else log_of(getattr(n.walk, quantity)),
            )
            for n in own for k, (quantity, letter) in enumerate(QUANTITIES.items())
        ]  # fmt: skip
        what = "; ".join(f"{name}: {c.what}" for name, c in CONSTANTS.items())
        places = "; ".join(f"{place}: {words}" for place, words in PLACES.items())
        return Table(
            "log10 of the Lipschitz constant l and the smoothness constant L with respect to all weights",
            ("network", "BN before", "", *CONSTANTS, "walk"),
            tuple(rows),
            f"{what}; walk: by the walk over the program. {places}.",
        )

    def _claims(self) -> Table:
        """Give the inequalities."""
        pairs = [(eps, quantity) for eps in CLAIMS for quantity in QUANTITIES]
        rows = []
        for name in dict.fromkeys((c.constants, c.place) for c in self.claims):
            found = {(c.eps, c.quantity): c for c in self.claims if (c.constants, c.place) == name}
            cells = (f"{found[p].found}{'' if found[p].holds else ' (!)'}" if p in found else "-" for p in pairs)
            rows.append((*name, *cells))
        return Table(
            "The bounds with batch normalisation beside those without: said on the slides, and found",
            ("constants", "BN before", *(f"eps {eps:g}: {QUANTITIES[quantity]}" for eps, quantity in pairs)),
            (("said", "", *(CLAIMS[eps] for eps, _ in pairs)), *rows),
        )

    def _crossings(self) -> Table:
        """Give the eps at which the bounds are equal."""
        names = list(dict.fromkeys((c.constants, c.place) for c in self.crossings))
        found = {(c.depth, c.quantity, c.constants, c.place): c.eps for c in self.crossings}
        rows = []
        for depth in dict.fromkeys(c.depth for c in self.crossings):
            for quantity, letter in QUANTITIES.items():
                cells = (found.get((depth, quantity, *name)) for name in names)
                rows.append((f"VGG-{depth}", letter, *("-" if e is None else f"{e:.3g}" for e in cells)))
        return Table(
            "The eps from which on batch normalisation makes the bound smaller",
            ("", "", *(f"{constants}, {place}" for constants, place in names)),
            tuple(rows),
            "Computed: the bounds fall as eps grows, so that there is one at most; -: none from 1e-6 to 1e6.",
        )

    def _depths(self) -> Table:
        """Give the bounds against depth, by the right constants."""
        depths = list(dict.fromkeys(n.depth for n in self.networks))
        kinds = list(dict.fromkeys((n.eps, n.place) for n in self.networks if n.smooth))
        rows = []
        for eps, place in kinds:
            for k, (quantity, letter) in enumerate(QUANTITIES.items()):
                cells = (getattr(self.find(d, eps, place).network("right"), quantity) for d in depths)
                name = "smooth" if eps is None else f"smooth + BN {eps:g}"
                rows.append((name if k == 0 else "", (place or "") if k == 0 else "", letter, *map(log_of, cells)))
        return Table(
            "log10 of the bounds against depth, by the right constants",
            ("network", "BN before", "", *(f"VGG-{d}" for d in depths)),
            tuple(rows),
        )

    def _objectives(self, own: list[NetworkBounds]) -> Table:
        """Give the bounds of the loss."""
        rows = [
            (
                n.name if k == 0 else "", (n.place or "") if k == 0 else "", letter,
                *(log_of(getattr(n.objective[name], quantity)) for name in CONSTANTS if name in n.objective),
                *["-"] * (len(CONSTANTS) - len(n.objective)),
            )
            for n in own for k, (quantity, letter) in enumerate(QUANTITIES.items())
        ]  # fmt: skip
        return Table(
            "log10 of the same for the mean logistic loss of the network's output",
            ("network", "BN before", "", *CONSTANTS),
            tuple(rows),
        )

    def _pieces(self) -> Table:
        """Give the constants themselves."""
        rows = tuple((p.layer, p.constant, f"{p.printed:.5g}", f"{p.right:.5g}") for p in self.pieces)
        return Table("The constants of the layers", ("layer", "constant", "printed", "right"), rows)

    def draw(self, path: Path) -> None:
        """Draw l and L against eps and against depth."""
        from nonsmooth.studies.batchnorm_picture import draw_batchnorm

        draw_batchnorm(path, self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder, made if need be; give what was written."""
        return write_report(folder, self, {"batchnorm": self.draw})


def log_of(value: float) -> str:
    """Print the decimal logarithm of a bound.

    >>> log_of(1000.0), log_of(float("inf")), log_of(0.0)
    ('3.00', 'inf', '-inf')
    """
    if not isfinite(value):
        return "inf"
    return f"{log10(value):.2f}" if value > 0 else "-inf"
