"""One-sided derivatives of random programs with many exact kinks, against difference quotients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import NoDerivative, NonsmoothError
from tests.adapters import Adapter, served
from tests.programs.generator import random_program
from tests.programs.oracle import gradient_at, one_sided
from tests.programs.traps import TRAPS, sayable, trapped_program
from tests.programs.writer import RandomProgram
from tests.shortened import shortened

RUNS = [*shortened([("torch", block) for block in range(4)], 2), *[("jax", 0)] * ("jax" in served())]
"""Blocks of 12 programs, two of four at every run; JAX compiles every step of every program anew, and takes 3 programs."""

SLOW_RUNS = [("torch", block) for block in range(20)] + [("jax", 0)] * ("jax" in served())

TRAPS_OF = [(on, name) for on in served() for name in TRAPS if on == "torch" or sayable(name)]
"""The traps that can be said in a framework."""


def directions(n: int, seed: int) -> Iterator[np.ndarray]:
    """Give directions that leave kinks tied, and one that does not."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.randint(-2, 3, (n,), generator=generator).double().numpy()
    yield np.ones(n)
    yield -np.eye(n)[seed % n]
    yield torch.randn(n, generator=generator, dtype=torch.float64).numpy()


def in_general_position(n: int, seed: int) -> torch.Tensor:
    """Give the last of them."""
    return torch.from_numpy(list(directions(n, seed))[-1])


def compare(xp: Adapter, seed: int) -> int:
    """Compare the derivatives of one program with the quotients; count those that are refused."""
    program = random_program(seed)
    (f, x), refused = program.on(xp), 0
    captured = ns.capture(f, x)
    for v in map(xp.array, directions(len(x), seed)):
        try:
            found = ns.directional(captured, x, v)
        except NoDerivative:
            refused += 1
            continue
        expected = one_sided(f, x, v)
        assert expected is not None, f"the quotients have not settled\n{program.script(xp)}v = {v.tolist()}"
        assert expected.agrees(found), f"{found} is not {expected}\n{program.script(xp)}v = {v.tolist()}"
    return refused


@pytest.mark.parametrize(("xp", "block"), RUNS, indirect=["xp"])
def test_against_quotients(xp: Adapter, block: int) -> None:
    """On random programs F'(x; v) is the limit of one-sided quotients, also along directions that leave kinks tied."""
    count = 12 if xp.name == "torch" else 3
    refused = sum(compare(xp, seed) for seed in range(12 * block, 12 * block + count))
    assert refused <= (count >= 6)  # so few programs have no refusal


@pytest.mark.slow
@pytest.mark.parametrize(("xp", "block"), SLOW_RUNS, indirect=["xp"])
def test_against_quotients_at_length(xp: Adapter, block: int) -> None:
    """The same on 4,000 programs; of 200 programs at most four are refused, along four directions each."""
    refused = sum(compare(xp, seed) for seed in range(20_000 + 200 * block, 20_000 + 200 * (block + 1)))
    print(f"refused: {refused} of 800")
    assert refused <= 16


@pytest.mark.parametrize(("xp", "name"), TRAPS_OF, indirect=["xp"])
def test_traps_are_refused_or_right(xp: Adapter, name: str) -> None:
    """Where the program jumps, or depends on what cannot be seen, the derivative is refused or that of the values."""
    for seed in range(2 if xp.name == "torch" else 1):
        program = trapped_program(seed, name)
        f, x = program.on(xp)
        try:
            captured = ns.capture(f, x)
        except NonsmoothError:
            continue
        for v in map(xp.array, directions(len(x), seed)):
            try:
                found = ns.directional(captured, x, v)
            except NonsmoothError:
                continue
            expected = one_sided(f, x, v)
            said = f"{found}, {expected}\n{program.script(xp)}v = {v.tolist()}"
            assert expected is not None and expected.agrees(found), said


def some_programs(count: int) -> list[RandomProgram]:
    """Give a few programs that the other tests do not use."""
    return [random_program(seed) for seed in range(5_000, 5_000 + count)]


def test_positively_homogeneous() -> None:
    """F'(x; s v) = s F'(x; v) for s >= 0."""
    for seed, program in enumerate(some_programs(15)):
        f, x = program.function(), program.x()
        captured = ns.capture(f, x)
        v = in_general_position(len(x), seed)
        once = ns.directional(captured, x, v)
        for s in (0.0, 0.25, 4.0):
            torch.testing.assert_close(ns.directional(captured, x, s * v), s * once, rtol=1e-12, atol=1e-12)


def test_not_odd_at_a_kink() -> None:
    """F'(x; -v) = -F'(x; v) fails at kinks: the derivative is one-sided."""
    x = torch.zeros(3, dtype=torch.float64)
    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    norms = [ns.directional(torch.linalg.vector_norm, x, s * v) for s in (1, -1)]
    assert torch.equal(*norms) and float(norms[0]) == pytest.approx(float(v.norm()))


def test_linear_at_smooth_points() -> None:
    """Where no kink is active F'(x; v) = <grad F(x), v>."""
    for seed, program in enumerate(some_programs(15)):
        generator = torch.Generator().manual_seed(seed)
        f = program.function()
        x = program.x() + 0.1 * torch.rand(len(program.point), generator=generator, dtype=torch.float64)
        captured = ns.capture(f, x)
        v = in_general_position(len(x), seed)
        found, expected = ns.directional(captured, x, v), gradient_at(f, x) @ v
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=lambda m, p=program: f"{p}\n{m}")


def test_the_users_tensors_stay_as_they_are() -> None:
    """Point, direction, gradients and generators are not touched."""
    program = random_program(5)
    f, x = program.function(), program.x().requires_grad_()
    x.grad = torch.ones_like(x)
    v = torch.ones_like(x)
    before, version, state = x.detach().clone(), x._version, torch.get_rng_state()
    found = ns.directional(f, x, v)
    assert not found.requires_grad
    assert torch.equal(x.detach(), before) and x._version == version and torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(v.detach(), torch.ones_like(x).detach()) and torch.equal(torch.get_rng_state(), state)


def test_trees_data_and_dtypes() -> None:
    """A point in parts, data, several results, half the digits."""

    def f(point: dict[str, torch.Tensor], shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(point["a"] - shift), torch.maximum(point["a"].sum(), point["b"])

    for dtype in (torch.float64, torch.float32):
        point = {"a": torch.ones(2, dtype=dtype), "b": torch.tensor(2.0, dtype=dtype)}
        v = {"a": torch.tensor([1.0, -1.0], dtype=dtype), "b": torch.tensor(0.5, dtype=dtype)}
        first, second = ns.directional(f, point, v, torch.ones(2, dtype=dtype))
        assert first.tolist() == [1, 0] and float(second) == 0.5 and first.dtype == dtype
