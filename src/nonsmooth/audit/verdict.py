"""The verdict of an audit: whether backprop's gradient is a subgradient, by how much not, and which lines do it.

First it is compared with certified subgradients, the limits of gradients along a few directions. One that differs from
them may still be another: then the sets decide. Inside Clarke's subdifferential it is certified, outside it is an
artifact, with a direction that separates them; where the sets are not known well enough it `differs`, which proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nonsmooth.audit.causes import Cause, find_causes
from nonsmooth.audit.effects import Bench
from nonsmooth.audit.gradients import Gradient, bad_entries, compare, named_gradient
from nonsmooth.audit.result import Change, KinkSummary
from nonsmooth.derivatives.backprop import backprop
from nonsmooth.derivatives.clarke import clarke
from nonsmooth.derivatives.subgradient import Certificate, subgradient
from nonsmooth.derivatives.verdict import judge_gradient
from nonsmooth.errors import NonsmoothError
from nonsmooth.program import Source
from nonsmooth.report.table import Document, Table

__all__ = ["DIRECTIONS", "SetVerdict", "Verdict", "VerdictReason", "judge", "verdict_document", "verdict_tables"]

DIRECTIONS = 4
"""So many directions are tried: each has its own certified subgradient, and backprop's may be any of them."""

SETS = 200_000
"""With more active kinks than this the sets are not asked."""

FAINT = 1e-6
"""Parts of a separating direction, of length 1, that are shorter than this are not shown."""

ROWS = 20
"""How many rows a table of the text shows; the JSON has all."""


@dataclass(frozen=True)
class VerdictReason:
    """Why no subgradient was certified, with the line."""

    rule: str
    message: str
    source: Source | None


@dataclass(frozen=True)
class SetVerdict:
    """What Clarke's subdifferential says about backprop's gradient.

    Attributes:
        word: "certified", "artifact" or "undecided".
        message: the same in a sentence.
        known: what is known of dF(x), in a sentence.
        equality: why dF(x) is known exactly; None if it is not.
        kinks: how many active kinks were met; `groups` the sizes of those that interact, the largest first.
        gap: at least so far is an artifact from dF(x).
        separating: for an artifact, how much of the direction that separates it lies in each parameter (norms).
    """

    word: str
    message: str
    known: str
    equality: str | None
    kinks: int
    groups: tuple[int, ...]
    gap: float
    separating: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """How backprop's gradient stands to the certified subgradients that were found.

    Attributes:
        word: "certified" (a subgradient), "artifact" (none), "differs" (from the subgradients that were found, which
            proves nothing) or "undecided" (none was found).
        message: the same in a sentence, which claims no more than is known.
        total: the change from backprop's gradient to the nearest of them, relative to backprop's; `parameters` by
            parameter.
        causes: the lines that do it, those that move most first; `causes_note` says how they were found.
        reasons: why there is none, if so.
        directions: how many certified subgradients backprop's was compared with; `agree` tells whether they are equal.
        seed: of the direction of the one that `total` is about; `margin` the smallest relative margin of its
            certificate, and `kinks` the number of kink elements that it decided.
        rounding: relative changes up to this are rounding.
        sets: what the sets say, where they were asked.
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
    sets: SetVerdict | None = None

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


def judge(bench: Bench, rows: tuple[KinkSummary, ...], sets: bool = True) -> Verdict:
    """Compare backprop's gradient with certified subgradients along a few directions, then with the sets.

    Status: `computed`, as the certificates; `undecided` where there is none.
    """
    found, reasons = _certified(bench)
    nearest = min(
        found, key=lambda f: f.total.absolute if f.total.absolute == f.total.absolute else float("inf"), default=None
    )
    equal = nearest is not None and nearest.equal(bench.rounding)
    few = sum(row.active for row in rows) <= SETS
    asked = _by_sets(bench) if sets and few and not equal and not bad_entries(bench.reference) else None
    settled = asked if asked is not None and asked.word != "undecided" else None
    if nearest is None:
        return _without_certificate(bench, reasons, asked, settled)
    agree = _agree(found, bench) if len(found) > 1 else None
    causes, note = (
        ((), "") if equal or (settled and settled.word == "certified") else _causes(bench, rows, nearest, settled)
    )
    message = _equal(nearest) if equal else _apart(bench, nearest, len(found), agree)
    return Verdict(
        word="certified" if equal else settled.word if settled else "differs",
        message=_settled(settled) if settled else message,
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
        sets=asked,
    )


def _without_certificate(
    bench: Bench, reasons: tuple[VerdictReason, ...], asked: SetVerdict | None, settled: SetVerdict | None
) -> Verdict:
    """Say what is known where no subgradient was certified along a direction."""
    message = f"undecided: no subgradient was certified ({len(reasons)} reason(s), below)"
    return Verdict(
        word=settled.word if settled else "undecided",
        message=_settled(settled) if settled else message,
        total=None,
        parameters={},
        causes=(),
        causes_note="",
        reasons=() if settled else reasons,
        directions=0,
        agree=None,
        seed=None,
        margin=None,
        kinks=asked.kinks if asked else 0,
        rounding=bench.rounding,
        status="computed" if settled else "undecided",
        sets=asked,
    )


def _causes(
    bench: Bench, rows: tuple[KinkSummary, ...], nearest: _Found, settled: SetVerdict | None
) -> tuple[tuple[Cause, ...], str]:
    """Find the lines that part backprop's gradient from a subgradient: of an artifact those that move what is wrong."""
    causes, note = find_causes(bench, rows, nearest.certificate.direction, nearest.gradient)
    if settled is None:
        return causes, note
    wrong = [
        c
        for c in causes
        if any(n not in c.parameters or c.parameters[n].size > bench.rounding for n in settled.separating)
    ]
    return (tuple(wrong), note) if wrong else (causes, note)


