"""What is drawn of a watched training run: its map of places by steps, as plain data for `report.run_picture`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nonsmooth.audit.watch_summary import ENDS, Place
from nonsmooth.report.run_picture import RunMap

if TYPE_CHECKING:
    from nonsmooth.audit.watch_report import RunReport

__all__ = ["place_names", "run_map", "short_line"]


def run_map(report: RunReport) -> RunMap:
    """Gather the shares of every place at every observed step, the changes of the gradient, and where it broke."""
    records = report.records
    kinks = [p for p in report.places if p.kind not in ENDS]
    every = report.setting.get("every")
    subtitle = (
        f"{report.total}, {len(records):,} of them observed{f' (every {every:,} steps)' if _more(every) else ''}."
    )
    if any(not r.backwards for r in records):
        subtitle += " Where no backward pass came, all elements at a kink are counted."
    return RunMap(
        title=f"Kinks met in the training of {report.model}" if report.model else "Kinks met in a training",
        subtitle=subtitle,
        rows=tuple(place_names(kinks)),
        steps=tuple(r.step for r in records),
        shares=tuple(_shares(p, len(records)) for p in kinks),
        changes=tuple(_change(r.change.relative) if r.change is not None else None for r in records),
        rounding=report.rounding,
        marks=(
            ("gradient not finite", tuple(k for k, r in enumerate(records) if _broken(r.not_finite, r.gradient_norm))),
            ("infinite derivative", tuple(k for k, r in enumerate(records) if r.traps)),
        ),
    )


def _more(every: object) -> bool:
    """Tell whether steps were left out."""
    return isinstance(every, int) and every > 1


def _broken(names: Sequence[str], norm: float | None) -> bool:
    """Tell whether a gradient is not finite."""
    return bool(names) or (norm is not None and not math.isfinite(norm))


def _change(relative: float | None) -> float:
    """Give a change as it is drawn: infinite where the gradient was 0."""
    return math.inf if relative is None else relative


def _shares(place: Place, steps: int) -> tuple[float | None, ...]:
    """Give the share at each observed step; None where the place did not run."""
    found: list[float | None] = [None] * steps
    for k, share in zip(place.at, place.shares, strict=True):
        found[k] = share
    return tuple(found)


def place_names(places: Sequence[Place]) -> list[str]:
    """Name places by module and operation, with the kink and the line where these are needed to tell them apart."""
    names = [p.name for p in places]
    for more in (lambda p: p.kink, lambda p: short_line(p.line)):
        count = Counter(names)
        names = [f"{n} · {more(p)}" if count[n] > 1 and more(p) else n for n, p in zip(names, places, strict=True)]
    return names


def short_line(line: str) -> str:
    """Give the file and the number of a line, without its text.

    >>> short_line("net.py:12, `x = torch.relu(x)`"), short_line("net.py:12")
    ('net.py:12', 'net.py:12')
    """
    return line.split(", `", 1)[0]
