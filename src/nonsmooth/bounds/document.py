"""Bounds as paragraphs and tables."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, log10
from typing import TYPE_CHECKING

from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain

if TYPE_CHECKING:
    from nonsmooth.bounds.bounds import Bound, Bounds, Layer

__all__ = ["bounds_document", "constant"]

ROWS = 40
"""How many rows a table of the text shows; the JSON has all."""

LETTERS = 20
"""How many letters of a module's name a table shows."""

STEP = (
    "l of the step: Lipschitz constants of the operation itself, with respect to each operand (the first three). "
    "m, l, L: of the value up to the step."
)
"""What the columns are."""


def constant(number: float) -> str:
    """Print a constant: four digits, from a million on as a power of ten, inf as it is.

    >>> constant(1.25), constant(3.2e12), constant(float("inf"))
    ('1.25', '3.2e+12', 'inf')
    """
    return f"{number:.4g}" if isfinite(number) else "inf"


def bounds_document(bounds: Bounds) -> Document:
    """Lay bounds out for reading: the constants, the sets, then layer by layer."""
    parts: list[str | Table] = [_headline(bounds), _blocks(bounds), _layers(bounds)]
    return Document(f"Bounds of {plain(bounds.function)} ({bounds.framework})", tuple(parts))


def _headline(bounds: Bounds) -> str:
    """Say in a few lines what is bounded, and what makes a constant infinite."""
    lines = []
    for name, (weights, inputs, both) in bounds.results.items():
        lines.append(f"{name}: ||F|| <= {constant(both.norm)} on the set ({bounds.status})")
        for words, found in (("weights", weights), ("inputs", inputs), ("both", both)):
            if words == "both" and not (weights.lipschitz and inputs.lipschitz):
                continue
            if found.lipschitz:
                lines.append(f"  in the {words}: {_pair(found)}" if words != "both" else f"  in both: {_pair(found)}")
    lines += [f"not smooth: {plain(cause)}" for cause in bounds.causes[:8]]
    if len(bounds.causes) > 8:
        lines.append(f"{len(bounds.causes) - 8} more lines in the JSON")
    return "\n".join(lines)


def _pair(bound: Bound) -> str:
    """Print a Lipschitz and a smoothness constant, large ones with their logarithms."""
    logs = [f" (10^{log10(c):.2f})" if isfinite(c) and c >= 1e4 else "" for c in (bound.lipschitz, bound.smoothness)]
    return f"l = {constant(bound.lipschitz)}{logs[0]}, L = {constant(bound.smoothness)}{logs[1]}"


def _blocks(bounds: Bounds) -> Table:
    """Show the sets, and the constants with respect to each block alone."""
    rows = tuple(
        (
            plain(b.name),
            b.kind,
            "x".join(map(str, b.shape)) or "1",
            plain(b.set),
            constant(b.lipschitz),
            constant(b.smoothness),
        )
        for b in bounds.blocks[:ROWS]
    )
    more = len(bounds.blocks) - ROWS
    return Table(
        "Sets", ("block", "kind", "shape", "set", "l", "L"), rows, f"{more} more in the JSON." if more > 0 else ""
    )


def _layers(bounds: Bounds) -> Table:
    """Show the steps with the constants up to each of them."""
    columns = ("operation", "where", "l of the step", "m", *_columns(bounds))
    rows = tuple(tuple(_row(bounds, layer)) for layer in bounds.layers[:ROWS])
    more = len(bounds.layers) - ROWS
    note = f"{STEP} {more} more in the JSON." if more > 0 else STEP
    return Table("Layer by layer", columns, rows, note)


def _columns(bounds: Bounds) -> list[str]:
    """Name the columns of constants."""
    return [f"{c} ({kind})" for kind in _kinds(bounds) for c in ("l", "L")]


def _kinds(bounds: Bounds) -> list[str]:
    """List what runs through a set."""
    return [kind for kind in ("weights", "inputs") if any(b.kind == kind for b in bounds.blocks)]


def _row(bounds: Bounds, layer: Layer) -> Iterator[str]:
    """Show one step."""
    yield layer.operation
    yield plain(_module(layer.module, bounds.framework) or layer.line.split(",")[0] or "-")
    yield " ".join(constant(c) for c in layer.constants[:3])
    yield constant(layer.both.norm)
    for kind in _kinds(bounds):
        found: Bound = getattr(layer, kind)
        yield constant(found.lipschitz)
        yield constant(found.smoothness)


def _module(name: str, framework: str) -> str:
    """Shorten the name of a module: in JAX, where it lists classes with their packages, to the last; else from the left.

    >>> _module("eqx.nn.MLP.eqx.nn.Linear", "jax"), _module("encoder.layers.11.self_attn.out_proj", "torch")
    ('Linear', '…self_attn.out_proj')
    """
    if framework == "jax":
        return name.rpartition(".")[2]
    parts = name.split(".")
    while len(parts) > 1 and len(".".join(parts)) >= LETTERS:
        del parts[0]
    short = ".".join(parts)[-LETTERS:]
    return short if short == name else f"…{short}"
