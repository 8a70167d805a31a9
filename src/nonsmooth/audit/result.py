"""The parts of an audit: plain results, each with the status of what it says.

The status is `computed` (floating point), `sampled` (with the number of samples) or, for times, `measured`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nonsmooth.program import Source
from nonsmooth.report.text import format_share

__all__ = [
    "HISTOGRAM_EDGES",
    "QUANTILES",
    "Change",
    "Comparison",
    "Cost",
    "Effect",
    "KinkSummary",
    "LintFinding",
    "OperationUse",
    "Place",
    "ProgramSummary",
    "TiedBranch",
]

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75)
"""Which quantiles of the margins an audit keeps."""

HISTOGRAM_EDGES = tuple(10.0 ** (k / 2) for k in range(-18, 7))
"""The edges of the histogram of margins: half decades from 1e-9 to 1e3; the first and last bin are open."""


@dataclass(frozen=True)
class Change:
    """How far one gradient is from another: ||g - r||, and ||g - r|| / ||r|| where that means something.

    `relative` is None where ||r|| is 0 or one of the two holds nan or inf; `note` says which.
    """

    absolute: float
    relative: float | None
    note: str = ""

    def text(self, rounding: float = 0.0) -> str:
        """Print the change shortly.

        >>> Change(0.5, 0.25).text(), Change(0.5, None, "the reference is 0").text()
        ('25.0 %', 'abs 0.5')
        """
        if self.relative is not None:
            return format_share(self.relative, rounding=rounding)
        return f"abs {self.absolute:.3g}" if math.isfinite(self.absolute) else "nan/inf"

    def phrase(self, rounding: float = 0.0) -> str:
        """Print the change as the end of a sentence, `... moves by`.

        >>> Change(0.5, 0.25).phrase()
        '25.0 % of its norm'
        """
        if self.relative is not None:
            return f"{self.text(rounding)} of its norm"
        return f"{self.absolute:.3g}, absolutely ({self.note})" if math.isfinite(self.absolute) else "a nan or inf"

    @property
    def size(self) -> float:
        """The relative change, infinite where it is not defined and the change is not 0: for sorting."""
        if self.relative is not None:
            return self.relative
        return 0.0 if self.absolute == 0 else float("inf")


@dataclass(frozen=True)
class ProgramSummary:
    """What was captured, and what the proof of capture compared."""

    steps: int
    nonsmooth: int
    kinds: Mapping[str, int]
    parameters: Mapping[str, int]
    guards: int
    value_error: float | None
    gradient_error: float | None
    tolerance: float | None
    compared: str
    status: str


@dataclass(frozen=True)
class OperationUse:
    """An operation of the dictionary, and how many steps use it."""

    operation: str
    kind: str
    steps: int
    kinks: tuple[str, ...]


@dataclass(frozen=True)
class KinkSummary:
    """The kinks of one name at one step.

    Attributes:
        label: a name of the group, unique in the audit.
        active: the elements within `tol` of the kink.
        harmless: elements that tie but cannot matter, as all tied entries have a zero derivative.
        can_matter: the active ones that can change the gradient at all; None where it is not known.
        margin: the smallest distance of an element that is neither; quantiles and histogram are of the same elements.
    """

    label: str
    step: int
    operation: str
    kind: str
    kink: str
    module: str
    source: Source | None
    active: int
    elements: int
    harmless: int
    can_matter: int | None
    margin: float | None
    quantiles: Mapping[str, float]
    histogram: tuple[int, ...]
    status: str = "computed"

    @property
    def share(self) -> float:
        """The share of the elements that is active."""
        return self.active / self.elements if self.elements else 0.0

    @property
    def tied(self) -> float:
        """The share of the elements that tie, whether that can matter or not."""
        return (self.active + self.harmless) / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class Place:
    """The kinks of one line of source, or of one module."""

    name: str
    text: str
    steps: int
    active: int
    elements: int
    can_matter: int | None
    margin: float | None
    status: str = "computed"


@dataclass(frozen=True)
class Comparison:
    """The gradient under one convention against the framework's, in total and per parameter."""

    convention: str
    norm: float
    bad_entries: int
    total: Change
    parameters: Mapping[str, Change]
    seconds: float
    status: str = "computed"
    note: str = ""


@dataclass(frozen=True)
class Effect:
    """What one group of kinks does alone: the gradient when only its weights go from one end to the other.

    ||g_1 - g_0|| / ||g_framework||, with every other kink left to the framework.
    """

    group: str
    step: int
    operation: str
    kink: str
    module: str
    source: Source | None
    weights: tuple[str, str]
    total: Change
    parameters: Mapping[str, Change]
    moves_most: str
    status: str = "computed"
    note: str = ""

    @property
    def largest(self) -> Change:
        """The change of the parameter that moves most."""
        return self.parameters.get(self.moves_most, self.total)


@dataclass(frozen=True)
class TiedBranch:
    """Another program that is active at the point, as an `if` on data ties there."""

    sources: tuple[Source, ...]
    outcomes: tuple[str, ...]
    value_gap: float | None
    joins: bool | None
    total: Change | None
    parameters: Mapping[str, Change]
    status: str = "computed"
    note: str = ""


@dataclass(frozen=True)
class LintFinding:
    """Something to know about the program at this point, with its line and what to do."""

    rule: str
    message: str
    source: Source | None
    fix: str
    status: str = "computed"


@dataclass(frozen=True)
class Cost:
    """The wall time of a part of the audit, and its ratio to one gradient of the program by the framework's own rules."""

    what: str
    seconds: float
    ratio: float | None
    status: str = field(default="measured")
