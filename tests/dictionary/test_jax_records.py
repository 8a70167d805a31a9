"""Every record with kinks on JAX's arrays, eagerly and compiled, in single and double precision: the same as on torch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import array_api_compat.torch as xp
import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.dictionary import OPERATIONS, Along, Call, Kind, Nonsmooth
from tests.dictionary.test_records import EXAMPLES, read

CASES = [(name, number) for name, examples in EXAMPLES.items() for number in range(len(examples))]


def to_jax(value: Any) -> Any:
    """Give a torch tensor to JAX, and leave what is no tensor."""
    return jnp.asarray(value.detach().numpy()) if isinstance(value, torch.Tensor) else value


def call_at(name: str, number: int, dtype: torch.dtype, moved: bool) -> Call:
    """Give the call of an operation at its kinked point (or beside it) as the program makes it, in a precision."""
    f, point = EXAMPLES[name][number]
    shift = (
        torch.randn(point.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64) if moved else 0
    )
    program = ns.capture(read(f), point + shift)
    evaluation = program.framework.evaluate(program, point + shift, (), observe=True)
    (step,) = program.nonsmooth
    call = next(c.call for c in evaluation.calls if c.step is evaluation.program.steps[step.index])

    def narrow(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or dtype is torch.float64:
            return value.detach() if isinstance(value, torch.Tensor) else value
        return value.detach().to(
            {torch.float64: dtype, torch.complex128: torch.complex64}.get(value.dtype, value.dtype)
        )

    attributes = {k: narrow(v) for k, v in call.attributes.items() if k not in ("dead", "motion", "motions")}
    if name == "where":
        attributes |= {"motion": None, "along": attributes["right"]}
    return Call(xp, tuple(map(narrow, call.operands)), attributes, narrow(call.result))


def tangents_of(call: Call, seed: int) -> tuple[torch.Tensor, ...]:
    """Draw tangents of the operands; a predicate has none, and keeps its place."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(u.shape, generator=generator, dtype=torch.float64).to(u.dtype)
        if u.is_floating_point() or u.is_complex()
        else u
        for u in call.operands
    )


def rules_of(record: Nonsmooth, call: Call) -> list[dict[str, Any]]:
    """List selections that every kind knows; `Along` is made by the one that uses it."""
    words = {Kind.ORDER: ["even", "first", "last"], Kind.SPECTRAL: ["even"]}
    if record.kind is Kind.CONE:
        return [
            {"zero vector": "zero", "zero entry": 0.5, "tie": "even"},
            {"zero vector": 0.0, "zero entry": 1.0, "tie": "first"},
        ]
    return [dict.fromkeys(record.kinks, w) for w in words.get(record.kind, [0.0, 0.5, 1.0])]


def asked(record: Nonsmooth, name: str, call: Call, tangents: Any, directions: Any) -> dict[str, Any]:
    """Ask a record everything that an evaluation asks it."""
    found: dict[str, Any] = {
        "margins": record.margins(call),
        "active": record.active(call),
        "near": record.active(call, 0.1),
    }
    for number, rules in enumerate(rules_of(record, call)):
        found[f"push {number}"] = record.push(call, rules, tangents)
        if not (name == "where" or record.kind is Kind.SPECTRAL):
            found[f"push {number}, near"] = record.push(call, rules, tangents, 0.1)
        found[f"arguments {number}"] = record.arguments_along(call, rules, tangents)
    for count in (1, 2):
        along = dict.fromkeys(record.kinks, Along(tuple(directions[:count])))
        found[f"push along {count}"] = record.push(call, along, tangents)
        found[f"arguments along {count}"] = record.arguments_along(call, along, tangents)
        if isinstance(record, ns.Switch):
            found[f"partials along {count}"] = list(record.partials(call, along))
    if isinstance(record, ns.Switch):
        found["dead"] = record.dead(call)
    return found


