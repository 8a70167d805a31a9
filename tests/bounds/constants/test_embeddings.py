"""Constants of tables of vectors: rows that are looked up more than once count so often."""

from __future__ import annotations

import numpy as np
import pytest

from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Local, Reach
from tests.bounds.constants.one_step import moving


def _call(indices: list[int], known: bool = True, **attributes: object) -> Called:
    table = moving(np.random.default_rng(0).normal(size=(5, 3)), 0.5, 0, 1)
    index = np.array(indices)
    one = np.zeros(1), np.zeros((1, 1))
    looked = Reach.constant(index, 1) if known else Reach(index.shape, 9.0, *one)
    return Called("embedding", (table, looked), attributes, ((len(indices), 3),))


@pytest.mark.parametrize("indices", [[0], [1, 1, 1], [0, 2, 2, 4, 2, 0]])
def test_the_norm_is_the_root_of_the_copies(indices: list[int]) -> None:
    call = _call(indices)
    local = CONSTANTS["embedding"](call)
    matrix = np.eye(5)[indices]
    assert isinstance(local, Local) and local.lipschitz[0] == pytest.approx(np.linalg.norm(matrix, 2))
    unknown = CONSTANTS["embedding"](_call(indices, known=False))
    assert isinstance(unknown, Local) and unknown.lipschitz[0] == pytest.approx(np.sqrt(len(indices)))


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("starts", [[0, 2], [0, 3, 4], [0]])
def test_bags(mode: int, starts: list[int]) -> None:
    indices = [0, 1, 1, 2, 0, 1]
    table = moving(np.random.default_rng(0).normal(size=(4, 3)), 0.5, 0, 1)
    operands = (table, Reach.constant(np.array(indices), 1), Reach.constant(np.array(starts), 1))
    local = CONSTANTS["embedding"](Called("embedding", operands, {"mode": mode}, ((len(starts), 3),)))
    matrix = np.zeros((len(starts), 4))
    for k, i in enumerate(indices):
        matrix[np.searchsorted(starts, k, side="right") - 1, i] += 1
    if mode == 1:
        matrix /= np.diff([*starts, len(indices)])[:, None]
    exact = float(np.linalg.norm(matrix, 2))
    assert isinstance(local, Local) and exact <= local.lipschitz[0] * (1 + 1e-12) and local.lipschitz[0] <= 2.5 * exact
