"""Relu networks for which two Clarke subgradients at 0 are hard to find.

    F(x) = M_L relu(M_(L-1) relu(.. relu(M_1 x))),   entries in {-1, 0, 1}

One is always cheap (`subgradient`). A second one decides satisfiability: `network_of_formula` turns a formula into such a
network with three hidden layers, of which 0 is the only Clarke subgradient at 0 if and only if no assignment satisfies it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.cost.checks import check_arrays, framework_of, positive_number, whole_number, whole_numbers
from nonsmooth.cost.formulas import Formula, check_formula, random_formula, satisfying_assignment
from nonsmooth.errors import UsageError

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


def relu_network(x: Any, *weights: Any) -> Any:
    """Evaluate F(x) = M_L relu(M_(L-1) relu(.. relu(M_1 x))), a scalar.

    Args:
        x: the point, shape (p,).
        weights: M_1 .. M_L, the last of one row.

    Raises:
        UsageError: no matrix, or no arrays of one framework whose shapes fit.

    >>> import torch
    >>> M = torch.tensor([[1.0], [-1.0]])
    >>> relu_network(torch.tensor([-2.0]), M, torch.tensor([[1.0, -1.0]]))
    tensor(-2.)

    Source: BolteBoustanyPauwelsPesquet2023.
    """
    sizes: list[str | int] = ["p", *(f"rows of M_{i}" for i in range(1, len(weights))), 1]
    arrays: dict[str, tuple[Any, Sequence[str | int]]] = {"x": (x, "p")}
    arrays |= {f"M_{i}": (M, (sizes[i], sizes[i - 1])) for i, M in enumerate(weights, 1)}
    if not weights:
        raise UsageError("relu_network: no matrix; pass M_1 .. M_L after the point.")
    relu = check_arrays("relu_network", arrays).relu
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
        try:
            found = [np.array(M) for M in self.matrices]
        except (TypeError, ValueError) as error:
            raise UsageError(f"a relu network is made of matrices; found {self.matrices!r:.100}.") from error
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
        framework = framework_of("a relu network", "`like`", like)
        return tuple(framework.array_like(like, M) for M in self.matrices)

    def origin(self, like: Any) -> Any:
        """Give the point 0 as an array of the framework and type of another."""
        framework = framework_of("a relu network", "`like`", like)
        return framework.array_like(like, np.zeros(self.inputs))

    def __call__(self, x: Any) -> Any:
        """Evaluate the network."""
        if not isinstance(x, np.ndarray):
            return relu_network(x, *self.weights(x))
        self._check(x)
        for M in self.matrices[:-1]:
            x = np.maximum(M.astype(object) @ x.astype(object), 0)
        return (self.matrices[-1].astype(object) @ x)[0]

    def gradient(self, x: NDArray[Any]) -> NDArray[Any] | None:
        """Give the gradient at a point of numpy, exactly; None where a relu is at a kink that a move of the point resolves.

        F(t x) = t F(x) for t > 0: the gradient at x is one of the limits of gradients at 0.
        """
        self._check(x)
        rows, values = np.eye(self.inputs, dtype=int).astype(object), x.astype(object)
        for M in self.matrices[:-1]:
            rows, values = M.astype(object) @ rows, M.astype(object) @ values
            if np.any((values == 0) & np.any(rows != 0, axis=1)):
                return None
            rows, values = np.where((values > 0)[:, None], rows, 0), np.maximum(values, 0)
        return np.asarray((self.matrices[-1].astype(object) @ rows)[0])

    def _check(self, x: Any) -> None:
        """Refuse what is no point of numpy."""
        shape, kind = (x.shape, x.dtype.kind) if isinstance(x, np.ndarray) else (None, "")
        if shape != (self.inputs,) or kind not in "biufO":
            raise UsageError(
                f"a relu network in {self.inputs} coordinates takes a point of numbers, shape ({self.inputs},); found {x!r:.100}."
            )


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
    widths = whole_numbers("random_network", "widths", widths)
    density = positive_number("random_network", "density", density, 1)
    rng = np.random.default_rng(whole_number("random_network", "seed", seed, least=0))
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
