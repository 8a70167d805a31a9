"""Relu networks for which two Clarke subgradients at 0 are hard to find.

    F(x) = M_L relu(M_(L-1) relu(.. relu(M_1 x))),   entries in {-1, 0, 1}

One is always cheap (`subgradient`). A second one decides satisfiability: `network_of_formula` turns a formula into such a
network with three hidden layers, of which 0 is the only Clarke subgradient at 0 if and only if no assignment satisfies it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework

__all__ = [
    "Formula",
    "ReluNetwork",
    "check_formula",
    "network_of_formula",
    "random_formula",
    "random_network",
    "relu_network",
    "satisfying_assignment",
]

Formula: TypeAlias = Sequence[Sequence[Any]]
"""A conjunction of clauses; a clause is a disjunction of literals, i for the variable x_i (i = 1, 2, ..), -i for its negation."""

ENUMERATED = 22
"""The most variables of which all assignments are tried."""


def relu_network(x: Any, *weights: Any) -> Any:
    """Evaluate F(x) = M_L relu(M_(L-1) relu(.. relu(M_1 x))), a scalar.

    Args:
        x: the point, shape (p,).
        weights: M_1 .. M_L, the last of one row.

    >>> import torch
    >>> M = torch.tensor([[1.0], [-1.0]])
    >>> relu_network(torch.tensor([-2.0]), M, torch.tensor([[1.0, -1.0]]))
    tensor(-2.)

    Source: BolteBoustanyPauwelsPesquet2023.
    """
    relu = find_framework(x).relu
    for M in weights[:-1]:
        x = relu(M @ x)
    return (weights[-1] @ x)[0]


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """A relu network without biases, its entries in {-1, 0, 1}.

        F(x) = M_L relu(M_(L-1) relu(.. relu(M_1 x)))

    It is called with an array of a framework, or with numpy's: then everything is exact, in integers or fractions.

    Attributes:
        matrices: M_1 .. M_L, arrays of int8 that cannot be written to; M_L has one row.

    Raises:
        UsageError: other entries, or shapes that do not fit.

    >>> network = ReluNetwork((np.array([[1], [-1]]), np.array([[1, -1]])))       # relu(t) - relu(-t)
    >>> network(np.array([-2])), network.relus, network.gradient(np.array([-2]))
    (-2, 2, array([1], dtype=object))
    >>> import torch
    >>> import nonsmooth as ns
    >>> ns.clarke(network, torch.zeros(1)).box()
    (array([1.]), array([1.]))

    Source: BolteBoustanyPauwelsPesquet2023.
    """

    matrices: tuple[NDArray[np.int8], ...]

    def __post_init__(self) -> None:
        """Check the matrices, and keep copies of them."""
        found = [np.array(M) for M in self.matrices]
        if not found or any(M.ndim != 2 for M in found) or found[-1].shape[0] != 1:
            raise UsageError("a relu network needs one matrix or more, the last of one row.")
        if any(a.shape[0] != b.shape[1] for a, b in itertools.pairwise(found)) or any(0 in M.shape for M in found):
            shapes = ", ".join(str(M.shape) for M in found)
            raise UsageError(f"a relu network: matrices of the shapes {shapes} cannot follow each other.")
        if any(not np.isin(M, (-1, 0, 1)).all() for M in found):
            raise UsageError("a relu network of this family has entries -1, 0 and 1 only.")
        kept = tuple(M.astype(np.int8) for M in found)
        for M in kept:
            M.flags.writeable = False
        object.__setattr__(self, "matrices", kept)

    @property
    def inputs(self) -> int:
        """The number p of coordinates of the point."""
        return int(self.matrices[0].shape[1])

    @property
    def relus(self) -> int:
        """The number of relus: all of them are at their kink at 0."""
        return sum(M.shape[0] for M in self.matrices[:-1])

    def weights(self, like: Any) -> tuple[Any, ...]:
        """Give M_1 .. M_L as arrays of the framework and type of another: `relu_network(x, *network.weights(x))`."""
        framework = find_framework(like)
        return tuple(framework.array_like(like, M) for M in self.matrices)

    def origin(self, like: Any) -> Any:
        """Give the point 0 as an array of the framework and type of another."""
        return find_framework(like).array_like(like, np.zeros(self.inputs))

    def __call__(self, x: Any) -> Any:
        """Evaluate the network."""
        if not isinstance(x, np.ndarray):
            return relu_network(x, *self.weights(x))
        for M in self.matrices[:-1]:
            x = np.maximum(M.astype(object) @ x.astype(object), 0)
        return (self.matrices[-1].astype(object) @ x)[0]

    def gradient(self, x: NDArray[Any]) -> NDArray[Any] | None:
        """Give the gradient at a point of numpy, exactly; None where a relu is at a kink that a move of the point resolves.

        F(t x) = t F(x) for t > 0: the gradient at x is one of the limits of gradients at 0.
        """
        rows, values = np.eye(self.inputs, dtype=int).astype(object), x.astype(object)
        for M in self.matrices[:-1]:
            rows, values = M.astype(object) @ rows, M.astype(object) @ values
            if np.any((values == 0) & np.any(rows != 0, axis=1)):
                return None
            rows, values = np.where((values > 0)[:, None], rows, 0), np.maximum(values, 0)
        return np.asarray((self.matrices[-1].astype(object) @ rows)[0])


def random_network(widths: Sequence[Any], *, density: float = 0.5, seed: Any = 0) -> ReluNetwork:
    """Draw a relu network: every entry is 0 with probability 1 - density, else 1 or -1 with the same probability.

    Args:
        widths: p, then the numbers of relus of the hidden layers.
        density: the share of entries that are not 0, in (0, 1].
        seed: of the entries; no generator of the user's is touched.

    Raises:
        UsageError: numbers that mean nothing.

    >>> network = random_network((4, 6, 5), seed=1)
    >>> [M.shape for M in network.matrices], network.relus
    ([(6, 4), (5, 6), (1, 5)], 11)

    Source: BolteBoustanyPauwelsPesquet2023.
    """
    if not widths or any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
        raise UsageError(f"random_network: widths={widths!r}; pass one positive integer or more.")
    if not 0 < density <= 1:
        raise UsageError(f"random_network: density={density!r}; pass a number in (0, 1].")
    rng = _generator("random_network", seed)
    share = (density / 2, 1 - density, density / 2)
    shapes = itertools.pairwise((*widths, 1))
    return ReluNetwork(tuple(rng.choice(np.array([-1, 0, 1]), (after, before), p=share) for before, after in shapes))


def network_of_formula(formula: Formula) -> ReluNetwork:
    """Turn a formula in conjunctive normal form into a relu network that is 0 exactly if nothing satisfies the formula.

        F(x, u) = relu(sum_k min(c_k, w) - (m - 1) w),   w = relu(u),   c_k = sum over the literals of relu(x_i) or relu(-x_i)

    If an assignment satisfies the formula, 0 and the last unit vector are Clarke subgradients of F at 0; if none does, F
    = 0 and 0 is the only one. Status: proved, docs/theory/hard_instances.md.

    Args:
        formula: the clauses, see `Formula`.

    Returns:
        A network with three hidden layers in n + 1 coordinates, n the largest number of a variable, the last one u.

    Raises:
        UsageError: no clause, an empty clause, or a literal that is no integer or 0.

    >>> network = network_of_formula([(1, 2), (-1, 2), (1, -2)])         # satisfied by x_1 and x_2 alone
    >>> network(np.array([2, 2, 1])), network(np.array([2, -2, 1])), network.gradient(np.array([2, 2, 1]))
    (1, 0, array([0, 0, 1], dtype=object))
    >>> import torch
    >>> import nonsmooth as ns
    >>> never = network_of_formula([(1, 2), (-1, 2), (1, -2), (-1, -2)])
    >>> [ns.clarke(f, torch.zeros(3).double()).contains([0.0, 0.0, 1.0]) for f in (network, never)]
    [True, False]

    Source: Karp1972, derived, docs/theory/hard_instances.md.
    """
    clauses = check_formula(formula)
    literals = sorted({literal for clause in clauses for literal in clause})
    m, k, copies = len(clauses), len(literals), max(1, len(clauses) - 1)
    n = max(abs(literal) for literal in literals)
    place = {literal: i for i, literal in enumerate(literals)}
    first, second = np.zeros((k + copies, n + 1), np.int8), np.zeros((2 * m + copies, k + copies), np.int8)
    for literal, i in place.items():
        first[i, abs(literal) - 1] = 1 if literal > 0 else -1
    first[k:, n] = 1
    for j, clause in enumerate(clauses):
        for literal in clause:
            second[[j, m + j], place[literal]] = 1
    second[m : 2 * m, k] = -1
    second[2 * m :, k:] = np.eye(copies, dtype=np.int8)
    third = np.array([[1] * m + [-1] * m + [-1] * (m - 1) + [0] * (copies - m + 1)], np.int8)
    return ReluNetwork((first, second, third, np.ones((1, 1), np.int8)))


def check_formula(formula: Formula) -> tuple[tuple[int, ...], ...]:
    """Give the clauses of a formula, each literal once, or say why it is none.

    Raises:
        UsageError: no clause, an empty clause, or a literal that is no integer or 0.

    >>> check_formula([[2, -1, 2]])
    ((-1, 2),)
    """
    clauses = [tuple(clause) for clause in formula]
    if not clauses or not all(clauses):
        raise UsageError(
            "a formula needs one clause or more, and every clause a literal; an empty one is never satisfied."
        )
    for literal in itertools.chain(*clauses):
        if isinstance(literal, bool) or not isinstance(literal, int | np.integer) or literal == 0:
            raise UsageError(f"a literal is i or -i for the variable x_i, i = 1, 2, ..; found {literal!r}.")
    return tuple(tuple(sorted({int(literal) for literal in clause})) for clause in clauses)


def random_formula(variables: int, clauses: int, *, seed: Any = 0, literals: int = 3) -> tuple[tuple[int, ...], ...]:
    """Draw a formula of different clauses, each of some literals of different variables, negated with probability 1/2.

    Args:
        variables: n, at least the number of literals.
        clauses: how many.
        seed: of the draws; no generator of the user's is touched.
        literals: how many stand in a clause.

    Raises:
        UsageError: numbers that mean nothing, or more clauses than there are.

    >>> random_formula(4, 2, seed=0)
    ((-4, -3, -2), (1, 3, 4))
    """
    most = comb(max(variables, 0), literals) * 2**literals if 1 <= literals <= variables else 0
    if not 1 <= clauses <= most:
        raise UsageError(
            f"random_formula: {clauses} different clauses of {literals} of {variables} variables were asked for; there are {most}."
        )
    rng = _generator("random_formula", seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < clauses:
        chosen = rng.choice(variables, literals, replace=False) + 1
        found[tuple(sorted(int(i) for i in chosen * rng.choice([-1, 1], literals)))] = None
    return tuple(found)


def satisfying_assignment(formula: Formula) -> tuple[bool, ...] | None:
    """Give the first assignment that satisfies a formula, by trying all 2^n of them; None if none does.

    Raises:
        UsageError: no formula, or one of more than 22 variables.

    >>> satisfying_assignment([(1, 2), (-1, 2), (1, -2)]), satisfying_assignment([(1,), (-1,)])
    ((True, True), None)
    """
    clauses = check_formula(formula)
    n = max(abs(literal) for literal in itertools.chain(*clauses))
    if n > ENUMERATED:
        raise UsageError(
            f"satisfying_assignment tries 2^n assignments, n <= {ENUMERATED}; the formula has {n} variables."
        )
    numbers = np.arange(2**n, dtype=np.int64)
    left = np.ones(2**n, bool)
    for clause in clauses:
        left &= np.logical_or.reduce([((numbers >> (abs(i) - 1)) & 1) == int(i > 0) for i in clause])
    first = _first(left)
    return None if first is None else tuple(bool(first >> i & 1) for i in range(n))


def _first(mask: NDArray[np.bool_]) -> int | None:
    """Give the place of the first true entry."""
    place = int(mask.argmax())
    return place if mask[place] else None


def _generator(asked: str, seed: Any) -> np.random.Generator:
    """Make a generator of a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"{asked}: seed={seed!r}; pass an integer, 0 or more.")
    return np.random.default_rng(seed)
