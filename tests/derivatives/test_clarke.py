"""Clarke's subdifferential against exact hulls, gradients sampled nearby, closed forms, and the field."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.cost.hard_instances import network_of_formula
from nonsmooth.derivatives.clarke import Clarke
from nonsmooth.errors import NoField, NonsmoothError
from tests.adapters import Adapter, adapter, served
from tests.programs.generator import random_program as generated
from tests.programs.oracle import gradient_at, gradient_near
from tests.references.clarke import clarke_hull_points
from tests.references.field import OPERATIONS, random_program, to_framework
from tests.shortened import shortened

DTYPE = torch.float64
TORCH = adapter("torch")
Function = Callable[..., Any]


def at(*entries: float, dtype: torch.dtype = DTYPE) -> torch.Tensor:
    """Give a point."""
    return torch.tensor(entries, dtype=dtype)


def around(x: torch.Tensor, count: int, seed: int = 0) -> list[torch.Tensor]:
    """Draw directions: most of them Gaussian, some near the axes, some near the diagonals."""
    rng = np.random.default_rng(seed)
    flat = rng.standard_normal((count, x.numel()))
    flat[::3] *= 10.0 ** rng.uniform(-3, 0, flat[::3].shape)
    return [torch.as_tensor(v).reshape(x.shape) for v in flat]


def limits(f: Function, x: torch.Tensor, count: int, seed: int = 0, t: float = 1e-6) -> np.ndarray:
    """Give gradients at points at a distance t."""
    return np.array([gradient_at(f, x + t * v / v.norm()).numpy().ravel() for v in around(x, count, seed)])


def is_in_hull(points: np.ndarray, v: np.ndarray, tol: float) -> bool:
    """Tell whether a vector is in the hull of points, by linear algebra that the library does not use."""
    from scipy.optimize import nnls

    weight = 1e3
    matrix = np.concatenate([points.T, weight * np.ones((1, len(points)))])
    weights, _ = nnls(matrix, np.concatenate([v, [weight]]))
    return bool(np.linalg.norm(points.T @ weights - v) <= tol * (1 + np.linalg.norm(v)))


# random programs with an exact hull


def check_hull(seed: int, xp: Adapter = TORCH, **options: Any) -> str | None:
    """Compare support values with the exact hull of a piecewise affine program; give the reason of equality."""
    program, point = random_program(seed, **options)
    x = xp.array([float(p) for p in point])
    exact = np.array([[float(c) for c in v] for v in clarke_hull_points(program, point)])
    found = ns.clarke(to_framework(program, xp), x)
    rng = np.random.default_rng(seed)
    directions = np.concatenate([rng.standard_normal((20, len(x))), np.eye(len(x)), -np.eye(len(x))])
    for d in directions:
        value, wanted = found.support(d), float((exact @ d).max())
        close = 1e-9 * (1 + abs(wanted))
        if found.equality is None:
            assert value.lower <= wanted + close and value.upper >= wanted - close, f"seed {seed}: {found}"
        else:
            assert abs(value.lower - wanted) <= close and abs(value.upper - wanted) <= close, f"seed {seed}: {found}"
    assert found.equality is not None or not found.exact
    return found.equality


@pytest.mark.parametrize(
    ("xp", "block"),
    [
        *shortened([("torch", block) for block in range(5)], 1),
        *shortened([("jax", block) for block in range(5)] * ("jax" in served()), 1),
    ],
    indirect=["xp"],
)
def test_homogeneous_programs(xp: Adapter, block: int) -> None:
    """dF(0) is the hull of the gradients of all cells, and known to be; JAX compiles anew, and takes 6 programs."""
    count = 30 if xp.name == "torch" else 6
    for seed in range(count * block, count * (block + 1)):
        assert check_hull(seed, xp, variables=4, kinks=7) is not None, f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_homogeneous_programs_at_length(block: int) -> None:
    """The same on 3,000 programs."""
    for seed in range(10_000 + 300 * block, 10_000 + 300 * (block + 1)):
        assert check_hull(seed, variables=5, kinks=9) is not None, f"seed {seed}"


def affine_program(seed: int) -> bool:
    """Tell a program without products."""
    program, _ = random_program(seed, variables=4, kinks=7, homogeneous=False)
    return all(step[0] != "mul" for step in program)


def check_constants(seeds: range) -> int:
    """Check programs with constants and clamps; give how many there were."""
    chosen = [seed for seed in seeds if affine_program(seed)]
    for seed in chosen:
        assert check_hull(seed, variables=4, kinks=7, homogeneous=False) is not None, f"seed {seed}"
    return len(chosen)


@pytest.mark.parametrize("block", shortened(range(2), 1))
def test_programs_with_constants(block: int) -> None:
    """With constants, clamps and a point that is not 0."""
    assert check_constants(range(30 * block, 30 * (block + 1))) > 7


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_programs_with_constants_at_length(block: int) -> None:
    """The same on 2,500 draws."""
    assert check_constants(range(1000 + 500 * block, 1500 + 500 * block)) > 100


def test_wheres_alone() -> None:
    """Programs of `where` and sort, whose masks hang on other kinks."""
    for seed in range(500, 520):
        assert check_hull(seed, variables=3, kinks=6, operations=("where", "sort", "relu")) is not None
    assert "where" in OPERATIONS


# programs whose sets are known


def if_positive(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[0] if x[0] > 0 else x[0]


def if_not_negative(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[0] if x[0] >= 0 else x[0]


def if_negative(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[0] if x[0] < 0 else x[0]


def if_nested(x: torch.Tensor) -> torch.Tensor:
    if x[0] > 0:
        if x[1] > 0:
            return torch.minimum(x[0], x[1])
        return 0 * x[0]
    return 0 * x[1]


def if_equal(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[0] if x[0] == 0 else x[0]


def if_any(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0).sum() if (x > 0).any() else 0 * x.sum()


def if_either_way(x: torch.Tensor) -> torch.Tensor:
    return torch.abs(x[0]) if ((x[0] > 0) | (x[1] > -1)) else x[0]


def if_behind_kinks(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[0] if torch.relu(x[0]) - torch.relu(-x[0]) > 0 else x[0]


def if_index(x: torch.Tensor) -> torch.Tensor:
    terms = torch.stack([x[0], x[1], -x[0] - x[1]])
    return terms[0] if terms.argmax() == 0 else torch.maximum(terms[1], terms[2])


def by_argmax(x: torch.Tensor) -> torch.Tensor:
    terms = torch.stack([x[0], x[1]])
    return terms[terms.argmax()]


def by_argmax_of_equals(x: torch.Tensor) -> torch.Tensor:
    index = torch.stack([x[0], x[0], -x[0]]).argmax()
    return torch.stack([x[0], 2 * x[0], -x[0]])[index]


def by_argmax_in_python(x: torch.Tensor) -> torch.Tensor:
    index = torch.stack([x[0], x[0], -x[0]]).argmax()
    if index == 0:
        return 1 * x[0]
    return 2 * x[0] if index == 1 else -x[0]


def shared_mask(x: torch.Tensor) -> torch.Tensor:
    mask = x[0] > 0
    return torch.where(mask, x[0], 2 * x[0]) - torch.where(mask, x[0], 2 * x[0])


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone().relu_()
    z = y - x
    return z.relu_().sum()


KNOWN: dict[str, tuple[Function, tuple[float, ...], list[list[float]]]] = {
    "max + min": (lambda x: (x.clamp(min=0) + x.clamp(max=0)).sum(), (0,), [[1]]),
    "|x| - |x|": (lambda x: (x.abs() - x.abs()).sum(), (0,), [[0]]),
    "||x| + x|": (lambda x: (x.abs() + x).abs().sum(), (0,), [[0], [2]]),
    "zero": (lambda x: (torch.relu(x) - (torch.relu(-x) + x)).sum(), (0,), [[0]]),
    "relu(relu)": (lambda x: torch.relu(torch.relu(x)).sum(), (0,), [[0], [1]]),
    "shared mask": (shared_mask, (0,), [[0]]),
    "where equal": (lambda x: torch.where(x[0] == 0, 2 * x[0], x[0]), (0,), [[1]]),
    "where not equal": (lambda x: torch.where(x[0] != 0, x[0], 2 * x[0]), (0,), [[1]]),
    "where not": (lambda x: torch.where(~(x[0] > 0), 2 * x[0], x[0]), (0,), [[1], [2]]),
    "where of a difference": (
        lambda x: torch.where(torch.relu(x[0]) - torch.relu(-x[0]) > 0, 2 * x[0], x[0]),
        (0,),
        [[1], [2]],
    ),
    "where constant": (lambda x: torch.where(0 * x[0] >= 0, x[0], 2 * x[0]), (0,), [[1]]),
    "if >": (if_positive, (0,), [[1], [2]]),
    "if >=": (if_not_negative, (0,), [[1], [2]]),
    "if <": (if_negative, (0,), [[1], [2]]),
    "if ==": (if_equal, (0,), [[1]]),
    "if nested": (if_nested, (0, 0), [[0, 0], [1, 0], [0, 1]]),
    "if any": (if_any, (0, 0), [[0, 0], [1, 0], [0, 1], [1, 1]]),
    "if either way": (if_either_way, (0, 0), [[-1, 0], [1, 0]]),
    "if behind kinks": (if_behind_kinks, (0,), [[1], [2]]),
    "if index": (if_index, (0, 0), [[1, 0], [0, 1], [-1, -1]]),
    "max of Python": (lambda x: max(x[0], x[1]), (0, 0), [[1, 0], [0, 1]]),
    "argmax": (by_argmax, (0, 0), [[1, 0], [0, 1]]),
    "argmax of equals": (by_argmax_of_equals, (0,), [[1], [-1]]),
    "argmax in Python": (by_argmax_in_python, (0,), [[1], [-1]]),
    "sort": (lambda x: x.sort().values @ at(1, -1), (0, 0), [[1, -1], [-1, 1]]),
    "topk": (lambda x: x.topk(2).values.sum(), (0, 0, 0), [[1, 1, 0], [1, 0, 1], [0, 1, 1]]),
    "median": (lambda x: x.median(), (0, 0, 0), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "kthvalue": (lambda x: x.kthvalue(1).values, (0, 0), [[1, 0], [0, 1]]),
    "max_pool": (
        lambda x: F.max_pool1d(x.reshape(1, 1, -1), 2, 1).sum(),
        (0, 0, 0),
        [[1, 1, 0], [1, 0, 1], [0, 2, 0], [0, 1, 1]],
    ),
    "cummax": (lambda x: x.cummax(0).values @ at(0, 1), (0, 0), [[1, 0], [0, 1]]),
    "1-norm": (lambda x: torch.linalg.vector_norm(x, 1), (0, 0), [[1, 1], [1, -1], [-1, 1], [-1, -1]]),
    "maximum norm": (
        lambda x: torch.linalg.vector_norm(x, float("inf")),
        (0, 0),
        [[1, 0], [-1, 0], [0, 1], [0, -1]],
    ),
    "product": (lambda x: torch.relu(x[0]) * torch.relu(x[1]), (0, 0), [[0, 0]]),
    "square": (lambda x: torch.relu(x[0]) ** 2, (0,), [[0]]),
    "flat": (lambda x: torch.relu(x[0] * x[0]), (0,), [[0]]),
    "max(x^2, y)": (lambda x: torch.maximum(x[0] ** 2, x[1]), (0, 0), [[0, 0], [0, 1]]),
    "clamp, bounds tie": (
        lambda x: torch.clamp(x[0], x[1], -x[1]) + torch.relu(x[0]) + torch.relu(x[1]),
        (0, 0),
        [[0, 1], [0, 0], [2, 0], [1, -1], [1, 0]],
    ),
    "clamp between multiples": (lambda x: torch.clamp(x[0], 0 * x[0], 2 * x[0]), (0,), [[1], [2]]),
    "clamp, bounds equal": (lambda x: (torch.clamp(x, 0.0, 0.0) + x).sum(), (0,), [[1]]),
    "smooth behind": (lambda x: torch.exp(x.abs().sum()) + x[0] ** 2, (0,), [[1], [-1]]),
    "regular, downwards": (lambda x: -x.abs().sum() - torch.relu(x[0]), (0,), [[-2], [1]]),
    "nearly parallel": (
        lambda x: torch.relu(x[0] + 1e-9 * x[1]) - torch.relu(x[0]),
        (0, 0),
        [[0, 0], [0, 1e-9], [-1, 0], [1, 1e-9]],
    ),
    "one scale": (lambda x: (1e-8 * x).relu().sum() * 1e8 - x.relu().sum() + x.abs().sum(), (0,), [[1], [-1]]),
}


def same_set(found: Clarke, points: list[list[float]], close: float = 1e-9) -> None:
    """Compare support values."""
    exact = np.array(points, dtype=float)
    rng = np.random.default_rng(0)
    for d in [*rng.standard_normal((30, exact.shape[1])), *np.eye(exact.shape[1]), *-np.eye(exact.shape[1])]:
        value, wanted = found.support(d), float((exact @ d).max())
        assert abs(value.lower - wanted) <= close and abs(value.upper - wanted) <= close, f"{found} {d} {value}"


@pytest.mark.parametrize("name", KNOWN)
def test_known_sets(name: str) -> None:
    """The set is dF(x), known to be, and holds the vertices."""
    f, point, points = KNOWN[name]
    found = ns.clarke(f, at(*point))
    assert found.equality is not None and found.status == "computed" and not found.reasons, found.reasons
    same_set(found, points, 1e-9 if name != "one scale" else 1e-7)
    assert all(found.contains(np.array(p, dtype=float)) for p in points)
    outside = np.array(points[0], dtype=float) + 10
    assert found.contains(outside) is False


def test_in_place() -> None:
    """relu(relu(x) - x), written in place, is relu(-x)."""
    same_set(ns.clarke(in_place, at(0, 0)), [[0, 0], [-1, 0], [0, -1], [-1, -1]])


def test_norms() -> None:
    """A norm is regular: the dual ball. A difference of norms is not known, its inner set is inside."""
    ball = ns.clarke(torch.linalg.vector_norm, at(0, 0))
    assert ball.equality == "regular"
    for d in np.random.default_rng(0).standard_normal((10, 2)):
        assert abs(ball.support(d).lower - np.linalg.norm(d)) < 1e-12
    apart = ns.clarke(lambda x: torch.linalg.vector_norm(x) - torch.linalg.vector_norm(2 * x), at(0, 0))
    assert apart.equality is None and apart.contains(np.array([3.5, 0.0])) is False
    assert apart.contains(np.array([0.1, 0.1])) is True and apart.contains(np.array([1.5, 0.0])) is None


def test_spectra() -> None:
    """Sums of eigenvalues and singular values that are convex are exact; others lie between."""

    def symmetric(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(torch.stack([x[0], x[1], x[1], x[2]]).reshape(2, 2))

    top = ns.clarke(lambda x: symmetric(x)[1], at(1, 0, 1))
    assert top.equality is not None
    gradients = limits(lambda x: symmetric(x)[1], at(1, 0, 1), 400)
    for d in np.random.default_rng(1).standard_normal((10, 3)):
        largest = np.linalg.eigvalsh([[d[0], d[1]], [d[1], d[2]]])[1]
        assert abs(top.support(d).lower - largest) < 1e-9 and (gradients @ d).max() <= largest + 1e-4
    nuclear = ns.clarke(lambda x: torch.linalg.matrix_norm(x, "nuc"), torch.zeros(2, 2, dtype=DTYPE))
    assert nuclear.equality is not None
    spectral = ns.clarke(lambda x: torch.linalg.matrix_norm(x, 2), torch.zeros(2, 2, dtype=DTYPE))
    for d in np.random.default_rng(2).standard_normal((10, 2, 2)):
        sizes = np.linalg.svd(d, compute_uv=False)
        assert abs(nuclear.support(d.ravel()).lower - sizes.sum()) < 1e-9
        value = spectral.support(d.ravel())
        assert value.lower <= sizes[0] + 1e-9 and value.upper >= sizes[0] - 1e-9


# what is not known is not claimed


def cusp(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x[1]) - torch.relu(x[1] - x[0] ** 2)


def test_the_cusp() -> None:
    """relu(y) - relu(y - x^2): first order misses 0 < y < x^2, and says so."""
    found = ns.clarke(cusp, at(0, 0))
    assert found.equality is None and found.contains(np.zeros(2)) is True
    assert found.contains(np.array([0.0, 0.5])) is None and found.contains(np.array([0.0, 1.0])) is not False
    assert found.contains(np.array([1.0, 0.0])) is False


def if_square(x: torch.Tensor) -> torch.Tensor:
    return x[0] if x[0] * x[0] >= 0 else 2 * x[0]


def if_square_is_zero(x: torch.Tensor) -> torch.Tensor:
    return 3 * x[0] if x[0] * x[0] == 0 else x[0]


def if_square_is_not_zero(x: torch.Tensor) -> torch.Tensor:
    return x[0] if x[0] * x[0] != 0 else 3 * x[0]


OPEN: dict[str, Function] = {
    "where square": lambda x: torch.where(x[0] * x[0] > 0, x[0], 2 * x[0]),
    "where square equals": lambda x: torch.where(x[0] * x[0] == 0, 2 * x[0], x[0]),
    "if square": if_square,
    "if square is zero": if_square_is_zero,
    "if square is not zero": if_square_is_not_zero,
    "detach": lambda x: 1.5 * x[0] - x[0].detach() / 2,
    "detached kink": lambda x: x[0] + torch.relu(x[0]).detach() - torch.relu(x[0].detach()),
}
"""Functions whose derivative is 1."""


@pytest.mark.parametrize("name", OPEN)
def test_undecided(name: str) -> None:
    """What first order cannot tell, and what is cut off from the derivative, is undecided: no wrong set, no wrong answer."""
    found = ns.clarke(OPEN[name], at(0))
    assert found.equality is None and found.status == "undecided" and found.reasons
    assert found.contains(np.array([1.0])) is not False
    assert all(found.contains(np.array([g])) is not True for g in (1.5, 2.0, 3.0))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.where((x[0] > 0) & (x[1] > 0), torch.minimum(x[0], x[1]), 0 * x[0]),
        lambda x: torch.where((x[0] > 0) | (x[1] > 0), torch.maximum(x[0], x[1]), 0 * x[0]),
    ],
)
def test_several_comparisons_that_tie(f: Function) -> None:
    """A `where` that hangs on several ties is left open."""
    found = ns.clarke(f, at(0, 0))
    for g in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]):
        assert found.contains(np.array(g)) is not False
    assert found.contains(np.array([1.0, 1.0])) is not True


JUMPS: dict[str, Function] = {
    "where": lambda x: torch.where(x[1] > 0, x[0], 2 * x[0]),
    "sign": lambda x: torch.sign(x[0]) * (x[0] + 1),
    "mask": lambda x: (x[0] > 0).double() * (x[0] + 1),
    "other data": lambda x: torch.stack([x[0], 2 * x[0]])[torch.stack([x[1], -x[1]]).argmax()],
}


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_are_refused(name: str) -> None:
    """With the line."""
    with pytest.raises(NoField, match=r"test_clarke\.py"):
        ns.clarke(JUMPS[name], at(0, 0))


def test_wrong_use() -> None:
    """Results that are no scalar, singular points, vectors of another structure."""
    with pytest.raises(NonsmoothError):
        ns.clarke(torch.abs, at(0, 0))
    with pytest.raises(NoField):
        ns.clarke(lambda x: torch.sqrt(x.abs()).sum(), at(0, 0))
    found = ns.clarke(lambda x: x.abs().sum(), at(0, 0))
    with pytest.raises(NonsmoothError):
        found.contains(np.zeros(3))
    with pytest.raises(NonsmoothError):
        found.support(at(0, 0, 0))


# thin cells, scales, precision


@pytest.mark.parametrize("apart", [10.0**-k for k in range(3, 17)])
def test_thin_cells(apart: float) -> None:
    """relu(x + h y) - relu(x): a cell as thin as h is found, or left open, or h is lost in rounding."""
    found = ns.clarke(lambda x: torch.relu(x[0] + apart * x[1]) - torch.relu(x[0]), at(0, 0))
    if apart > 1e-12:
        assert found.equality is not None
    if found.equality is not None and apart > 3e-13:
        same_set(found, [[0, 0], [0, apart], [-1, 0], [1, apart]])
    else:
        assert found.support(np.array([-1.0, 0.0])).upper >= 1 - 1e-9 or apart <= 3e-13


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e8])
def test_scales(scale: float) -> None:
    """The set of s F(x / s) is that of F, and the cells do not depend on the size of the arguments."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x / scale
        return scale * (torch.relu(y[0] - y[1]) - torch.relu(y[0]) + torch.abs(torch.relu(y[1]) - y[0]))

    same_set(ns.clarke(f, at(0, 0)), ns.clarke(lambda x: f(x * scale) / scale, at(0, 0)).vertices().tolist(), 1e-7)


