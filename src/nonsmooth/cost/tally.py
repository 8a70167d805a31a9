"""The tally of a piece of a program: how many scalar operations of each kind, with which arguments moving."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nonsmooth.cost.scalars import SCALARS
from nonsmooth.errors import RegistrationError

__all__ = ["Sweep", "Tally", "Whole"]

Counts = Counter[str]


@dataclass(frozen=True)
class Whole:
    """An operation on arrays that is elementary as a whole, as no finite scalar program defines it: an eigenproblem.

    What its evaluation, its derivative once (for forward sweeps), its pullback without accumulation, and one pushed
    direction cost is stated, not derived; `operands` counts the numbers that it takes and that move.
    """

    name: str
    evaluation: Counts
    once: Counts
    pull: Counts
    push: Counts
    operands: int


@dataclass(frozen=True)
class Sweep:
    """What sweeps over a piece of a program count.

    Attributes:
        evaluation: the operations of the program itself.
        pull: what the reverse sweep adds to them.
        once: what a forward sweep adds once, whatever the number of directions.
        push: what a forward sweep adds for each direction.
    """

    evaluation: Counts
    pull: Counts
    once: Counts
    push: Counts

    def __add__(self, other: Sweep) -> Sweep:
        """Add two sweeps up."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Sweep(*(Counter({k: a[k] + b[k] for k in a.keys() | b.keys()}) for a, b in pairs))

    def _parts(self) -> tuple[Counts, ...]:
        """Give the four counts."""
        return self.evaluation, self.pull, self.once, self.push

    @property
    def backprop(self) -> Counts:
        """The operations of evaluation and reverse sweep together."""
        return self.evaluation + self.pull

    def forward(self, directions: int) -> Counts:
        """Count evaluation and forward sweep with some directions."""
        pushed = Counter({name: directions * n for name, n in self.push.items()})
        return self.evaluation + self.once + pushed


@dataclass
class Tally:
    """How often each scalar operation runs, by the arguments that move with the point ("", "x", "y", "xy").

    >>> tally = Tally()
    >>> tally.add("mul", "xy", 3)
    >>> tally.sweep().evaluation["mul"], tally.sweep().pull["mul"], tally.sweep().pull["add"]
    (3, 6, 6)
    """

    scalars: Counter[tuple[str, str]] = field(default_factory=Counter)
    wholes: list[Whole] = field(default_factory=list)

    def add(self, name: str, moving: str, times: int = 1) -> None:
        """Count scalar operations.

        Raises:
            RegistrationError: a name that is no scalar operation, or more arguments than it has.
        """
        if name not in SCALARS:
            raise RegistrationError(
                f"runs {name!r}, which is no scalar operation; they are {', '.join(sorted(SCALARS))}"
            )
        if len(moving) > SCALARS[name].arity:
            raise RegistrationError(f"gives two arrays to {name!r}, an operation on one number")
        if times:
            self.scalars[name, moving if SCALARS[name].partials else ""] += times

    def still(self) -> Tally:
        """Give the tally of the same work where nothing moves, or where no derivative is asked for."""
        found = Tally()
        for (name, _), times in self.scalars.items():
            found.scalars[name, ""] += times
        found.wholes = [Whole(w.name, w.evaluation, Counter(), Counter(), Counter(), 0) for w in self.wholes]
        return found

    def sweep(self) -> Sweep:
        """Count what sweeps over it cost."""
        evaluation, pull, once, push = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        for (name, moving), times in self.scalars.items():
            evaluation[name] += times
            scalar = SCALARS[name]
            for total, part in ((pull, scalar.pull), (once, scalar.once), (push, scalar.push)):
                for used, n in part(moving).items():
                    total[used] += n * times
        for whole in self.wholes:
            evaluation.update(whole.evaluation)
            pull.update(whole.pull + Counter(add=whole.operands))
            once.update(whole.once)
            push.update(whole.push)
        return Sweep(evaluation, pull, once, push)