def check(expected: Any, found: Any, tolerance: float, where: str) -> None:
    """Compare nested results, entry by entry."""
    if isinstance(expected, Mapping):
        assert set(expected) == set(found), where
        for key in expected:
            check(expected[key], found[key], tolerance, f"{where}, {key}")
    elif isinstance(expected, list):
        for number, (a, b) in enumerate(zip(expected, found, strict=True)):
            check(a, b, tolerance, f"{where}, {number}")
    elif isinstance(expected, torch.Tensor):
        array = np.asarray(found)
        assert array.shape == tuple(expected.shape) and str(expected.dtype) == f"torch.{array.dtype}", where
        np.testing.assert_allclose(array, expected.numpy(), rtol=tolerance, atol=tolerance, err_msg=where)
    else:
        assert expected is None or np.allclose(expected, np.asarray(found), rtol=tolerance, atol=tolerance), where


def compare(name: str, number: int, precision: str, eagerly: bool) -> None:
    """Ask the record of one call on torch's arrays and on JAX's, at the kink and beside it."""
    record, dtype = OPERATIONS[name], getattr(torch, precision)
    assert isinstance(record, Nonsmooth)
    tolerance = 2e-5 if precision == "float32" else 1e-11
    compiled: Callable[..., Any] | None = None
    for moved in (False, True):
        call = call_at(name, number, dtype, moved)
        tangents, directions = tangents_of(call, 0), [tangents_of(call, 1), tangents_of(call, 2)]
        expected = asked(record, name, call, tangents, directions)
        with jax.enable_x64(precision == "float64"):
            arrays = {k: to_jax(v) for k, v in call.attributes.items() if isinstance(v, torch.Tensor)}
            plain = {k: v for k, v in call.attributes.items() if k not in arrays}
            given = jax.tree.map(to_jax, (call.operands, call.result, tangents, directions))

            def answers(arrays: Any, given: Any, plain: Any = plain) -> dict[str, Any]:
                operands, result, tangents, directions = given
                return asked(record, name, Call(jnp, operands, {**plain, **arrays}, result), tangents, directions)

            if eagerly:
                check(expected, answers(arrays, given), tolerance, "eagerly")
            compiled = compiled or jax.jit(answers)
            check(expected, compiled(arrays, given), tolerance, "compiled")
            check_cut(record, call, Call(jnp, given[0], {**plain, **arrays}, given[1]), tangents, given[2], tolerance)


@pytest.mark.parametrize("name", EXAMPLES)
def test_records_on_jax_are_those_on_torch(name: str) -> None:
    compare(name, 0, "float32", eagerly=False)


@pytest.mark.parametrize("name", ["relu", "where", "sort", "max_pool", "vector_norm", "svdvals"])
def test_records_in_double_precision(name: str) -> None:
    compare(name, 0, "float64", eagerly=name == "relu")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_all_records_eagerly_too(name: str, number: int, precision: str) -> None:
    compare(name, number, precision, eagerly=True)


def check_cut(record: Nonsmooth, call: Call, other: Call, tangents: Any, others: Any, tolerance: float) -> None:
    """Compare the cuts: the rules, and block by block the places, the jumps and what orients them."""
    (rules, blocks), (own, found) = record.cut(call), record.cut(other)
    assert rules == own and len(blocks) == len(found)
    if record.kind is Kind.SPECTRAL:  # bases of an eigenspace differ
        return
    for a, b in zip(blocks, found, strict=True):
        assert a.kink == b.kink and a.weights.key == b.weights.key and np.array_equal(a.places, b.places)
        check(a.jumps(tangents), b.jumps(others), tolerance, "jumps")
        for part in ("orientation", "values", "empty", "blind", "own"):
            if getattr(a, part) is not None:
                assert np.allclose(getattr(a, part), getattr(b, part), atol=tolerance), part


def test_a_record_that_asks_a_tracer_for_its_truth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OPERATIONS["relu"]
    assert isinstance(right, ns.Switch)

    def pieces(call: Call) -> Any:
        return ((0.0,), (1.0,)) if bool((call.operands[0] > -9).any()) else ((0.0,), (2.0,))

    monkeypatch.setitem(OPERATIONS, "relu", replace(right, pieces=pieces))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        compare("relu", 0, "float32", eagerly=False)
