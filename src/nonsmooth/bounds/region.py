"""The sets on which bounds hold: a ball for every block, a block being a parameter or an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf, isnan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.bounds.reach import Floats, Reach, Shape, length_of, wide
from nonsmooth.bounds.spectral_norm import BUDGET, spectral_norm
from nonsmooth.errors import UsageError

__all__ = ["Ball", "Block", "as_ball", "balls_of", "parse_weights", "radii_of"]

NORMS = ("euclidean", "spectral", "max")
HERE, ZERO = "here", "zero"


@dataclass(frozen=True)
class Ball:
    """The set of arrays within a distance of a center.

        { v : ||v - center|| <= radius }

    Args:
        radius: of the ball; inf is the whole space (of inputs only), 0 the center alone.
        center: "zero", "here" (the values given), or an array.
        norm: "euclidean" (of all entries), "spectral" (of a matrix; of a kernel as the matrix whose rows are its first
            axis), "max" (of the largest entry).

    >>> Ball(0.1, "here")
    Ball(radius=0.1, center='here', norm='euclidean')
    """

    radius: Any
    center: Any = ZERO
    norm: str = "euclidean"

    def __post_init__(self) -> None:
        """Refuse what is no ball."""
        number = isinstance(self.radius, int | float | np.number) and not isinstance(self.radius, bool)
        if not number or isnan(self.radius) or self.radius < 0:
            raise UsageError(f"Ball: the radius is a number >= 0; found {self.radius!r}.")
        if self.norm not in NORMS:
            raise UsageError(f"Ball: norm is one of {', '.join(NORMS)}; found {self.norm!r}.")
        if isinstance(self.center, str) and self.center not in (HERE, ZERO):
            raise UsageError(f"Ball: center is 'zero', 'here' or an array; found {self.center!r}.")

    def __str__(self) -> str:
        """Print the set."""
        if self.radius == 0:
            return "fixed"
        if self.radius == inf:
            return "the whole space"
        v = {HERE: "v - v0", ZERO: "v"}.get(self.center, "v - c") if isinstance(self.center, str) else "v - c"
        norm = {"euclidean": "", "spectral": "_2", "max": "_max"}[self.norm]
        return f"||{v}||{norm} <= {self.radius:g}"


@dataclass(frozen=True, eq=False)
class Block:
    """One parameter or input with its set: `value` is its number in the program, `kind` weights or inputs."""

    name: str
    kind: str
    value: int
    shape: Shape
    ball: Ball
    center: NDArray[Any] | None

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the block as a matrix."""
        if len(self.shape) < 2:
            return 1, int(np.prod(self.shape))
        return self.shape[0], int(np.prod(self.shape[1:]))

    @property
    def radius(self) -> float:
        """The radius of the Euclidean ball about the center that holds the set."""
        spread = {"euclidean": 1.0, "spectral": sqrt(min(self.matrix)), "max": sqrt(np.prod(self.shape))}
        return float(self.ball.radius * spread[self.ball.norm]) if self.ball.radius else 0.0

    def reach(self, place: int, blocks: int, budget: float = inf) -> Reach:
        """Give what the block reaches: itself, the `place`-th of all blocks."""
        zero = isinstance(self.ball.center, str) and self.ball.center == ZERO
        if self.ball.radius == 0 and self.center is not None:
            return Reach.constant(self.center, blocks)
        lipschitz = np.eye(blocks)[place] if self.ball.radius else np.zeros(blocks)
        center = None if zero or self.center is None else np.asarray(self.center)
        away = 0.0 if zero else inf if center is None else length_of(center)
        low, high = np.array(-inf), np.array(inf)
        if self.ball.norm == "max" and (zero or (center is not None and not np.iscomplexobj(center))):
            about = np.array(0.0) if center is None else center.astype(float)
            low, high = about - self.ball.radius, about + self.ball.radius
        operator = inf
        if self.ball.norm == "spectral":
            operator = self.ball.radius
            if center is not None:
                operator += spectral_norm(wide(center).reshape(self.matrix), min(budget, BUDGET)).upper
        return Reach(
            self.shape,
            away + self.radius,
            lipschitz,
            np.zeros((blocks, blocks)),
            low,
            high,
            center,
            inf if center is None else self.radius,
            operator,
        )


