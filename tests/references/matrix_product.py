"""Sweeps over the scalar network of products, number by number, every operation executed and counted.

A number has a value, tangents along the directions, and the operation that made it. An operation on numbers of which none
moves is one operation; one that moves also makes a tangent for every direction, and in a reverse sweep adds products of
the cotangent and a partial derivative to cotangents. Values are fractions.

Source: BaurStrassen1983, BolteBoustanyPauwelsPesquet2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["Machine", "Number", "multiply", "network", "sum_of_derivatives"]

Matrix = Sequence[Sequence[Fraction]]


@dataclass(eq=False)
class Number:
    """A number of a program; `parents` are the numbers that move, each with the partial derivative (None for 1, -1)."""

    value: Fraction
    tangents: tuple[Fraction, ...] | None = None
    parents: tuple[tuple[Number, Fraction | None, int], ...] = ()
    cotangent: Fraction = Fraction(0)

    @property
    def moves(self) -> bool:
        """Whether it depends on the point."""
        return self.tangents is not None


@dataclass
class Machine:
    """What runs operations and counts them: of the program itself, of its tangents, of its reverse sweep."""

    evaluation: int = 0
    forward: int = 0
    reverse: int = 0
    tape: list[Number] = field(default_factory=list)

    def point(self, value: Fraction, tangents: Sequence[Fraction]) -> Number:
        """Make a number of the point."""
        return Number(value, tuple(tangents))

    def add(self, a: Number, b: Number, sign: int = 1) -> Number:
        """Run a + b, or a - b."""
        self.evaluation += 1
        parents = tuple((n, None, s) for n, s in ((a, 1), (b, sign)) if n.moves)
        rows = [(n.tangents, s) for n, _, s in parents]
        tangents = None
        if rows:
            tangents = tuple(sum((s * t for t, s in zip(ts, [s for _, s in rows], strict=True)), Fraction(0))
                             for ts in zip(*(r for r, _ in rows if r is not None), strict=True))  # fmt: skip
            self.forward += len(tangents) * (len(rows) - 1 + (rows[0][1] < 0))
        return self._made(Number(a.value + sign * b.value, tangents, parents))

    def neg(self, a: Number) -> Number:
        """Run -a."""
        self.evaluation += 1
        tangents = None
        if a.tangents is not None:
            tangents = tuple(-t for t in a.tangents)
            self.forward += len(tangents)
        return self._made(Number(-a.value, tangents, ((a, None, -1),) if a.moves else ()))

    def mul(self, a: Number, b: Number) -> Number:
        """Run a b, of which one at most moves."""
        self.evaluation += 1
        assert not (a.moves and b.moves)
        moving, still = (a, b) if a.moves else (b, a)
        tangents = None
        if moving.tangents is not None:
            tangents = tuple(still.value * t for t in moving.tangents)
            self.forward += len(tangents)
        return self._made(Number(a.value * b.value, tangents, ((moving, still.value, 1),) if moving.moves else ()))

    def relu(self, a: Number) -> Number:
        """Run relu(a); a tangent at a kink decides by its own sign, a reverse sweep has the weight 0 there."""
        self.evaluation += 1
        slope = Fraction(int(a.value > 0))
        tangents = None
        if a.tangents is not None:
            tangents = tuple((Fraction(int(t > 0)) if a.value == 0 else slope) * t for t in a.tangents)
            self.forward += len(tangents)
        return self._made(Number(max(a.value, Fraction(0)), tangents, ((a, slope, 1),) if a.moves else ()))

    def sum(self, terms: Sequence[Number]) -> Number:
        """Add numbers up, one after the other."""
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        return total

    def _made(self, number: Number) -> Number:
        self.tape.append(number)
        return number

    def backprop(self, result: Number) -> None:
        """Sweep back from a result."""
        result.cotangent = Fraction(1)
        for number in reversed(self.tape):
            for parent, partial, sign in number.parents:
                term = number.cotangent
                if partial is not None:
                    term *= partial
                    self.reverse += 1
                parent.cotangent += sign * term
                self.reverse += 1


def multiply(machine: Machine, A: Sequence[Sequence[Number]], x: Sequence[Number]) -> list[Number]:
    """Run A x."""
    return [machine.sum([machine.mul(a, b) for a, b in zip(row, x, strict=True)]) for row in A]


def _rectified(machine: Machine, u: Sequence[Number]) -> list[Number]:
    return [machine.add(machine.relu(n), machine.relu(machine.neg(n)), -1) for n in u]


def _still(M: Matrix) -> list[list[Number]]:
    return [[Number(Fraction(entry)) for entry in row] for row in M]


def network(
    machine: Machine, y: Sequence[Number], s: Sequence[Number], A: Matrix, C: Matrix, level: Fraction
) -> Number:
    """Run F(y, s) = sum_j relu(z_j + g_j) - relu(g_j), z = C (relu(A y) - relu(-A y)), g_j = T (2 s_j - sum s)."""
    z = multiply(machine, _still(C), _rectified(machine, multiply(machine, _still(A), y)))
    total, T = machine.sum(s), Number(level)
    g = [machine.mul(T, machine.add(machine.add(n, n), total, -1)) for n in s]
    terms = [machine.add(machine.relu(machine.add(a, b)), machine.relu(b), -1) for a, b in zip(z, g, strict=True)]
    return machine.sum(terms)


def sum_of_derivatives(machine: Machine, C: Sequence[Sequence[Number]], A: Matrix, B: Matrix) -> Number:
    """Run the sum over j of F at (b_j, e_j), T = 1: the gates are constants."""
    terms = []
    for j, column in enumerate(zip(*B, strict=True)):
        z = multiply(machine, C, _rectified(machine, multiply(machine, _still(A), [Number(b) for b in column])))
        for i, n in enumerate(z):
            gate = Number(Fraction(1 if i == j else -1))
            terms.append(machine.add(machine.relu(machine.add(n, gate)), machine.relu(gate), -1))
    return machine.sum(terms)
