"""Sizes of arrays by one pass: those of numpy in double precision, whatever the type, the layout and the scale."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from nonsmooth.bounds import sizes
from nonsmooth.bounds.sizes import measured

RNG = np.random.default_rng(0)

ARRAYS = {
    "a vector": RNG.normal(size=700),
    "a matrix": RNG.normal(size=(30, 40)),
    "single precision": RNG.normal(size=(30, 40)).astype(np.float32),
    "half precision": RNG.normal(size=(9, 5)).astype(np.float16),
    "a kernel": RNG.normal(size=(4, 3, 3, 3)),
    "turned": RNG.normal(size=(30, 40)).T,
    "every second": RNG.normal(size=(30, 40))[::2, ::-3],
    "whole numbers": np.arange(-6, 6).reshape(3, 4),
    "truth values": np.array([[True, False], [True, True]]),
    "complex": (RNG.normal(size=(6, 7)) + 1j * RNG.normal(size=(6, 7))).astype(np.complex64),
    "tiny": 1e-200 * RNG.normal(size=(5, 6)),
    "huge": 1e200 * RNG.normal(size=(5, 6)),
    "zeros": np.zeros((3, 4)),
    "a number": np.array(-2.5),
}


@pytest.mark.parametrize("piece", [16, sizes.PIECE])
@pytest.mark.parametrize("name", ARRAYS)
def test_sizes_are_those_of_numpy(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "PIECE", piece)
    array = ARRAYS[name]
    found, given = measured(array), np.asarray(array, complex if np.iscomplexobj(array) else float)
    unit = max(float(np.max(np.abs(given))), 1e-300)
    scaled = np.atleast_1d(given) / unit
    assert found.norm == pytest.approx(np.linalg.norm(scaled.reshape(-1)) * unit, rel=1e-13)
    assert found.peak == np.max(np.abs(given))
    if not np.iscomplexobj(array):
        assert (found.low, found.high) == (given.min(), given.max())
    if given.ndim > 1:
        matrix = scaled.reshape(len(given), -1)
        exact = np.linalg.norm(matrix, 2) * unit
        rows = np.sqrt(np.linalg.norm(matrix, 1) * np.linalg.norm(matrix, inf)) * unit
        assert exact <= found.operator * (1 + 1e-14) and found.operator == pytest.approx(min(found.norm, rows))


def test_nothing_is_zero_and_what_is_not_finite_has_no_size() -> None:
    assert measured(np.zeros((0, 3))).norm == 0.0
    for value in (np.nan, inf, -inf):
        found = measured(np.array([1.0, value]))
        assert found.norm == found.peak == inf and found.low in (-inf, 1.0) and found.high in (inf, 1.0)