def test_single_precision() -> None:
    """In float32 no cells come from rounding: sums in another order have the same kinks."""
    weights = torch.tensor([0.1, 0.7, -0.3], dtype=torch.float32)

    def zero(x: torch.Tensor) -> torch.Tensor:
        a = weights[0] * x[0] + weights[1] * x[1] + weights[2] * x[2]
        return torch.relu(a) - torch.relu((weights * x).sum())

    found = ns.clarke(zero, torch.zeros(3))
    low, high = found.inner.box() if found.inner is not None else (np.zeros(3), np.zeros(3))
    assert max(abs(low).max(), abs(high).max()) < 1e-5


def test_three_comparisons_that_decide_together() -> None:
    """Python's sort of three tied values: its pieces join wherever they meet, and the set is exact."""
    found = ns.clarke(lambda x: sorted([x[0], x[1], -x[1]])[1], at(0, 0))
    assert found.exact and found.equality == "piecewise affine"
    same_set(found, [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], 1e-12)


def test_membership_in_single_precision() -> None:
    """Vertices that were summed in float32 are elements, though they are a few units of it beside the exact ones."""
    network = network_of_formula([(1, 2), (-1, 2), (1, -2)])
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(3, dtype=dtype)
        found = ns.clarke(network, x)
        assert found.contains([0.0, 0.0, 1.0]) is True
        assert found.contains([0.0, 0.01, 1.0]) is False
        field = ns.field(network, x)
        assert all(field.contains(v) for v in field.vertices()[:5])
        assert field.contains([0.0, 0.0, 3.01]) is False


