"""Certified subgradients of random programs: limits of gradients, by an oracle that knows no theory; and of traps: none."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.derivatives.subgradient import Subgradient
from nonsmooth.errors import NonsmoothError
from nonsmooth.program import Program as Captured
from tests.adapters import Adapter, adapter, served
from tests.cases.spelling import Array, Program, Spelled, said_in, spelled, torch_only
from tests.programs.generator import random_program
from tests.programs.oracle import gradient_at, is_limit
from tests.programs.traps import TRAPS, sayable, trapped_program
from tests.programs.writer import RandomProgram
from tests.shortened import shortened

TORCH = adapter("torch")

RUNS = [
    *shortened([("torch", block) for block in range(5)], 2),
    *shortened([("jax", block) for block in range(2)] * ("jax" in served()), 1),
]
"""Blocks of 30 programs, two of five at every run; JAX compiles every step of every program anew, and takes 4 programs."""

SLOW_RUNS = [("torch", block) for block in range(10)] + [("jax", 0)] * ("jax" in served())


def check_certified(
    xp: Adapter, program: RandomProgram, found: Subgradient, seed: int = 0, captured: Captured | None = None
) -> None:
    """Check a certified gradient: it is a limit of gradients along its direction, and <g, v> = F'(x; v)."""
    (f, x), v = program.on(xp), found.certificate.direction
    if v is None:
        for u in map(xp.array, np.random.default_rng(seed).standard_normal((3, len(x)))):
            said = f"{program.script(xp)}{found} near {u}"
            assert is_limit(f, x, u, found.gradient) or has_kinks_beside(f, x), said
        return
    said = f"{program.script(xp)}{found} along {v}"
    assert is_limit(f, x, v, found.gradient) or has_kinks_beside(f, x), said
    slope = ns.directional(f if captured is None else captured, x, v)
    scale = 1 + float(abs(found.gradient).sum())
    assert abs(float(found.gradient @ v - slope)) <= 1e-10 * scale, f"{said}: F' = {slope}"


def has_kinks_beside(f: Callable[..., Any], x: Any) -> bool:
    """Tell kinks so near the point, and not at it, that the oracle steps over them; not those that rounding explains."""
    return ns.kinks(f, x, tol=1e-4).count > ns.kinks(f, x, tol=1e-12).count


def check(xp: Adapter, seed: int) -> bool:
    """Check one random program; tell whether it was certified."""
    program = random_program(seed)
    f, x = program.on(xp)
    captured = ns.capture(f, x)
    found = ns.subgradient(captured, x, seed=seed)
    certificate = found.certificate
    assert certificate.certified == (certificate.status == "computed") == (not certificate.reasons)
    assert (certificate.direction is None) == (certificate.kinks == 0)
    if certificate.certified:
        check_certified(xp, program, found, seed, captured)
    return certificate.certified


@pytest.mark.parametrize(("xp", "block"), RUNS, indirect=["xp"])
def test_certified_gradients_are_limits(xp: Adapter, block: int) -> None:
    """On random programs every certified gradient is a limit of gradients, and nearly all are certified."""
    count = 30 if xp.name == "torch" else 4
    undecided = [seed for seed in range(count * block, count * (block + 1)) if not check(xp, seed)]
    print(f"undecided: {undecided} of {count}")
    assert len(undecided) <= (count >= 8)  # so few programs have no undecided one


@pytest.mark.slow
@pytest.mark.parametrize(("xp", "block"), SLOW_RUNS, indirect=["xp"])
def test_certified_gradients_are_limits_at_length(xp: Adapter, block: int) -> None:
    """The same on 10,000 programs; fewer than one in a hundred is undecided."""
    undecided = [seed for seed in range(10_000 + 1000 * block, 10_000 + 1000 * (block + 1)) if not check(xp, seed)]
    print(f"undecided: {len(undecided)} of 1000: {undecided}")
    assert len(undecided) < 10


TRAPS_OF = [(on, name) for on in served() for name in TRAPS if on == "torch" or sayable(name)]
"""The traps that can be said in a framework."""


def check_trap(xp: Adapter, name: str, seed: int) -> None:
    """Check that one trap is refused; or that its gradient is a limit, where its function permits one."""
    program = trapped_program(seed, name)
    f, x = program.on(xp)
    try:
        captured = ns.capture(f, x)
        found = ns.subgradient(captured, x, seed=seed)
    except NonsmoothError:
        return
    if found.certificate.certified:
        assert not TRAPS[name].must_refuse, f"{program.script(xp)}{found}"
        check_certified(xp, program, found, seed, captured)
    else:
        assert all(str(reason) for reason in found.certificate.reasons)


