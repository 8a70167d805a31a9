"""The verdict of an audit: whether backprop's gradient equals a certified subgradient, by how much not, and which lines do it.

A certificate tells of one subgradient, the limit of gradients along one direction. A gradient that differs from it may
still be another subgradient, so that the verdict `differs` is no proof of an artifact, and never says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nonsmooth.audit.causes import Cause, find_causes
from nonsmooth.audit.effects import Bench
from nonsmooth.audit.gradients import Gradient, bad_entries, compare, named_gradient
from nonsmooth.audit.result import Change, KinkSummary
from nonsmooth.derivatives.subgradient import Certificate, subgradient
from nonsmooth.errors import NonsmoothError
from nonsmooth.program import Source
from nonsmooth.report.table import Document, Table

__all__ = ["DIRECTIONS", "Verdict", "VerdictReason", "judge", "verdict_document", "verdict_tables"]

DIRECTIONS = 4
"""So many directions are tried: each has its own certified subgradient, and backprop's may be any of them."""

ROWS = 20
"""How many rows a table of the text shows; the JSON has all."""


@dataclass(frozen=True)
class VerdictReason:
    """Why no subgradient was certified, with the line."""

    rule: str
    message: str
    source: Source | None


@dataclass(frozen=True)
class Verdict:
    """How backprop's gradient stands to the certified subgradients that were found.

    Attributes:
        word: "certified" (equal to one of them), "differs" (from all of them) or "undecided" (none was found).
        message: the same in a sentence, which claims no more than is known.
        total: the change from backprop's gradient to the nearest of them, relative to backprop's; `parameters` by
            parameter.
        causes: the lines that do it, those that move most first; `causes_note` says how they were found.
        reasons: why there is none, if so.
        directions: how many certified subgradients backprop's was compared with; `agree` tells whether they are equal.
        seed: of the direction of the one that `total` is about; `margin` the smallest relative margin of its
            certificate, and `kinks` the number of kink elements that it decided.
        rounding: relative changes up to this are rounding.
    """

    word: str
    message: str
    total: Change | None
    parameters: Mapping[str, Change]
    causes: tuple[Cause, ...]
    causes_note: str
    reasons: tuple[VerdictReason, ...]
    directions: int
    agree: bool | None
    seed: int | None
    margin: float | None
    kinks: int
    rounding: float
    status: str = "computed"

    @property
    def differing(self) -> tuple[str, ...]:
        """The parameters whose gradients differ by more than rounding, those that differ most first."""
        found = [
            n for n, change in self.parameters.items() if change.size > self.rounding or change.size != change.size
        ]
        return tuple(sorted(found, key=lambda n: -self.parameters[n].size))


@dataclass(frozen=True)
class _Found:
    """A certified subgradient, and how far backprop's is from it."""

    seed: int
    gradient: Gradient
    certificate: Certificate
    total: Change
    parameters: Mapping[str, Change]

    def equal(self, rounding: float) -> bool:
        """Tell whether backprop's gradient is this one, up to rounding, in every parameter."""
        return all(change.size <= rounding for change in (self.total, *self.parameters.values()))


def judge(bench: Bench, rows: tuple[KinkSummary, ...]) -> Verdict:
    """Compare backprop's gradient with certified subgradients along a few directions.

    Status: `computed`, as the certificates; `undecided` where there is none.
    """
    found, reasons = _certified(bench)
    if not found:
        message = f"undecided: no subgradient was certified ({len(reasons)} reason(s), below)"
        return Verdict(
            "undecided", message, None, {}, (), "", reasons, 0, None, None, None, 0, bench.rounding, "undecided"
        )
    nearest = min(found, key=lambda f: f.total.absolute if f.total.absolute == f.total.absolute else float("inf"))
    agree = _agree(found, bench) if len(found) > 1 else None
    equal = nearest.equal(bench.rounding)
    causes, note = ((), "") if equal else find_causes(bench, rows, nearest.certificate.direction, nearest.gradient)
    return Verdict(
        word="certified" if equal else "differs",
        message=_equal(nearest) if equal else _apart(bench, nearest, len(found), agree),
        total=nearest.total,
        parameters=nearest.parameters,
        causes=causes,
        causes_note=note,
        reasons=(),
        directions=len(found),
        agree=agree,
        seed=nearest.seed,
        margin=float(nearest.certificate.margin),
        kinks=nearest.certificate.kinks,
        rounding=bench.rounding,
    )


