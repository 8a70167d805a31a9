"""The proof of capture, tested by planting errors: every step, constant and grad mode that is wrong is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.errors import ProofFailed
from nonsmooth.frameworks.torch.proof import Native, prove
from nonsmooth.frameworks.torch.tree import RandomState
from nonsmooth.program import Program, Ref, Step


def formulas(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x) * torch.tensor([1.0, -2.0, 3.0])
    with torch.no_grad():
        scale = y.abs().sum()
    z = torch.relu(y + 0.3) @ x * scale
    return z + torch.where(x > 0, x.exp(), x.sin()).sum() + x.max() * x.detach()[0]


def network(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return MODEL(x.repeat(4, 1) * torch.arange(1.0, 5.0)[:, None]).pow(2).mean()


with torch.random.fork_rng():
    torch.manual_seed(0)
    MODEL = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2), nn.LayerNorm(2))
X = torch.tensor([0.3, -0.7, 1.1])


def scaled(step: Step) -> Callable[..., Any]:
    """Make the target of a step wrong by one part in a hundred."""

    def target(*args: Any, **kwargs: Any) -> Any:
        out = step.target(*args, **kwargs)
        return out * 1.01 if step.single else (out[0] * 1.01, *out[1:])

    return target


def without_gradient(step: Step) -> Callable[..., Any]:
    """Keep the value of a step and lose its gradient."""

    def target(*args: Any, **kwargs: Any) -> Any:
        out = step.target(*args, **kwargs)
        return out.detach() if step.single else (out[0].detach(), *out[1:])

    return target


def reaches(program: Program) -> set[int]:
    """Find the values that the result depends on."""
    wanted = {program.result.value}
    for step in reversed(program.steps):
        if wanted.intersection(v for v in step.results if v is not None):
            wanted.update(r.value for r in (*step.args, *step.kwargs.values()) if isinstance(r, Ref))
    return wanted


def wrong(program: Program) -> Iterator[tuple[str, Program]]:
    """Plant one error after the other."""
    used = reaches(program)
    for k, step in enumerate(program.steps):
        value = step.results[0] if step.results else None
        if value not in used or not program.values[value].dtype.startswith("float") or step.mutates:
            continue

        def planted(other: Step, k: int = k) -> Program:
            return replace(program, steps=(*program.steps[:k], other, *program.steps[k + 1 :]))

        if "norm" not in str(program.producer.get(value)):
            yield f"{step}: value", planted(replace(step, target=scaled(step)))
        if program.values[value].differentiable:
            yield f"{step}: gradient", planted(replace(step, target=without_gradient(step)))
    for number, constant in program.constants.items():
        if number in used and constant.is_floating_point() and number not in program.rewritten:
            yield (
                f"constant {number}",
                replace(program, constants={**program.constants, number: constant * 1.01 + 0.01}),
            )


def native(program: Program) -> Native:
    """Take the function of a program."""
    return Native(program.function, RandomState(), [], [program.constants[n] for n in program.rewritten])


def test_every_planted_error_is_found() -> None:
    program = ns.capture(formulas, X)
    assert prove(program, native(program), X, ()).status == "sampled"
    planted = list(wrong(program))
    assert len(planted) > 20
    for what, other in planted:
        with pytest.raises(ProofFailed, match="does not reproduce"):
            prove(other, native(program), X, ())
            pytest.fail(f"not found: {what}")


def test_grad_modes_count() -> None:
    """A program that forgets no_grad has the right value and the wrong gradient."""
    program = ns.capture(formulas, X)
    forgetful = replace(program, steps=tuple(replace(s, mode=replace(s.mode, grad=True)) for s in program.steps))
    with pytest.raises(ProofFailed, match="native gradients"):
        prove(forgetful, native(program), X, ())


def test_a_lost_layer_of_a_network_is_found() -> None:
    f, x = ns.objective(MODEL, lambda out, y: (out[:, 0] - y).pow(2).mean())
    data = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.ones(6)
    program = ns.capture(f, x, *data)
    lost = [k for k, s in enumerate(program.steps) if s.operation.name in ("linear", "layer_norm", "batch_norm")]
    assert len(lost) == 4
    for k in lost:
        step = program.steps[k]
        other = replace(step, target=without_gradient(step))
        with pytest.raises(ProofFailed, match="gradients"):
            prove(
                replace(program, steps=(*program.steps[:k], other, *program.steps[k + 1 :])), native(program), x, data
            )


def test_what_is_right_passes_at_kinks_and_off_them() -> None:
    """Rounding noise in a gradient that is zero does not fail the proof (a bias before batch norm)."""
    f, x = ns.objective(MODEL, lambda out, y: nn.functional.smooth_l1_loss(out[:, 0], y, beta=0.0))
    program = ns.capture(f, x, torch.zeros(6, 3), torch.zeros(6))
    assert program.proof is not None and program.proof.gradient_error <= program.proof.tolerance


def test_the_status_says_how_far_the_proof_went() -> None:
    """Without a nearby point on the same piece it is `computed`; a function need not be defined nearby."""
    assert ns.capture(lambda x: x.sum() * x.sum().item(), X).proof.status == "computed"  # type: ignore[union-attr]
    assert ns.capture(lambda x: x.relu().sum(), X).proof.status == "sampled"  # type: ignore[union-attr]

    def only_positive(x: torch.Tensor) -> torch.Tensor:
        if not (x >= 0).all():
            raise ValueError("outside the domain")
        return torch.linalg.cholesky(torch.diag(x)).sum()

    proof = ns.capture(only_positive, torch.tensor([1e-3, 2.0])).proof
    assert proof is not None and proof.nearby == 1
