"""Certificates of random equations with nested, shared and tied kinks, against all selections and random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nonsmooth as ns
from tests.references.weighed_programs import Program

LARGEST = 1500
"""Programs with more selections are passed over."""


def check(seed: int) -> bool | None:
    """Compare a diagnosis with all elements; give the answer."""
    program = Program.random(seed)
    if math.prod(program.sizes()) > LARGEST:
        return None
    n, listed, drawn = program.size, program.vertices(), program.interior(20)
    found = ns.implicit.root(program.in_torch()).diagnose(torch.tensor(program.x), y=torch.tensor(program.y))
    determinants = np.linalg.det(listed[:, :, :n])
    holds = bool((determinants > 1e-9).all() or (determinants < -1e-9).all())
    assert found.invertible in (holds, None), f"{found}\n{determinants.min()} {determinants.max()}"
    if found.invertible is False:
        assert found.element is not None and np.linalg.svd(found.element, compute_uv=False)[-1] < 1e-7
    if found.invertible:
        least = np.linalg.svd(np.concatenate([listed, drawn])[:, :, :n], compute_uv=False)[:, -1].min()
        assert found.smallest_singular_value <= least + 1e-9
        assert not found.attained or found.smallest_singular_value == pytest.approx(least)
        expected = -np.linalg.solve(listed[:, :, :n], listed[:, :, n:]).reshape(len(listed), -1)
        inside = -np.linalg.solve(drawn[:, :, :n], drawn[:, :, n:]).reshape(len(drawn), -1)
        jacobian = found.jacobian()
        for d in np.random.default_rng(seed).standard_normal((10, n * n)):
            bound = float((expected @ d).max())
            assert (inside @ d).max() <= bound + 1e-8 * (1 + abs(bound))
            if jacobian.exact:
                assert jacobian.set.support(d) == pytest.approx(bound, rel=1e-8, abs=1e-8)
            else:
                assert (jacobian.elements.reshape(-1, n * n) @ d).max() <= bound + 1e-8 * (1 + abs(bound))
    return found.invertible


def test_a_few_equations() -> None:
    """Some of each answer."""
    assert {check(seed) for seed in range(24)} >= {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_many_equations(block: int) -> None:
    """Few are left undecided."""
    answers = [check(seed) for seed in range(100 + 50 * block, 150 + 50 * block)]
    assert answers.count(None) <= 3 and {True, False} <= set(answers)