@pytest.mark.parametrize(("xp", "name"), TRAPS_OF, indirect=["xp"])
def test_traps_are_not_certified(xp: Adapter, name: str) -> None:
    """No certificate for what leaves the theory, and no wrong one for what only looks so; alone and embedded."""
    for seed in range(2 if xp.name == "torch" else 1):
        check_trap(xp, name, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("xp", "name"), TRAPS_OF, indirect=["xp"])
def test_traps_are_not_certified_at_length(xp: Adapter, name: str) -> None:
    """The same in 60 surroundings each."""
    for seed in range(1, 63):
        check_trap(xp, name, seed)


OUTRIGHT: dict[str, Program] = {
    "predicate without derivative": lambda xp, x: xp.where(x[1] * x[1] > 0, x[1], 2 * x[1]),
    "branches that part nearby": lambda xp, x: xp.where(x[1] > 0, x[0], 2 * x[0]),
    "equality": lambda xp, x: xp.where(x[0] == 0, -x[0], x[0]),
    "square root": lambda xp, x: xp.sqrt(xp.abs(x[0])) ** 2 - xp.abs(x[0]),
    "mask": Spelled(
        lambda xp, x: (x[0] > 0).double() * (x[0] + 1), lambda xp, x: (x[0] > 0).astype(x.dtype) * (x[0] + 1)
    ),
    "item": torch_only(lambda xp, x: x[0] * x[1].item()),
    "straight through": lambda xp, x: x[0] - xp.stop_gradient(x[0]),
    "floor": lambda xp, x: xp.floor(x[0]) + x[1],
}
"""Those that the library promises to refuse, also where a gradient under some selection would be right by accident."""

OUTRIGHT_OF = [(on, name) for on in served() for name, f in OUTRIGHT.items() if said_in(f, on)]


@pytest.mark.parametrize(("xp", "name"), OUTRIGHT_OF, indirect=["xp"])
def test_refused_outright(xp: Adapter, name: str) -> None:
    """Refused along every direction, with the line."""
    x = xp.array((0, 0))
    program = ns.capture(spelled(OUTRIGHT[name], xp), x)
    for seed in range(6):
        certificate = ns.subgradient(program, x, seed=seed).certificate
        assert not certificate.certified
        assert any(
            "test_subgradient_random.py" in str(r.source) or "line" in str(r) or r.source for r in certificate.reasons
        )


TENTHS = ((1, 2), (7, -6), (3, -2), (6, -3), (1, 7), (4, 3), (9, -7), (2, 5))
"""Numbers a, b for which a / 10 + b / 10 is, or is not, (a + b) / 10 in floating point."""

MOVED = [
    *[("torch", TENTHS)],
    *[("jax", TENTHS[:2]), pytest.param("jax", TENTHS[2:], marks=pytest.mark.slow)] * ("jax" in served()),
]


@pytest.mark.parametrize(
    ("xp", "tenths"), MOVED, indirect=["xp"], ids=["torch", "jax", "jax, the others"][: len(MOVED)]
)
def test_ties_that_rounding_has_moved(xp: Adapter, tenths: tuple[tuple[int, int], ...]) -> None:
    """relu((a + b) + c) - relu(a + (b + c)) is 0; where only one of the sums is 0 in floating point nothing is certified."""

    def zero(x: Array) -> Array:
        return xp.relu((x[0] + x[1]) + x[2]) - xp.relu(x[0] + (x[1] + x[2]))

    refused = 0
    for a, b in tenths:
        x = xp.array([a / 10, b / 10, -(a + b) / 10])
        program = ns.capture(zero, x)
        for seed in range(3):
            found = ns.subgradient(program, x, seed=seed)
            assert not found.certificate.certified or found.gradient.tolist() == [0, 0, 0], f"{x} {found}"
            refused += not found.certificate.certified
    assert refused


def test_an_oracle_that_would_catch_backprop() -> None:
    """torch's own gradients of the same programs fail the same check, many of them."""
    caught = 0
    for seed in range(60):
        program = random_program(seed)
        f, x = program.function(), program.x()
        v = ns.subgradient(f, x, seed=seed).certificate.direction
        caught += v is not None and not is_limit(f, x, v, gradient_at(f, x))
    assert caught > 10