def _by_sets(bench: Bench) -> SetVerdict | None:
    """Ask Clarke's subdifferential; None where there is no field."""
    bench.report("Clarke's subdifferential", 0, 1)
    try:
        vector = bench.framework.flat(backprop(bench.program, bench.x, *bench.data))
        known = clarke(bench.program, bench.x, *bench.data)
        found = judge_gradient(bench.framework, bench.program, bench.x, bench.data, known, vector, None)
    except NonsmoothError:
        return None
    separating: dict[str, float] = {}
    if found.direction is not None:
        parts = named_gradient(bench.framework, found.direction)
        separating = {n: float(np.linalg.norm(a)) for n, a in parts.items() if np.linalg.norm(a) > FAINT}
    return SetVerdict(
        word=found.word,
        message=found.message,
        known=repr(known),
        equality=known.equality,
        kinks=known.kinks,
        groups=known.outer.groups[:ROWS],
        gap=found.gap,
        separating=separating,
    )


def _settled(sets: SetVerdict) -> str:
    """Say what the sets say."""
    exactly = f"Clarke's subdifferential (known exactly: {sets.equality})" if sets.equality else "its inner part"
    if sets.word == "certified":
        return (
            f"certified: backprop's gradient is a subgradient: it lies in {exactly}, although other selections differ"
        )
    outside = exactly if sets.equality else "the conservative field, which contains Clarke's subdifferential"
    most = max(sets.separating, key=lambda n: sets.separating[n], default=None)
    along = f"; the direction that separates them lies most in {most}" if most and len(sets.separating) > 1 else ""
    return (
        f"an artifact: backprop's gradient is no subgradient: it is outside {outside} by {sets.gap:.3g} or more{along}"
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
            "Where the direction lies that separates the artifact from every subgradient (computed)",
            ("parameter", "norm of its part"),
            tuple(sorted(_separating(verdict).items(), key=lambda item: -item[1])[:ROWS]),
            _left_out(len(_separating(verdict)), "" if verdict.sets is None else verdict.sets.known),
        ),
        Table(
            "Why no subgradient was certified",
            ("reason", "line", "what"),
            tuple((r.rule, r.source.place if r.source else None, r.message) for r in verdict.reasons[:ROWS]),
            _left_out(len(verdict.reasons), ""),
        ),
    )
    return tuple(table for table in tables if table.rows)


def _separating(verdict: Verdict) -> Mapping[str, float]:
    """Give the norms of the parts of a separating direction, if there is one."""
    return {} if verdict.sets is None else verdict.sets.separating


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