def test_thousands_of_kinks() -> None:
    """A network with biases of zero on blank inputs: an inner set, in no time."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=DTYPE)  # noqa: E731
    first, second, inputs = draw(16, 16), draw(16, 16), draw(32, 16) * 0
    biases = [torch.zeros(16, dtype=DTYPE), torch.zeros(16, dtype=DTYPE)]

    def f(b: list[torch.Tensor]) -> torch.Tensor:
        return torch.relu(torch.relu(inputs @ first + b[0]) @ second + b[1]).sum()

    found = ns.clarke(f, biases)
    assert found.kinks >= 1000 and found.inner is not None
    g = ns.subgradient(f, biases).gradient
    assert found.contains(g) is not False and found.outer.contains(g) is not False


def test_batch_norm() -> None:
    """A module in training: buffers stay, and gradients of the cells are certified."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    model = model.double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    f, x = ns.objective(model, step=lambda model, inputs: model(inputs).sum())
    inputs = torch.zeros(5, 3, dtype=DTYPE)
    found = ns.clarke(f, x, inputs)
    gradient = ns.subgradient(f, x, inputs)
    if gradient.certificate.certified:
        assert found.contains(gradient.gradient) is not False
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_tolerance() -> None:
    """With tol > 0 a kink nearby counts as met."""
    f = lambda x: torch.relu(x[0] - 1e-3) + torch.relu(x[1])  # noqa: E731
    assert ns.clarke(f, at(0, 1)).equality == "differentiable"
    same_set(ns.clarke(f, at(0, 1), tol=1e-2), [[0, 1], [1, 1]])


