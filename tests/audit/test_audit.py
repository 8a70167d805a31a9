"""Audits of programs whose every figure is known in closed form."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math

import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import PointError, ResultError, UsageError


def identity(t: torch.Tensor) -> torch.Tensor:
    return torch.relu(t) - torch.relu(-t)


def shifted(t: torch.Tensor) -> torch.Tensor:
    return torch.relu(t) - torch.relu(-t) + t


def conventions(audit: ns.Audit) -> dict[str, float | None]:
    return {c.convention: c.total.relative for c in audit.conventions}


def test_the_sum_of_two_relus_under_every_convention() -> None:
    audit = ns.audit(shifted, torch.tensor(0.0))
    assert audit.value == 0.0 and audit.gradient_norm == 1.0 and audit.bad_entries == 0
    assert conventions(audit) == {
        "torch (framework)": 0.0,
        "jax": 0.0,
        "tensorflow": 0.0,
        "0.0": 0.0,
        "1.0": 2.0,
        "0.5": 1.0,
        "minimum-norm": 0.0,
    }
    assert [c.parameters["x"].relative for c in audit.conventions] == list(conventions(audit).values())


def test_each_group_of_kinks_is_weighed_alone() -> None:
    audit = ns.audit(lambda t: 3 * torch.relu(t) - 2 * torch.abs(t) + t, torch.tensor(0.0))
    assert {e.operation: (e.total.absolute, e.total.relative) for e in audit.effects} == {
        "relu": (3.0, 3.0),
        "abs": (4.0, 4.0),
    }
    assert [e.operation for e in audit.effects] == ["abs", "relu"]
    assert {e.weights for e in audit.effects} == {("0", "1")}
    assert audit.moved_most["x"][0] == audit.effects[0].group


def test_a_gradient_of_norm_zero_is_said_so() -> None:
    audit = ns.audit(identity, torch.tensor(0.0))
    change = audit.conventions[4].total
    assert (change.absolute, change.relative, change.note) == (2.0, None, "the framework's gradient is 0 here")
    assert "abs 2" in str(audit)
    assert "2, absolutely (the framework's gradient is 0 here)" in change.phrase()


def test_the_difference_per_parameter() -> None:
    point = {"w": torch.tensor([2.0, 0.0]), "b": torch.tensor([0.0, 1.0])}
    audit = ns.audit(lambda p: (p["w"] * torch.relu(p["b"])).sum(), point)
    ones = next(c for c in audit.conventions if c.convention == "1.0")
    assert ones.parameters["w"].relative == 0.0
    assert ones.parameters["b"].absolute == 2.0 and ones.parameters["b"].relative is None
    assert ones.total.relative == 2.0
    assert audit.effects[0].moves_most == "b" and audit.moved_most["b"][0] == audit.effects[0].group


@pytest.mark.parametrize(
    ("f", "point", "kind", "absolute"),
    [
        (lambda x: x[1] + torch.nn.functional.max_pool1d(x[None], 2).sum(), [1.0, 1.0], "order", math.sqrt(2)),
        (lambda x: x[0] + x.max(), [1.0, 1.0], "order", math.sqrt(2)),
        (lambda x: x[0] + x.sort().values[0], [1.0, 1.0], "order", math.sqrt(2)),
        (lambda x: x[0] + torch.linalg.vector_norm(x), [0.0, 0.0], "cone", 1.0),
        (lambda x: x[0] + torch.linalg.vector_norm(x, 3), [0.0, 0.0], "cone", 1.0),
        (lambda x: x[0] + torch.linalg.vector_norm(x, 1), [0.0, 1.0], "cone", 2.0),
        (lambda x: x[0] + torch.where(x > 0, 3 * x, x).sum(), [0.0, 1.0], "switch", 2.0),
    ],
)
def test_the_ends_of_the_weights_of_every_kind(f: object, point: list[float], kind: str, absolute: float) -> None:
    audit = ns.audit(f, torch.tensor(point))
    (effect,) = audit.effects
    assert next(r.kind for r in audit.kinks if r.step == effect.step) == kind
    assert effect.total.absolute == pytest.approx(absolute, rel=1e-6)


def test_groups_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("nonsmooth.audit.effects"), "GROUPS", 2)

    def many(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x[:1]).sum() + torch.relu(x[:2]).sum() + torch.abs(x).sum()

    audit = ns.audit(many, torch.zeros(3))
    assert len(audit.effects) == 2 and "1 of 3 groups" in audit.effects_note
    assert {e.operation for e in audit.effects} == {"relu", "abs"}
    assert audit.effects_note in " ".join(str(audit).split())


def test_kinks_by_step_line_and_module() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = torch.nn.Linear(2, 4), torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.act(self.linear(x))
            return torch.abs(hidden - 1).sum() + torch.abs(hidden - 2).sum()

    net = Net()
    torch.nn.init.zeros_(net.linear.weight)
    torch.nn.init.zeros_(net.linear.bias)
    f, x = ns.objective(net, lambda out, target: out)
    audit = ns.audit(f, x, torch.ones(3, 2), torch.zeros(1))
    relu, one, two = audit.kinks
    assert (relu.label, relu.module, relu.active, relu.elements, relu.share) == ("act · relu", "act", 12, 12, 1.0)
    assert (one.active, one.margin, two.margin) == (0, 1.0, 2.0)
    assert set(one.quantiles.values()) == {1.0} and sum(one.histogram) == 12 and sum(relu.histogram) == 0
    assert one.label != two.label
    assert [(m.name, m.steps, m.active) for m in audit.modules] == [("act", 1, 12), ("model", 2, 0)]
    assert [(line.steps, line.active, line.elements) for line in audit.lines] == [(1, 12, 12), (2, 0, 24)]
    assert audit.lines[0].text == "hidden = self.act(self.linear(x))"
    assert audit.moved_most["linear.bias"][0] == "act · relu"


def test_ties_of_dead_entries_are_harmless() -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool1d(torch.relu(x)[None], 2).sum() + x.sum()

    audit = ns.audit(pooled, torch.tensor([-1.0, -2.0, 3.0, 3.0]))
    pool = next(row for row in audit.kinks if row.kind == "order")
    assert (pool.active, pool.harmless, pool.tied) == (1, 1, 1.0)


def test_tol_counts_what_is_near() -> None:
    point = torch.tensor([0.05, -0.02, 0.5])
    assert [ns.audit(lambda x: torch.relu(x).sum(), point, tol=t).kinks[0].active for t in (0.0, 0.03, 0.1)] == [
        0,
        1,
        2,
    ]
    with pytest.raises(UsageError, match="tol"):
        ns.audit(lambda x: torch.relu(x).sum(), point, tol=-1.0)


def test_the_summary_of_the_program_and_of_its_proof() -> None:
    audit = ns.audit(lambda x: torch.relu(x).exp().sum(), torch.tensor([0.0, 1.0]))
    assert (audit.program.steps, audit.program.nonsmooth) == (3, 1)
    assert audit.program.kinds == {"affine": 1, "smooth": 1, "switch": 1}
    assert audit.program.parameters == {"x": 2}
    assert audit.program.value_error == 0.0 and audit.program.status == "sampled"
    assert audit.program.compared == "values and native gradients at the point and 1 random nearby point(s)"
    assert next((o.operation, o.kind, o.steps, o.kinks) for o in audit.operations) == ("relu", "switch", 1, ("0",))


def test_costs_are_measured_against_one_gradient() -> None:
    audit = ns.audit(shifted, torch.tensor(0.0))
    assert [c.what for c in audit.costs][:3] == [
        "one gradient by torch's own rules",
        "capture, with its proof",
        "kinks",
    ]
    assert all(c.seconds > 0 and c.status == "measured" for c in audit.costs)
    assert all(c.ratio == pytest.approx(c.seconds / audit.costs[0].seconds) for c in audit.costs)
    program = ns.capture(shifted, torch.tensor(0.0))
    assert not any("capture" in c.what for c in ns.audit(program, torch.tensor(0.0)).costs)


def test_a_smooth_function_has_nothing_to_report() -> None:
    audit = ns.audit(lambda x: (x * x).sum(), torch.tensor([1.0, 2.0]))
    assert audit.kinks == audit.effects == audit.findings == audit.branches == ()
    assert "active elements: none" in str(audit) and "findings: 0" in str(audit)


def test_nothing_that_is_passed_in_changes() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    net[0].weight.grad = torch.full_like(net[0].weight, 7.0)
    f, x = ns.objective(net, torch.nn.functional.mse_loss)
    data = torch.randn(5, 3), torch.randn(5, 1)
    before = {k: v.clone() for k, v in net.state_dict().items()}, [d.clone() for d in data], torch.get_rng_state()
    ns.audit(f, x, *data)
    assert all(torch.equal(v, before[0][k]) for k, v in net.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(data, before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2]) and net.training
    assert torch.equal(net[0].weight.grad, torch.full_like(net[0].weight, 7.0)) and net[3].weight.grad is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(ResultError, match="scalar"):
        ns.audit(torch.relu, torch.zeros(2))
    with pytest.raises(PointError, match="nan"):
        ns.audit(shifted, torch.tensor(float("nan")))


def test_progress_is_reported() -> None:
    seen: list[str] = []
    ns.audit(shifted, torch.tensor(0.0), progress=lambda doing, done, total: seen.append(doing))
    assert seen[0] == "capture" and any("gradient under jax" in s for s in seen) and any("relu" in s for s in seen)


def test_the_audit_is_frozen_and_plain() -> None:
    audit = ns.audit(shifted, torch.tensor(0.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        audit.value = 1.0  # type: ignore[misc]
    data = json.loads(audit.to_json())
    assert data["format_version"] == 1 and data["conventions"][4]["total"]["relative"] == 2.0
    assert set(data) == {f.name for f in dataclasses.fields(audit)}


def test_every_statement_has_its_status() -> None:
    audit = ns.audit(shifted, torch.tensor(0.0))
    parts = (
        *audit.kinks,
        *audit.lines,
        *audit.modules,
        *audit.conventions,
        *audit.effects,
        *audit.findings,
        *audit.costs,
    )
    assert {part.status for part in parts} == {"computed", "measured"} and audit.program.status == "sampled"
    assert repr(audit) == "<Audit of 'shifted': 2 active element(s), 2 finding(s)>"


def test_branches_beyond_the_limit_are_told() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        for k in range(4):
            total = total + (x[k] if x[k] > 0 else 2 * x[k])
        return total

    audit = ns.audit(f, torch.zeros(4), sets=False)
    assert audit.branches[-1].status == "undecided" and len(audit.branches) == 8
    assert audit.branches[-1].note == ("more than 8 branches are active where `if`s tie; the others were not compared")
    assert any(finding.message == audit.branches[-1].note for finding in audit.find("guard"))
