"""LD-derivatives: against hand calculation on Khan and Barton's example, and exactly against fractions."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch

import nonsmooth as ns
from tests.programs.generator import random_program
from tests.programs.oracle import is_limit
from tests.references.lexicographic import as_function, as_text, ld_derivative, random_straight_line
from tests.shortened import shortened

ORIGIN = torch.zeros(2, dtype=torch.float64)

EXAMPLE = [
    ("input", 0),
    ("input", 1),
    ("scale", -1, 1),
    ("min", 0, 2),
    ("sub", 1, 0),
    ("max", 3, 4),
]
"""max(min(x1, -x2), x2 - x1) of the reference, as a straight-line program."""


def example(x: torch.Tensor) -> torch.Tensor:
    """Give max(min(x1, -x2), x2 - x1)."""
    return torch.maximum(torch.minimum(x[0], -x[1]), x[1] - x[0])


BY_HAND = [
    # At 0 the rows are x1: first row of M, -x2: minus the second, x2 - x1: the difference. min and max choose rows
    # lexicographically. M = I: min((1, 0), (0, -1)) = (0, -1), and max((0, -1), (-1, 1)) = (0, -1).
    ([(1, 0), (0, 1)], (0, -1)),
    # e2, e1: x1 (0, 1), -x2 (-1, 0): min (-1, 0); x2 - x1 (1, -1): max (1, -1), so the gradient is (-1, 1).
    ([(0, 1), (1, 0)], (1, -1)),
    # (1, 1), (1, 0): x1 (1, 1), -x2 (-1, 0): min (-1, 0); x2 - x1 (0, -1): max (0, -1).
    ([(1, 1), (1, 0)], (0, -1)),
    # (1, -1), (0, 1): x1 (1, 0), -x2 (1, -1): a tie that the second column breaks: min (1, -1); x2 - x1 (-2, 1).
    ([(1, -1), (0, 1)], (1, -1)),
    # (-1, -2), (1, 0): x1 (-1, 1), -x2 (2, 0): min (-1, 1); x2 - x1 (-1, -1): a tie again: max (-1, 1).
    ([(-1, -2), (1, 0)], (-1, 1)),
    # (-1, -2), (-1, 0): x1 (-1, -1), -x2 (2, 0); x2 - x1 (-1, 1): now the other one, max (-1, 1).
    ([(-1, -2), (-1, 0)], (-1, 1)),
    # (2, 1) alone, and twice: one-sided derivatives. min(2, -1) = -1, x2 - x1 = -1.
    ([(2, 1)], (-1,)),
    ([(2, 1), (2, 1)], (-1, -1)),
    # A column that decides nothing, then the identity.
    ([(0, 0), (1, 0), (0, 1)], (0, 0, -1)),
]


def columns(directions: list[tuple[float, ...]]) -> torch.Tensor:
    """Give the matrix with these columns."""
    return torch.tensor([[float(entry) for entry in m] for m in directions], dtype=torch.float64).T.contiguous()


@pytest.mark.parametrize(("directions", "row"), BY_HAND)
def test_the_example_by_hand(directions: list[tuple[int, ...]], row: tuple[int, ...]) -> None:
    """The library, the fractions and the hand agree, for matrices and for lists of directions."""
    assert ld_derivative(EXAMPLE, (0, 0), directions) == (0, row)
    assert ns.lexicographic(example, ORIGIN, columns(directions)).tolist() == list(row)
    listed = [torch.tensor(m, dtype=torch.float64) for m in directions]
    assert ns.lexicographic(example, ORIGIN, listed).tolist() == list(row)


def test_coordinate_derivatives_of_the_example_are_no_subgradient() -> None:
    """The p one-sided derivatives (0, 1) lie outside conv {(1, 0), (0, -1), (-1, 1)}; the vector forward mode inside."""
    assert ns.coordinate_derivatives(example, ORIGIN).tolist() == [0, 1]
    assert ns.forward_subgradient(example, ORIGIN).tolist() == [0, -1]


def random_point(rng: random.Random, dimension: int) -> tuple[Fraction, ...]:
    """Draw a point of small numbers, many of them 0 or equal."""
    return tuple(Fraction(rng.choice((0, 0, 0, 1, 1, -1, 2)), rng.choice((1, 1, 2))) for _ in range(dimension))


def compare(seed: int) -> None:
    """Compare the LD-derivative and the directional derivative of one program with the fractions."""
    rng = random.Random(seed)
    dimension = rng.randint(1, 4)
    steps = random_straight_line(seed, dimension, rng.randint(3, 12))
    point = random_point(rng, dimension)
    count = rng.randint(1, dimension + 1)
    directions = [tuple(Fraction(rng.choice((0, 1, -1, 2)), 2) for _ in range(dimension)) for _ in range(count)]
    value, row = ld_derivative(steps, point, directions)
    f, x = as_function(steps), torch.tensor([float(p) for p in point], dtype=torch.float64)
    if max(abs(value), *map(abs, row)) > 1e4:
        return
    note = f"seed {seed} at {x.tolist()} along {[[float(e) for e in m] for m in directions]}\n{as_text(steps)}"
    expected = torch.tensor([float(r) for r in row], dtype=torch.float64)
    close = {"rtol": 1e-10, "atol": 1e-10, "msg": lambda text: f"{note}\n{text}"}
    torch.testing.assert_close(ns.lexicographic(f, x, columns(directions)), expected, **close)
    torch.testing.assert_close(ns.directional(f, x, columns(directions)[:, 0]), expected[0], **close)
    units = [tuple(Fraction(int(i == j)) for i in range(dimension)) for j in range(dimension)]
    gradient = torch.tensor([float(r) for r in ld_derivative(steps, point, units)[1]], dtype=torch.float64)
    torch.testing.assert_close(ns.forward_subgradient(f, x), gradient, **close)
    alone = [float(ld_derivative(steps, point, [unit])[1][0]) for unit in units]
    torch.testing.assert_close(ns.coordinate_derivatives(f, x), torch.tensor(alone, dtype=torch.float64), **close)


@pytest.mark.parametrize("block", shortened(range(4), 1))
def test_against_fractions(block: int) -> None:
    """On random scalar programs the library gives the exact rows."""
    for seed in range(15 * block, 15 * (block + 1)):
        compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_against_fractions_at_length(block: int) -> None:
    """The same on 5,000 programs."""
    for seed in range(1000 + 250 * block, 1000 + 250 * (block + 1)):
        compare(seed)


@pytest.mark.parametrize("seed", shortened(range(20), 10))
def test_the_vector_forward_mode_gives_limits_of_gradients(seed: int) -> None:
    """Along e_1, then e_2, ...: the gradients next to x + t e_1 + t^2 e_2 + ... tend to it."""
    program = random_program(seed, kinds=("affine", "linear", "gather", "switch", "order"))
    f, x = program.function(), program.x()
    found = ns.forward_subgradient(f, x)
    curve = sum(8.0**-j * torch.nn.functional.one_hot(torch.tensor(j), len(x)) for j in range(len(x)))
    assert is_limit(f, x, curve.double(), found), f"{program}\n{found}"