# random programs of every kind, against gradients nearby


def check_generated(seed: int, kinds: tuple[str, ...] = (), samples: int = 60) -> str:
    """Check one program: certified subgradients and limits of gradients are inside, vertices are limits."""
    program = generated(seed, kinds, length=(2, 8))
    f, x = program.function(), program.x()
    try:
        found = ns.clarke(f, x)
    except NonsmoothError as error:
        return type(error).__name__
    rng = np.random.default_rng(seed)
    for d in rng.standard_normal((4, len(x))):
        inner, outer = found.support(d), found.outer.support(d)
        scale = 1e-8 * (1 + abs(outer.upper))
        assert inner.lower <= outer.upper + scale, f"{program}{found}"
        if found.inner is not None:
            assert found.inner.support(d).lower <= outer.upper + scale, f"{program}{found}"
    if found.status == "undecided":
        return "undecided"
    for k in range(4):
        certified = ns.subgradient(f, x, seed=k)
        if certified.certificate.certified:
            close = 1e-7 * (1 + float(certified.gradient.abs().max()))
            assert found.contains(certified.gradient, close) is not False, f"{program}{found}{certified}"
            assert found.outer.contains(certified.gradient, close) is not False, f"{program}{found}{certified}"
    if ns.kinks(f, x, tol=1e-4).count > ns.kinks(f, x, tol=1e-12).count:
        return "kinks beside"
    near = [gradient_near(f, x, v) for v in around(x, samples, seed)]
    settled = [e for e in near if e is not None]
    for e in settled:
        assert found.contains(e.value, 1e-3 * (1 + float(e.value.abs().max()))) is not False, f"{program}{found}{e}"
    return str(found.equality)


