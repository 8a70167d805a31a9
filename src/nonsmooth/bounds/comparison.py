"""Architectures side by side: their constants layer by layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import isfinite, log10
from pathlib import Path

from nonsmooth.bounds.bounds import Bound, Bounds, Layer
from nonsmooth.errors import UsageError
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.report.text import plain

__all__ = ["BoundsComparison", "compare_bounds"]

ROWS = 60
"""How many rows a table of the text shows; the JSON has all."""

WIDTH = 100
"""The columns of a terminal that the tables are made for."""

READ = "2.00 is a constant of 100; `= 0`: the constant is zero; `-`: the architecture has no such step."
"""How the numbers are read."""


@dataclass(frozen=True)
class BoundsComparison(Reported):
    """The bounds of several architectures, and which of their layers correspond.

    `rows` gives for each row the number of the layer in each architecture, None where it has no such layer: layers
    correspond where the sequences of operations agree.
    """

    format_version: int
    architectures: Mapping[str, Bounds]
    rows: tuple[tuple[int | None, ...], ...]

    def document(self) -> Document:
        """Lay the comparison out for reading."""
        return Document(f"Bounds of {', '.join(map(plain, self.architectures))}", (_whole(self), *_layers(self)))

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the constants layer by layer, as PNG."""
        from nonsmooth.bounds.picture import draw_comparison

        draw_comparison(Path(path), self.architectures, self.rows)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder; give what was written."""
        from nonsmooth.report.files import write_report

        return write_report(folder, self, {"bounds": self.draw})


def compare_bounds(architectures: Mapping[str, Bounds]) -> BoundsComparison:
    """Put the bounds of architectures side by side, layer by layer.

    Layers correspond where the sequences of operations agree (the longest common parts); what only one architecture has
    stands in a row of its own.

    Raises:
        UsageError: fewer than two architectures.

    >>> import torch
    >>> import nonsmooth as ns
    >>> from torch.nn import Linear, Sequential, Tanh
    >>> x = torch.ones(1, 2)
    >>> nets = {"plain": Sequential(Linear(2, 2)), "tanh": Sequential(Linear(2, 2), Tanh())}
    >>> compare_bounds({name: ns.bounds(net, x, weights=1.0) for name, net in nets.items()}).rows
    ((0, 0), (None, 1))
    """
    if len(architectures) < 2:
        raise UsageError("compare_bounds takes two architectures or more.")
    found = list(architectures.values())
    rows: list[tuple[int | None, ...]] = [(k,) for k in range(len(found[0].layers))]
    for before, bounds in enumerate(found[1:], 1):
        rows = list(_aligned(rows, [_name(found, row) for row in rows], bounds.layers, before))
    return BoundsComparison(FORMAT_VERSION, dict(architectures), tuple(rows))


def _name(found: Sequence[Bounds], row: tuple[int | None, ...]) -> str:
    """Name a row by the operation of its layers."""
    return next(b.layers[k].operation for b, k in zip(found, row, strict=False) if k is not None)


def _aligned(
    rows: Sequence[tuple[int | None, ...]], names: Sequence[str], layers: Sequence[Layer], before: int
) -> Iterator[tuple[int | None, ...]]:
    """Add an architecture to the rows."""
    matcher = SequenceMatcher(None, names, [layer.operation for layer in layers], autojunk=False)
    for kind, i, j, k, n in matcher.get_opcodes():
        if kind == "equal":
            yield from ((*rows[i + d], k + d) for d in range(j - i))
        else:
            yield from ((*row, None) for row in rows[i:j])
            yield from (((None,) * before + (d,)) for d in range(k, n))


def _kinds(comparison: BoundsComparison) -> list[str]:
    """List what runs through a set in any architecture."""
    every = comparison.architectures.values()
    return [kind for kind in ("weights", "inputs") if any(b.kind == kind for bounds in every for b in bounds.blocks)]


def _whole(comparison: BoundsComparison) -> Table:
    """Compare the results."""
    kinds = _kinds(comparison)
    rows = []
    for name, bounds in comparison.architectures.items():
        for result, (weights, inputs, both) in bounds.results.items():
            found = {"weights": weights, "inputs": inputs}
            cells = [both.norm, *(c for kind in kinds for c in _pair(found[kind]))]
            rows.append((plain(name), result, *map(_log, cells)))
    columns = ("architecture", "of", "m", *(f"{c} ({kind})" for kind in kinds for c in ("l", "L")))
    return Table("Constants, as powers of ten", columns, tuple(rows), READ)


def _layers(comparison: BoundsComparison) -> Iterator[Table]:
    """Compare layer by layer, with respect to weights and inputs."""
    every = list(comparison.architectures.items())
    for kind in _kinds(comparison):
        names = [_cut(plain(name), 2 * len(every) + 1) for name, _ in every]
        columns = ("operation", *(f"{c}, {name}" for name in names for c in ("l", "L")))
        rows = []
        for row in comparison.rows[:ROWS]:
            layers = [None if k is None else bounds.layers[k] for k, (_, bounds) in zip(row, every, strict=True)]
            cells = [c for layer in layers for c in (_pair(getattr(layer, kind)) if layer else (None, None))]
            rows.append((_name([b for _, b in every], row), *map(_log, cells)))
        more = len(comparison.rows) - ROWS
        note = f"{more} more in the JSON." if more > 0 else ""
        yield Table(f"Layer by layer in the {kind}, as powers of ten", columns, tuple(rows), note)


def _cut(name: str, columns: int) -> str:
    """Shorten the name of an architecture so that the head of its column takes three lines or fewer.

    >>> _cut("net", 5), _cut("/some/where/far/away/architectures.py:network_with_normalisation", 5)
    ('net', '/some/where/far/away…rk_with_normalisation')
    """
    letters = max(3 * (WIDTH // columns - 3) - 9, 9)
    return name if len(name) <= letters else f"{name[: letters // 2 - 1]}…{name[-(letters - letters // 2) :]}"


def _pair(bound: Bound) -> tuple[float, float]:
    """Give the Lipschitz and the smoothness constant."""
    return bound.lipschitz, bound.smoothness


def _log(constant: float | None) -> str:
    """Print a constant as a power of ten.

    >>> _log(1000.0), _log(0.0), _log(float("inf")), _log(None)
    ('3.00', '= 0', 'inf', '-')
    """
    if constant is None:
        return "-"
    if constant == 0:
        return "= 0"
    return f"{log10(constant):.2f}" if isfinite(constant) else "inf"
