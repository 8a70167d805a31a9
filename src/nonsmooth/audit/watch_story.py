"""A watched training run in a few lines: what is not finite first, then the kinks, then what they did to the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nonsmooth.audit.watch_picture import short_line
from nonsmooth.audit.watch_summary import Place
from nonsmooth.report.text import format_share, plain

if TYPE_CHECKING:
    from nonsmooth.audit.watch_report import RunReport

__all__ = ["LINE", "NAME", "counted", "cut", "short", "story", "where"]

NAME, LINE = 34, 20
"""Longer names and lines are cut in the text."""


def story(report: RunReport) -> Iterator[str]:
    """Say in a few lines what was found, what is not finite first."""
    found = report.summary
    yield from _trouble(report)
    yield _observed(report)
    if not found.observed:
        return
    yield from _met(report)
    yield from _changed(report)
    if found.unseen:
        names = ", ".join(cut(name, 60) for name in found.unseen[:6])
        more = f" and {len(found.unseen) - 6} more" if len(found.unseen) > 6 else ""
        yield f"Not looked at, since the dictionary does not list them: {names}{more}."


def _observed(report: RunReport) -> str:
    """Say how many steps were observed."""
    found, every = report.summary, report.setting.get("every")
    if not found.observed:
        return f"{report.total}, none of them observed."
    each = f" (every {every:,} steps)" if isinstance(every, int) and every > 1 else ""
    ranks = f" Counts are added up over {found.ranks:,} processes." if found.ranks > 1 else ""
    if found.observed == report.steps:
        return f"{report.total}, {'observed' if report.steps == 1 else 'all observed'}; counts are computed.{ranks}"
    rest = "counts are computed for these, nothing is said of the others"
    return f"{report.total}, {found.observed:,} of them observed{each}; {rest}.{ranks}"


def _trouble(report: RunReport) -> Iterator[str]:
    """Say where the gradient, or a derivative in it, was not finite."""
    found = report.summary
    if found.not_finite:
        names = [cut(name, 40) for name in found.not_finite_parameters]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        listed = f": {', '.join(names[:3])}{more}" if names else ""
        yield (
            f"NOT FINITE: the gradient had a nan or an infinity at {counted(found.not_finite)} of those observed, first at "
            f"step {found.first_not_finite:,}{listed}."
        )
    for trap in report.traps[:3]:
        first = report.records[trap.matters[0]].step
        again = len(trap.matters) - 1
        yield (
            f"INFINITE DERIVATIVE of {where(trap)}: {trap.found[trap.at.index(trap.matters[0])].active:,} elements at "
            f"step {first:,}{f', and at {again:,} more' if again else ''}: a nan as soon as it meets a zero."
        )


def _met(report: RunReport) -> Iterator[str]:
    """Say at how many steps kinks were met, until when, and where most."""
    found, met = report.summary, [p for p in report.kinks if p.matters]
    if found.with_kinks:
        assert found.last_with_kinks is not None
        after = f"; none at the {found.observed_after:,} observed after it" if found.observed_after else ""
        yield (
            f"Kinks that can matter were met at {found.with_kinks:,} of them, first at step "
            f"{found.first_with_kinks:,}, last at step {found.last_with_kinks:,}{after}."
        )
        if found.harmless:
            others = "1 other step" if found.harmless == 1 else f"{found.harmless:,} other steps"
            yield f"At {others} the kinks met cannot matter: no derivative passes through them."
    elif not report.kinks:
        yield "No operation with kinks ran."
    elif not any(r.active for r in report.records):
        yield "No kink was met."
    elif found.harmless:
        yield f"Kinks were met at {found.harmless:,} of them, none of which can matter."
    if found.without_backward:
        yield (
            f"At {found.without_backward:,} of them no backward pass came: which kinks can matter there is not known, "
            "and shares are those of all kinks met."
        )
    if met:
        share, at = met[0].largest
        yield f"Most: {format_share(share)} of the elements of {where(met[0])}, at step {report.records[at].step:,}."


def _changed(report: RunReport) -> Iterator[str]:
    """Say how far the other choice moved the gradient."""
    found, choice = report.summary, report.setting.get("other choice")
    named = f"The other choice ({cut(str(choice), 30)})" if choice is not None else "The other choice"
    if found.measured and found.largest_change is not None:
        before = f"{named} moved the gradient"
        if found.moved == 0:
            yield f"{before} by no more than rounding wherever it was measured: {counted(found.measured)} with kinks."
        else:
            last = (
                f", beyond rounding at {found.moved:,}, last at step {found.last_moved:,}"
                if found.moved < found.measured
                else ""
            )
            how = (
                "away from 0"
                if found.largest_change == math.inf
                else f"by {report.change(found.largest_change)} at most,"
            )
            median = f"median {report.change(found.median_change)} over the {counted(found.measured)}"
            many = "; " + median if found.measured > 1 else ", the only one"
            yield f"{before} {how} at step {found.largest_change_at:,}{many} with kinks where it was measured{last}."
    if found.change_not_finite:
        yield f"At {counted(found.change_not_finite)} the change was no number."
    others = {why: n for why, n in found.not_measured.items() if why != "not due" or not found.measured}
    for why, count in list(others.items())[:3]:
        yield f"The change was not measured at {counted(count)} with kinks: {cut(why, 120)}."


def where(place: Place) -> str:
    """Name an operation with its module and line."""
    line = short_line(place.line)
    return cut(place.name, 60) + (f" ({cut(line, LINE)})" if line else "")


def cut(text: str, letters: int) -> str:
    """Cut a long name, and keep most of its end.

    >>> cut("encoder.layers.11.feed_forward.activation", 21)
    'encoder…rd.activation'
    """
    shown, head = plain(text), letters // 3
    return shown if len(shown) <= letters else f"{shown[:head]}…{shown[len(shown) - (letters - head - 1) :]}"


def short(name: str, letters: int) -> str:
    """Shorten a long name: the parts of a path to their first letters, numbers kept, as far as needed.

    >>> short("encoder.layers.11.feed_forward.activation · relu", 30)
    'e.l.11.f.activation · relu'
    """
    shown, (path, dot, rest) = plain(name), plain(name).partition(" · ")
    parts = path.split(".")
    for k, part in enumerate(parts[:-1]):
        if len(shown) > letters and not part.isdigit():
            parts[k] = part[:1]
            shown = ".".join(parts) + dot + rest
    return cut(shown, letters)


def counted(count: int) -> str:
    """Print a number of steps."""
    return f"{count:,} step{'' if count == 1 else 's'}"
