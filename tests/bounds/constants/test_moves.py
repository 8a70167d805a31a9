"""Constants of what moves entries: they are the exact operator norms, and intervals of entries move along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Local, Reach
from tests.bounds.constants.one_step import OneStep, box, holds, moving

torch = pytest.importorskip("torch")
F = torch.nn.functional
INDEX = torch.tensor([0, 2, 2, 1])
MASK = torch.tensor([[True, False, True], [False, True, True]])

CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "reshape": (lambda x: x.reshape(3, 2), [(2, 3)]),
    "permute": (lambda x: x.permute(2, 0, 1), [(2, 3, 2)]),
    "expand": (lambda x: x.expand(4, 3), [(1, 3)]),
    "repeat": (lambda x: x.repeat(2, 3), [(2, 2)]),
    "tile": (lambda x: torch.tile(x, (2, 3)), [(2, 2)]),
    "select": (lambda x: x[1], [(3, 2)]),
    "slice": (lambda x: x[::2], [(5,)]),
    "cat": (lambda x, y: torch.cat([x, y], 1), [(2, 2), (2, 1)]),
    "stack": (lambda x, y: torch.stack([x, y]), [(2, 2), (2, 2)]),
    "flip": (lambda x: x.flip(0), [(3, 2)]),
    "roll": (lambda x: x.roll(1, 0), [(3, 2)]),
    "diagonal": (lambda x: x.diagonal(), [(3, 3)]),
    "diag": (lambda x: torch.diag(x), [(3,)]),
    "tril": (lambda x: x.tril(), [(3, 3)]),
    "gather": (lambda x: x.gather(1, torch.tensor([[0, 0, 2], [1, 1, 1]])), [(2, 3)]),
    "take": (lambda x: torch.take(x, torch.tensor([0, 0, 3])), [(2, 3)]),
    "index": (lambda x: x[INDEX], [(3, 2)]),
    "index_select": (lambda x: x.index_select(0, INDEX), [(3, 2)]),
    "masked_select": (lambda x: torch.masked_select(x, MASK), [(2, 3)]),
    "scatter": (lambda x, s: x.scatter(0, torch.tensor([[1, 0]]), s), [(3, 2), (1, 2)]),
    "index_put": (lambda x, s: x.index_put((torch.tensor([0, 2]),), s), [(3, 2), (2, 2)]),
    "index_put spread": (lambda x, s: x.index_put((torch.tensor([0, 2]),), s), [(3, 2), ()]),
    "index_copy": (lambda x, s: x.index_copy(0, torch.tensor([0, 2]), s), [(3, 2), (2, 2)]),
    "constant_pad_nd": (lambda x: F.pad(x, (1, 2), value=0.5), [(2, 3)]),
    "reflection": (lambda x: F.pad(x, (2, 1, 1, 1), mode="reflect"), [(1, 1, 3, 3)]),
    "replication": (lambda x: F.pad(x, (2, 1, 1, 0), mode="replicate"), [(1, 1, 3, 3)]),
    "replication of a line": (lambda x: F.pad(x, (2, 3), mode="replicate"), [(1, 1, 3)]),
    "unfold": (lambda x: x.unfold(0, 3, 2), [(8,)]),
    "im2col": (lambda x: F.unfold(x, 3, stride=2, padding=1), [(1, 2, 5, 5)]),
    "col2im": (lambda x: F.fold(x, (4, 4), 2), [(1, 4, 9)]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [(1, 4, 2, 2)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 0), [(2, 2)]),
    "repeat_interleave of each": (lambda x: x.repeat_interleave(torch.tensor([1, 4]), 0), [(2, 2)]),
    "as_strided": (lambda x: x.as_strided((3, 2), (1, 1)), [(4,)]),
    "index_add": (lambda x, s: x.index_add(0, INDEX, s, alpha=-2), [(3, 2), (4, 2)]),
    "scatter_add": (lambda x, s: x.scatter_add(0, torch.tensor([[1, 0], [1, 2]]), s), [(3, 2), (2, 2)]),
    "clone": (lambda x: x.clone(), [(3,)]),
    "rot90": (lambda x: torch.rot90(x), [(2, 3)]),
    "block_diag": (lambda x, y: torch.block_diag(x, y), [(2, 2), (1, 2)]),
}


OTHERS: dict[str, list[Any]] = {
    "gather": [[[0, 0, 2], [1, 1, 1]]],
    "take": [[0, 0, 3]],
    "index": [INDEX.numpy()],
    "index_select": [INDEX.numpy()],
    "scatter": [[[1, 0]]],
    "index_put": [[0, 2]],
    "index_put spread": [[0, 2]],
    "index_copy": [[0, 2]],
    "repeat_interleave of each": [[1, 4]],
    "index_add": [INDEX.numpy()],
    "scatter_add": [[[1, 0], [1, 2]]],
}
"""The indices of the cases, which the walk of a program knows."""


def _with_indices(name: str, radius: float, operands: list[Reach] | None = None) -> tuple[OneStep, list[np.ndarray]]:
    """Give a step whose indices are known, as the walk of a program knows them."""
    function, shapes = CASES[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(size=s) for s in shapes]
    step = OneStep("torch", function, arrays, radius, operands=operands, others=OTHERS.get(name, ()))
    return step, arrays


@pytest.mark.parametrize("name", CASES)
def test_a_move_in_torch_has_its_operator_norm(name: str) -> None:
    step, arrays = _with_indices(name, 0.3)
    local = holds(step, np.random.default_rng(1))
    for place in range(len(arrays)):
        exact = step.slope(place, arrays)
        assert step.slopes(local)[place] == pytest.approx(exact, rel=1e-6), (place, step.shaped)


@pytest.mark.parametrize("name", CASES)
def test_intervals_move_along(name: str) -> None:
    function, shapes = CASES[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(size=s) for s in shapes]
    places = [box(a - rng.random(a.shape), a + rng.random(a.shape), i, len(arrays)) for i, a in enumerate(arrays)]
    step = OneStep("torch", function, arrays, operands=places, others=OTHERS.get(name, ()))
    local = holds(step, rng, samples=30)
    wide = np.broadcast_to(np.asarray(local.high) - np.asarray(local.low), step.shaped.results[0])
    assert np.all(wide >= -1e-12)
    if name not in ("index_add", "scatter_add"):  # sums, of which one interval is known
        ends = [step.value(*(side)) for side in ([u.low for u in places], [u.high for u in places])]
        assert np.allclose(local.low, ends[0]) and np.allclose(local.high, ends[1])


JAX: dict[str, tuple[str, Callable[..., Any], list[tuple[int, ...]]]] = {}


def _jax_cases() -> dict[str, tuple[str, Callable[..., Any], list[tuple[int, ...]]]]:
    """Moves as primitives of JAX."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    return {
        "expand": ("expand", lambda x: jnp.broadcast_to(x, (4, 3)), [(3,)]),
        "cat": ("cat", lambda x, y: jnp.concatenate([x, y]), [(2,), (3,)]),
        "reshape": ("reshape", lambda x: x.reshape(6), [(2, 3)]),
        "slice": ("slice", lambda x: jax.lax.slice(x, (1,), (4,), (2,)), [(5,)]),
        "pad": ("constant_pad_nd", lambda x, v: jax.lax.pad(x, v, ((1, 2, 1),)), [(3,), ()]),
        "flip": ("flip", lambda x: jax.lax.rev(x, (0,)), [(3,)]),
        "squeeze": ("squeeze", lambda x: jax.lax.squeeze(x, (0,)), [(1, 3)]),
        "transpose": ("transpose", lambda x: x.T, [(2, 3)]),
        "dynamic slice": ("index", lambda x: jax.lax.dynamic_slice(x, (1,), (2,)), [(4,)]),
    }