@pytest.mark.parametrize("block", shortened(range(4), 2))
def test_generated_programs(block: int) -> None:
    """No certified subgradient, and no limit of gradients, is outside; nothing is outside the field."""
    found = [check_generated(seed, samples=8) for seed in range(8 * block, 8 * (block + 1))]
    print({word: found.count(word) for word in set(found)})
    assert sum(word in ("regular", "independent", "piecewise affine", "differentiable") for word in found) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_generated_programs_at_length(block: int) -> None:
    """The same on 2,000 programs."""
    for seed in range(10_000 + 200 * block, 10_000 + 200 * (block + 1)):
        check_generated(seed)


GUARDED = ("affine", "gather", "switch", "order", "choose", "branch", "cancelling", "flat")


def check_inner(seed: int, samples: int = 300) -> bool:
    """Check that what the set holds is in the hull of gradients nearby, for programs of at most three variables."""
    program = generated(seed, GUARDED, length=(2, 6))
    f, x = program.function(), program.x()
    if len(x) > 3 or ns.kinks(f, x, tol=1e-4).count > ns.kinks(f, x, tol=1e-12).count:
        return False
    try:
        found = ns.clarke(f, x)
    except NonsmoothError:
        return False
    if found.inner is None or not found.kinks:
        return False
    nearby = np.concatenate([limits(f, x, samples, seed, t) for t in (1e-6, 1e-7)])
    for d in np.random.default_rng(seed).standard_normal((6, len(x))):
        v = found.inner.support_point(d)
        assert is_in_hull(nearby, v, 1e-3), f"{program}{found} holds {v}, outside the gradients nearby"
    return True