def _certified(bench: Bench) -> tuple[list[_Found], tuple[VerdictReason, ...]]:
    """Draw directions until backprop's gradient is met; a direction that stays undecided ends the search."""
    found: list[_Found] = []
    for seed in range(DIRECTIONS):
        bench.report(f"certified subgradient along direction {seed + 1}", seed, DIRECTIONS)
        try:
            _, tree, certificate = subgradient(bench.program, bench.x, *bench.data, seed=seed)
        except NonsmoothError as error:
            return found, (VerdictReason("refused", str(error), None),)
        if not certificate.certified:
            return found, tuple(VerdictReason(r.rule, r.message, r.source) for r in certificate.reasons)
        gradient = named_gradient(bench.framework, tree)
        found.append(_Found(seed, gradient, certificate, *compare(gradient, bench.reference, bench.reference)))
        if certificate.direction is None or found[-1].equal(bench.rounding):
            break
    return found, ()


def _agree(found: list[_Found], bench: Bench) -> bool:
    """Tell whether all certified subgradients are the same, up to rounding."""
    first = found[0].gradient
    return all(
        change.size <= bench.rounding
        for other in found[1:]
        for changes in [compare(other.gradient, first, first)]
        for change in (changes[0], *changes[1].values())
    )


def _equal(found: _Found) -> str:
    """Say that backprop's gradient is a certified subgradient."""
    if found.certificate.direction is None:
        return "certified: no kink is active that can decide; backprop's gradient equals the certified subgradient"
    kinks, margin = found.certificate.kinks, found.certificate.margin
    by = f", by a relative margin of {margin:.2g} or more" if math.isfinite(margin) else ""
    return (
        "certified: backprop's gradient equals a certified subgradient, a limit of gradients along one direction that "
        f"decides {kinks:,} active kink(s){by}"
    )


def _apart(bench: Bench, found: _Found, directions: int, agree: bool | None) -> str:
    """Say that backprop's gradient is not a certified one, and what that does not mean."""
    if bad_entries(bench.reference):
        return (
            "not the certified one: backprop's gradient holds nan or inf, and the certified subgradient does not; the "
            "findings `nan` and `singular` say where they come from"
        )
    many = "a certified subgradient" if directions == 1 else f"the certified subgradients along {directions} directions"
    least = "" if directions == 1 else "at least "
    same = ""
    if agree is not None:
        same = "; those agree with each other" if agree else "; those differ from each other too"
    return (
        f"not the certified one: backprop's gradient differs from {many}, by {least}{found.total.phrase(bench.rounding)}"
        f"{same}; it may still be another subgradient, unless the function is smooth here"
    )


def verdict_tables(verdict: Verdict) -> tuple[Table, ...]:
    """Give the tables of a verdict: the parameters that differ, the lines that do it, the reasons why it is open."""
    rounding = verdict.rounding
    names = verdict.differing if len(verdict.parameters) > 1 else ()
    still = len(verdict.parameters) - len(names)
    tables = (
        Table(
            "How far backprop's gradient is from the nearest certified subgradient (computed)",
            ("parameter", "change", "absolute"),
            tuple((n, verdict.parameters[n].text(rounding), verdict.parameters[n].absolute) for n in names[:ROWS]),
            _left_out(len(names), f"{still} parameter(s) do not differ." if still else ""),
        ),
        Table(
            "The lines that part backprop's gradient from the certified subgradient (computed)",
            ("line", "alone", "left out", "most moved", "kinks"),
            tuple(
                (
                    f"{cause.name}  {cause.text}".rstrip(),
                    cause.alone.text(rounding),
                    None if cause.without is None else cause.without.text(rounding),
                    _most(cause, rounding),
                    ", ".join(group.rpartition(" · ")[2] for group in cause.groups),
                )
                for cause in verdict.causes[:ROWS]
            ),
            _left_out(len(verdict.causes), verdict.causes_note),
        ),
        Table(
            "Why no subgradient was certified",
            ("reason", "line", "what"),
            tuple((r.rule, r.source.place if r.source else None, r.message) for r in verdict.reasons[:ROWS]),
            _left_out(len(verdict.reasons), ""),
        ),
    )
    return tuple(table for table in tables if table.rows)


def verdict_document(verdict: Verdict) -> Document:
    """Lay a verdict out for reading, for every writer: the sentence with its status, then the tables."""
    return Document("Verdict", (f"{verdict.message} ({verdict.status})", *verdict_tables(verdict)))


def _left_out(count: int, note: str) -> str:
    """Say how many rows were left out."""
    more = f"The first {ROWS} of {count} rows; the JSON has all." if count > ROWS else ""
    return " ".join(text for text in (more, note) if text)


def _most(cause: Cause, rounding: float) -> str | None:
    """Name the parameter that a line moves most."""
    name = max(cause.parameters, key=lambda n: (cause.parameters[n].size, cause.parameters[n].absolute), default=None)
    return None if name is None else f"{name} {cause.parameters[name].text(rounding)}"