@pytest.mark.parametrize(
    "name", ["expand", "cat", "reshape", "slice", "pad", "flip", "squeeze", "transpose", "dynamic slice"]
)
def test_a_move_in_jax_has_its_operator_norm(name: str) -> None:
    record, function, shapes = _jax_cases()[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(size=s) for s in shapes]
    step = OneStep("jax", function, arrays, 0.3, name=record)
    local = holds(step, rng)
    for place in range(len(arrays)):
        assert local.lipschitz[place] == pytest.approx(step.slope(place, arrays), rel=1e-6)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_copies_taken_by_indices_are_bounded_where_nothing_is_known_of_them(backend: str) -> None:
    one = np.ones(1), np.zeros((1, 1))
    x, index = Reach((5,), 2.0, *one), Reach((3, 1), 9.0, np.zeros(1), np.zeros((1, 1)))
    attributes = {"given": ("self", "index")} if backend == "torch" else {}
    name = "index_select" if backend == "torch" else "gather"
    index = index if backend == "jax" else Reach((3,), 9.0, np.zeros(1), np.zeros((1, 1)))
    local = CONSTANTS[name](Called(name, (x, index), attributes, ((3,),)))
    assert isinstance(local, Local) and local.lipschitz[0] == pytest.approx(np.sqrt(3))


def test_parts_have_their_intervals() -> None:
    low = np.arange(6.0).reshape(2, 3)
    x = box(low, low + 1, 0, 1)
    found = CONSTANTS["split"](Called("split", (x,), {"dim": 1}, ((2, 2), (2, 1))))
    assert isinstance(found, list)
    assert np.array_equal(found[1].low, low[:, 2:]) and np.array_equal(found[0].high, low[:, :2] + 1)
    rows = CONSTANTS["unbind"](Called("unbind", (x,), {"dim": 0}, ((3,), (3,))))
    assert isinstance(rows, list) and np.array_equal(rows[1].low, low[1])


def test_an_array_written_over_counts_no_more() -> None:
    x, y = (moving(np.ones(s), 0.1, i, 2) for i, s in enumerate([(2, 3), (3,)]))
    local = CONSTANTS["copy"](Called("copy", (x, y), {"given": ("self", "src")}, ((2, 3),)))
    assert isinstance(local, Local) and local.lipschitz == [0.0, pytest.approx(np.sqrt(2))]


def test_detached_values_depend_on_the_blocks() -> None:
    x = moving(np.ones(3), 0.1, 0, 1)
    local = CONSTANTS["detach"](Called("detach", (x,), {}, ((3,),)))
    assert isinstance(local, Local) and local.lipschitz == [1.0]