def test_smooth_points() -> None:
    """Where no kink is active the gradient is torch's, and nothing is drawn."""
    for seed in range(6_000, 6_015):
        program = random_program(seed)
        generator = torch.Generator().manual_seed(seed)
        f = program.function()
        x = program.x() + 0.1 * torch.rand(len(program.point), generator=generator, dtype=torch.float64)
        if ns.kinks(f, x).count:
            continue
        value, gradient, certificate = ns.subgradient(f, x)
        torch.testing.assert_close(gradient, gradient_at(f, x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(value, f(x), rtol=0, atol=0)
        assert (certificate.direction, certificate.draws, certificate.kinks) == (None, 0, 0)


def test_the_users_tensors_stay_as_they_are() -> None:
    """Point, gradients, graph and generators of torch, numpy and Python are not touched."""
    for seed in range(5):
        program = random_program(seed)
        x = program.x().requires_grad_()
        x.grad = torch.ones_like(x)
        before, version = x.detach().clone(), x._version
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        found = ns.subgradient(program.function(), x)
        assert torch.equal(x.detach(), before) and x._version == version and x.requires_grad
        assert torch.equal(x.grad, torch.ones_like(x)) and not found.gradient.requires_grad
        assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
        assert np.array_equal(np.random.get_state()[1], states[1])


def test_a_seed_repeats_and_seeds_differ() -> None:
    """The same seed gives the same bits; over seeds |x| at 0 has both slopes, and only those."""
    zero = torch.zeros(2, dtype=torch.float64)
    slopes = set()
    for seed in range(12):
        first, again = (ns.subgradient(lambda x: x.abs().sum(), zero, seed=seed) for _ in range(2))
        assert torch.equal(first.gradient, again.gradient)
        assert torch.equal(first.certificate.direction, again.certificate.direction)
        slopes.add(tuple(first.gradient.tolist()))
    assert slopes <= {(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)} and len(slopes) >= 3


def test_programs_and_functions() -> None:
    """A captured program gives what its function gives."""
    for seed in range(10):
        program = random_program(seed)
        f, x = program.function(), program.x()
        one, other = ns.subgradient(f, x), ns.subgradient(ns.capture(f, x), x)
        assert torch.equal(one.gradient, other.gradient) and torch.equal(one.value, other.value)
        assert str(one.certificate) == str(other.certificate)


def test_points_in_parts_and_data() -> None:
    """The same programs at a tree of tensors, with a part of the point as data."""
    for seed in range(200, 215):
        program = random_program(seed)
        f, x = program.function(), program.x()
        k = max(1, len(x) // 2)

        def parted(point: dict[str, object], shift: torch.Tensor, f=f) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return f(torch.cat([point["a"], *point["b"]]) + shift)  # type: ignore[list-item]

        found = ns.subgradient(parted, {"a": x[:k] - 1, "b": [x[k:] - 1]}, torch.ones(len(x), dtype=x.dtype))
        assert set(found.gradient) == {"a", "b"} and isinstance(found.gradient["b"], list)
        direction = found.certificate.direction
        together = [torch.cat([t["a"], *t["b"]]) if t else None for t in (found.gradient, direction)]
        if found.certificate.certified:
            check_certified(TORCH, program, Subgradient(found.value, together[0], _along(found, together[1])), seed)


def _along(found: Subgradient, direction: torch.Tensor | None):  # type: ignore[no-untyped-def]
    """Give a certificate with another direction."""
    return type(found.certificate)("computed", direction, found.certificate.margin, 1, found.certificate.kinks)


def test_half_the_digits() -> None:
    """In float32 the certified gradients of programs of small integers are limits of those in float64."""
    kinds = ("affine", "linear", "gather", "switch", "order", "choose", "branch", "flat")
    for seed in range(300, 330):
        program = random_program(seed, kinds)
        found = ns.subgradient(program.function(torch.float32), program.x(torch.float32), seed=seed)
        assert found.gradient.dtype == torch.float32
        if found.certificate.certified and found.certificate.direction is not None:
            v = found.certificate.direction.double()
            assert is_limit(program.function(), program.x(), v, found.gradient.double()), f"{program}{found}"


def test_the_direction_is_of_the_lattice() -> None:
    """The entries of the first draw are multiples of 1/256 in [-1, 1], and none is 0."""
    for seed in range(20):
        program = random_program(seed)
        certificate = ns.subgradient(program.function(), program.x(), seed=seed).certificate
        if certificate.draws == 1:
            v = certificate.direction * 256
            assert torch.equal(v, v.round()) and bool(((v.abs() <= 256) & (v != 0)).all())
            assert certificate.margin > 0
