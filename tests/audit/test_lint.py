"""Every rule of the lint finds what it is for, names the line, says what to do, and keeps silent otherwise."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.audit.result import LintFinding


def found(f: Callable[..., Any], point: list[float], rule: str, *data: Any) -> tuple[LintFinding, ...]:
    return ns.audit(f, torch.tensor(point), *data).find(rule)


def line(finding: LintFinding) -> str:
    assert finding.source is not None and finding.source.file == __file__
    assert linecache.getline(__file__, finding.source.line).strip() == finding.source.text
    return finding.source.text


def masked_sqrt(x: torch.Tensor) -> torch.Tensor:
    safe = torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))
    return safe.sum()


def test_masked_sqrt_is_singular_and_its_gradient_is_nan() -> None:
    audit = ns.audit(masked_sqrt, torch.tensor([0.0, 4.0]))
    (singular,), (bad,) = audit.find("singular"), audit.find("nan")
    assert "1 of 2 element(s)" in singular.message and "`where`" in singular.message
    assert "torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1)), 0)" in singular.fix
    assert line(singular) == line(bad) == "safe = torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))"
    assert "torch (framework) (1 entries)" in bad.message and "finite" in bad.message and "0.0" in bad.message
    assert audit.bad_entries == 1 and audit.conventions[0].note == "the framework's gradient holds nan or inf here"
    assert "nan/inf" in str(audit)


def test_the_fix_of_masked_sqrt_works() -> None:
    def mended(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1)), 0).sum()

    audit = ns.audit(mended, torch.tensor([0.0, 4.0]))
    assert audit.find("singular") == audit.find("nan") == () and audit.gradient_norm == 0.25


@pytest.mark.parametrize(
    ("f", "fix"),
    [
        (lambda x: torch.sqrt(x).sum(), "torch.sqrt(x + eps)"),
        (lambda x: torch.where(x != 0, 1 / x, x).sum(), "inner where"),
        (
            lambda x: torch.where(x > 0, torch.log(x), x).sum(),
            "torch.where(x > 0, torch.log(torch.where(x > 0, x, 1)), 0)",
        ),
        (lambda x: torch.where(x > 0, torch.log1p(x - 1), x).sum(), "x > -1"),
        (lambda x: torch.nn.functional.binary_cross_entropy(x, torch.zeros(1)), "with_logits"),
        (lambda x: torch.acos(x + 1).sum(), "clamp"),
    ],
)
def test_singular_operations_and_their_fixes(f: Callable[..., Any], fix: str) -> None:
    (finding,) = found(f, [0.0], "singular")
    assert fix in finding.fix


def test_a_jump() -> None:
    def rounded(x: torch.Tensor) -> torch.Tensor:
        steps = torch.floor(x)
        return (steps * x).sum()

    (finding,) = found(rounded, [1.0, 1.5], "jump")
    assert line(finding) == "steps = torch.floor(x)" and "1 of 2 element(s)" in finding.message
    assert found(rounded, [1.2, 1.5], "jump") == ()
    (finding,) = found(lambda x: (torch.sign(x) * x).sum(), [0.0], "jump")
    assert "torch.abs(x)" in finding.fix


def test_a_where_that_does_not_join_is_a_jump() -> None:
    (finding,) = found(lambda x: torch.where(x > 0, x + 1, x).sum(), [0.0, 1.0], "jump")
    assert "branches do not join" in finding.message and "1 of 2" in finding.message
    assert found(lambda x: torch.where(x > 0, 2 * x, x).sum(), [0.0, 1.0], "jump") == ()


def test_values_that_escape() -> None:
    def escaping(x: torch.Tensor) -> torch.Tensor:
        scale = x.sum().item()
        return (x * scale).sum()

    (finding,) = found(escaping, [1.0, 2.0], "escaped")
    assert line(finding) == "scale = x.sum().item()" and ".item()" in finding.message and ".item()" in finding.fix
    (finding,) = found(lambda x: x.sum() * x.tolist()[0], [1.0, 2.0], "escaped")
    assert "tolist" in finding.message
    (finding,) = found(lambda x: x.sum() * float(np.sum(x.detach().numpy())), [1.0, 2.0], "escaped")
    assert "numpy" in finding.message
    (finding,) = found(lambda x, y: x.sum() * y.sum().item(), [1.0, 2.0], "escaped", torch.ones(2))
    assert "of the data" in finding.message and "data" in finding.fix


def test_detach() -> None:
    def detached(x: torch.Tensor) -> torch.Tensor:
        weight = torch.softmax(x, 0).detach()
        return (weight * x).sum()

    (finding,) = found(detached, [1.0, 2.0], "detach")
    assert line(finding) == "weight = torch.softmax(x, 0).detach()" and "straight-through" not in finding.message


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x + (torch.round(x) - x).detach()).sum(),
        lambda x: ((torch.round(x) - x).detach() + x).sum(),
        lambda x: (torch.round(x).detach() + (x - x.detach())).sum(),
    ],
)
def test_straight_through_is_recognised(f: Callable[..., Any]) -> None:
    assert any("straight-through" in finding.message for finding in found(f, [1.2, 2.2], "detach"))


def test_detached_values_that_do_not_reach_the_result_are_left_alone() -> None:
    seen: list[torch.Tensor] = []

    def logging(x: torch.Tensor) -> torch.Tensor:
        seen.append((x * 2).detach() + 1)
        return torch.where(x.detach() > 0, x * x, x).sum()

    assert found(logging, [1.0, 2.0], "detach") == ()
    assert found(lambda x, y: (x * y.detach()).sum(), [1.0, 2.0], "detach", torch.ones(2)) == ()


def test_no_grad() -> None:
    def frozen(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean = x.exp().mean()
            unused = x.sum()
        del unused
        return (x - mean).pow(2).sum()

    (finding,) = found(frozen, [1.0, 2.0], "no-grad")
    assert line(finding) == "mean = x.exp().mean()" and "`exp`" in finding.message


def test_an_opaque_function() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return 2 * ctx.saved_tensors[0] * gradient

    (finding,) = found(lambda x: Square.apply(x).sum(), [1.0, 2.0], "opaque")
    assert "Square" in finding.message


def test_a_guard_that_ties_with_the_same_value() -> None:
    def clipped(x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return 3 * x.sum()
        return x.sum()

    audit = ns.audit(clipped, torch.tensor([1.0, -1.0]))
    (branch,) = audit.branches
    assert branch.joins and branch.value_gap == 0.0 and branch.total is not None and branch.total.relative == 2.0
    (finding,) = audit.find("guard")
    assert line(finding) == "if x.sum() > 0:" and "200.0 %" in finding.message
    assert audit.find("jump") == ()
    assert "Other branches" in str(audit)
    assert ns.audit(clipped, torch.tensor([1.0, 1.0])).branches == ()


def test_a_guard_that_ties_with_another_value_is_a_jump() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return x.sum() + 1 if x.sum() > 0 else x.sum()

    audit = ns.audit(broken, torch.tensor([1.0, -1.0]))
    (branch,), (finding,) = audit.branches, audit.find("jump")
    assert branch.joins is False and branch.value_gap == 1.0 and "jump by 1" in finding.message


def test_a_branch_that_fails_is_undecided() -> None:
    def failing(x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            raise ValueError("this branch is broken")
        return x.sum()

    audit = ns.audit(failing, torch.tensor([1.0, -1.0]))
    (branch,), (finding,) = audit.branches, audit.find("guard")
    assert branch.status == finding.status == "undecided" and "this branch is broken" in finding.message
    assert branch.total is None and "undecided" in str(audit)


def test_a_guard_on_data_alone_is_no_kink() -> None:
    def masked(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum() if y.sum() > 0 else 2 * x.sum()

    audit = ns.audit(masked, torch.tensor([1.0, 2.0]), torch.tensor([0.0]))
    assert audit.kinks == audit.branches == ()


def test_kinks_that_move_the_gradient_name_their_cause() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    torch.nn.init.zeros_(net[0].bias)
    for layer in (net[0], net[2]):
        torch.nn.init.eye_(layer.weight)
    f, x = ns.objective(net, torch.nn.functional.mse_loss)
    inputs = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    (finding,) = ns.audit(f, x, inputs, torch.ones(2, 1)).find("kink")
    assert "4 of 6 elements (66.7 %) of `relu` in 1" in finding.message
    assert "0.bias is all zero" in finding.message and "of its norm" in finding.message
    assert finding.fix.startswith("give 0.bias a small random value")
    torch.nn.init.constant_(net[0].bias, 0.5)
    f, x = ns.objective(net, torch.nn.functional.mse_loss)
    assert ns.audit(f, x, inputs, torch.ones(2, 1)).find("kink") == ()


def test_kinks_that_do_not_matter_are_not_reported() -> None:
    assert found(lambda x: (torch.relu(x) * 0).sum() + x.sum(), [0.0, 1.0], "kink") == ()


def test_an_operation_that_a_table_does_not_have() -> None:
    findings = found(lambda x: x.cummax(0).values.sum(), [1.0, 1.0], "no-rule")
    assert [f.message.split()[3] for f in findings] == ["jax", "tensorflow"]
    assert "`cummax` (tie)" in findings[0].message and "at_kinks={'cummax': ...}" in findings[0].fix
    assert found(lambda x: torch.relu(x).sum(), [0.0], "no-rule") == ()


def test_kinks_that_act_only_together() -> None:
    """max picks the constant at the tie, and relu'(0) = 0: neither moves the gradient alone, both do."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(x), torch.relu(x)]).max(dim=0).values.sum() + x.sum()

    audit = ns.audit(f, torch.zeros(3))
    (finding,) = audit.find("joint")
    assert "1.0" in finding.message and "`relu`, `max_dim`" in finding.message and finding.source is not None
    assert "joint effect: 1.0 moves the gradient of x by 50.0 % of its norm" in str(audit)
    assert not audit.find("kink")
    alone = ns.audit(lambda x: torch.relu(x).sum() + x.sum(), torch.zeros(3))
    assert not alone.find("joint") and "joint effect" not in str(alone)