@pytest.mark.parametrize("block", shortened(range(2), 1))
def test_what_is_inside_is_a_limit(block: int) -> None:
    """Points of the inner set are in the hull of gradients sampled nearby."""
    assert sum(check_inner(seed) for seed in range(20 * block, 20 * (block + 1))) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_what_is_inside_is_a_limit_at_length(block: int) -> None:
    """The same on 1,000 draws."""
    assert sum(check_inner(seed, 2000) for seed in range(1000 + 200 * block, 1200 + 200 * block)) > 20


# nothing of the user's is touched


def test_the_users_tensors_stay_as_they_are() -> None:
    """Point, gradients, modes and generators."""
    for seed in range(4):
        program = generated(seed)
        x = program.x().requires_grad_()
        x.grad = torch.ones_like(x)
        before, version = x.detach().clone(), x._version
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        try:
            ns.clarke(program.function(), x)
        except NonsmoothError:
            continue
        assert torch.equal(x.detach(), before) and x._version == version and torch.equal(x.grad, torch.ones_like(x))
        assert torch.is_grad_enabled() and torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    with torch.no_grad():
        same_set(ns.clarke(lambda x: x.abs().sum(), at(0)), [[1], [-1]])
        assert not torch.is_grad_enabled()


def test_trees_and_programs() -> None:
    """Points in parts; a captured program gives what its function gives."""
    f = lambda p: p["a"].abs().sum() + torch.relu(p["b"][0])  # noqa: E731
    x = {"a": at(0), "b": [at(0).reshape(())]}
    found, again = ns.clarke(f, x), ns.clarke(ns.capture(f, x), x)
    same_set(found, [[1, 0], [1, 1], [-1, 0], [-1, 1]])
    assert found.contains({"a": at(0.5), "b": [at(0.5).reshape(())]}) is True
    assert again.equality == found.equality