def as_ball(given: Any, center: str, what: str) -> Ball:
    """Read a set: None is the center alone, a number the radius of a ball."""
    if given is None:
        return Ball(0.0, HERE)
    if isinstance(given, Ball):
        return given
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise UsageError(
            f"bounds: {what} is a radius, a Ball, or a mapping from names to them; found a {type(given).__name__}."
        )
    if given == 0:
        raise UsageError(f"bounds: a set of {what} has the radius 0; what stays fixed where it is is left out.")
    return Ball(float(given), center)


def balls_of(names: Sequence[str], given: Any, center: str, what: str) -> list[Ball]:
    """Give every block its set: that of the first pattern that fits its name, else the block is fixed.

    >>> balls_of(["fc.weight", "fc.bias"], {"*.weight": 2.0}, "zero", "weights")
    [Ball(radius=2.0, center='zero', norm='euclidean'), Ball(radius=0.0, center='here', norm='euclidean')]

    Raises:
        UsageError: a pattern fits no name, or a set of weights is unbounded or a single point.
    """
    if isinstance(given, Mapping):
        odd = [p for p in given if not isinstance(p, str)]
        if odd:
            raise UsageError(
                f"bounds: {what} is a mapping from names, patterns or names of modules; found a key that is a "
                f"{type(odd[0]).__name__}."
            )
        unused = [p for p in given if not any(_fits(n, p) for n in names)]
        if unused:
            raise UsageError(f"bounds: {what} names {unused[0]!r}, which is none of {', '.join(names[:20]) or 'none'}.")
        balls = [
            next((as_ball(b, center, what) for p, b in given.items() if _fits(n, p)), Ball(0.0, HERE)) for n in names
        ]
    else:
        balls = [as_ball(given, center, what)] * len(names)
    for name, ball in zip(names, balls, strict=True):
        if what == "weights" and ball.radius == inf:
            raise UsageError(
                f"bounds: the set of {name} is unbounded: a network is not Lipschitz in its weights on an unbounded set. "
                "Give a radius, weights=1.0, or a mapping from names to radii."
            )
        if ball.radius == 0 and not (isinstance(ball.center, str) and ball.center == HERE):
            raise UsageError(
                f"bounds: the set of {name} is a ball of radius 0; to hold it fixed where it is leave it out, or give "
                "Ball(0, 'here')."
            )
    return balls


def parse_weights(words: Sequence[str], *, here: bool = False, spectral: bool = False) -> Any:
    """Read the balls of weights from a command: "2.5", or "NAME=2.5" for some; None where there is none.

    >>> parse_weights(["2.5"]), parse_weights(["fc=1", "*.bias=0.5"], here=True)["fc"].center
    (Ball(radius=2.5, center='zero', norm='euclidean'), 'here')

    Raises:
        UsageError: no number, a name given twice, a radius for all beside another, or `here` and `spectral` of nothing.
    """
    if not words:
        if here or spectral:
            word = "--here" if here else "--spectral"
            raise UsageError(
                f"{word} says which balls the weights run through, but they are fixed: give --weights RADIUS."
            )
        return None
    sets: dict[str, Ball] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            radius = float(number)
        except ValueError:
            raise UsageError(f"--weights {word}: give a radius, or NAME=RADIUS.") from None
        pattern = name if equals else "*"
        if pattern in sets:
            what = f"two radii for {name!r}" if equals else "two radii for all weights"
            raise UsageError(f"--weights {word}: {what}; give one, or NAME=RADIUS for each.")
        sets[pattern] = Ball(radius, HERE if here else ZERO, NORMS[1] if spectral else NORMS[0])
    if "*" in sets and len(sets) > 1:
        raise UsageError("--weights: give one radius for all, or NAME=RADIUS for some of them.")
    return sets.get("*", sets)


def _fits(name: str, pattern: str) -> bool:
    """Tell whether a name is a pattern's, or that of a part of the module that the pattern names."""
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def radii_of(blocks: Sequence[Block]) -> Floats:
    """Give the radii of blocks."""
    return np.array([b.radius for b in blocks], float)
