"""`at_kinks=NAME` gives what the framework of that name gives: the same formulas, run there by its own reverse mode."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.dictionary import OPERATIONS, Nonsmooth
from tests.across.adapters import MISSING, adapter, is_installed
from tests.across.formulas import FORMULAS, Formula
from tests.across.networks import KINDS
from tests.across.run import CASES, MORE, gradients_of, names_of, offered
from tests.adapters import Adapter

OTHERS = ("jax", "tensorflow")

EXCEPTIONS = {("jax", "cummax(x)"), ("jax", "cummin(x)")}
"""What no rule of a table can say: JAX differentiates a cumulative maximum as a tree of maxima of two."""

WRITTEN_IN_JAX = ("fmax", "fmin", "clip(a", "clip(b", "clip_low(a", "clip_high(a", "descending")
"""What is no operation of its own in JAX: a `where`, a maximum of a minimum, a sort that is turned round."""

NATIVE_IN_TORCH = ("sort", "top", "two largest", "bottom", "kth", "quantile", "median", "_along")
"""What torch does by the index that a kernel returned, and `torch.max(x, dim)`, which is not `torch.amax`."""

PRECISION = {"hardsigmoid": 1e-7, "cubes": 1e-6}
"""Relative tolerances: torch takes 1/6 in single precision, TensorFlow pools cubes in it; 1e-9 elsewhere."""

each_framework = pytest.mark.parametrize("framework", OTHERS)


def tolerance(case: Formula) -> float:
    return max([1e-9, *(t for word, t in PRECISION.items() if word in case.name)])


def disagreements(fw: Adapter, case: Formula, at_kinks: str, expected: dict[str, object]) -> list[str]:
    """Give the points at which backprop of a formula under a convention is not what is expected."""
    found = []
    for name, point in zip(names_of(case), case.points, strict=True):
        gradient = fw.numpy(ns.backprop(partial(case.function, fw), fw.array(point), at_kinks=at_kinks))
        other = np.asarray(expected[name])
        scale = max(1.0, float(np.nanmax(np.abs(other), initial=0.0)))
        if not np.allclose(gradient, other, rtol=0, atol=tolerance(case) * scale, equal_nan=True):
            found.append(f"{name}: {at_kinks} gives {other.tolist()}, backprop {gradient.tolist()}")
    return found


def pairs(cases: list[Formula]) -> list[tuple[str, Formula]]:
    """Give the formulas that a framework has all operations for."""
    return [(framework, case) for framework in OTHERS for case in cases if offered(framework, case)]


@pytest.mark.parametrize(("framework", "case"), pairs(CASES), ids=lambda value: getattr(value, "name", value))
def test_a_torch_program_under_another_convention(framework: str, case: Formula) -> None:
    """Backprop of the torch formula is the gradient that the other framework computes for its own."""
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    found = disagreements(adapter("torch"), case, framework, gradients_of(framework))
    if (framework, case.name) in EXCEPTIONS:
        assert found, "no exception any more: take it off the list, and off docs/conventions.md"
    else:
        assert not found, "\n".join(found)


@pytest.mark.slow
@each_framework
def test_many_random_programs(framework: str) -> None:
    """The same on hundreds of random programs and networks."""
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    fw, theirs = adapter("torch"), gradients_of(framework, more=True)
    assert not [line for case in MORE for line in disagreements(fw, case, framework, theirs)]


def in_jax(framework: str, cases: list[Formula]) -> list[Formula]:
    """Give the formulas that JAX writes with the operations of another framework, and for which that one has rules."""
    words = WRITTEN_IN_JAX + NATIVE_IN_TORCH * (framework == "torch")
    both = [case for case in cases if offered("jax", case) and offered(framework, case)]
    return [case for case in both if not any(word in case.name for word in words)]


def jax_disagreements(framework: str, cases: list[Formula]) -> list[str]:
    """Give the points at which backprop of a JAX program is not what another framework gives."""
    for name in ("jax", framework):
        if not is_installed(name):
            pytest.skip(f"{name} is not installed")
    fw, theirs = adapter("jax"), gradients_of(framework)
    with fw.default("double"):
        return [line for case in cases for line in disagreements(fw, case, framework, theirs)]


@pytest.mark.parametrize("framework", ("torch", "tensorflow"))
def test_a_jax_program_under_another_convention(framework: str) -> None:
    """The other way round, on every fourteenth formula; the slow run has all of them."""
    assert not jax_disagreements(framework, in_jax(framework, FORMULAS)[::14])


@pytest.mark.slow
@pytest.mark.parametrize("framework", ("torch", "tensorflow"))
def test_all_jax_programs_under_another_convention(framework: str) -> None:
    """The other way round, on all formulas, programs and networks."""
    assert not jax_disagreements(framework, in_jax(framework, CASES))


@pytest.mark.parametrize("case", FORMULAS, ids=lambda case: case.name)
def test_a_torch_program_under_its_own_convention(case: Formula) -> None:
    """`torch` on a torch program is torch's own reverse mode."""
    fw = adapter("torch")
    points = zip(names_of(case), case.points, strict=True)
    own = {name: fw.numpy(fw.gradient(partial(case.function, fw), fw.array(point))) for name, point in points}
    assert not disagreements(fw, case, "torch", own)


@each_framework
def test_the_formulas_tell_conventions_apart(framework: str) -> None:
    """On a good part of the formulas torch's own gradient is another one, so that the comparison can fail."""
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    fw, theirs = adapter("torch"), gradients_of(framework)
    apart = [c.name for c in FORMULAS if offered(framework, c) and disagreements(fw, c, "torch", theirs)]
    assert len(apart) > 20, apart


def test_the_comparison_sees_a_changed_number() -> None:
    """One entry, changed by a thousandth or made nan, is found."""
    case = next(c for c in FORMULAS if c.name == "norm of rows")
    fw = adapter("torch")
    names, points = names_of(case), case.points
    own = {
        n: fw.numpy(fw.gradient(partial(case.function, fw), fw.array(p))) for n, p in zip(names, points, strict=True)
    }
    assert not disagreements(fw, case, "torch", own)
    for change in (1e-3, float("nan")):
        changed = {**own, names[1]: own[names[1]] + change}
        assert len(disagreements(fw, case, "torch", changed)) == 1


@pytest.mark.parametrize("framework", ("torch", "jax"))
def test_adapters_have_what_the_formulas_need(framework: str) -> None:
    """Only what is listed as missing is missing."""
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    assert not [name for name in MISSING[framework] if hasattr(adapter(framework), name)]


def test_the_formulas_meet_the_dictionary() -> None:
    """Every record with kinks is met, but for those of torch alone and bases of eigenspaces, for which no table has a rule."""
    met = set()
    for case in CASES:
        fw = adapter("torch")
        for point in case.points[:1]:
            program = ns.capture(partial(case.function, fw), fw.array(point))
            met |= {step.operation.name for step in program.nonsmooth}
    unmet = {name for name, record in OPERATIONS.items() if isinstance(record, Nonsmooth)} - met
    assert unmet <= {"logit_clamped", "dist", "norm", "pdist", "eigvalsh", "svdvals"}, unmet
    assert len(KINDS) > 20
