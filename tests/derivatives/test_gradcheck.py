"""gradcheck: accepts every legitimate element, rejects what is wrong on an open set, at a kink, or in its cotangent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import nonsmooth as ns
from nonsmooth.errors import (
    CaptureError,
    ChangedInput,
    GradcheckError,
    NonsmoothError,
    PointError,
    RandomnessError,
    ResultError,
    UsageError,
)
from tests.programs.generator import random_program
from tests.shortened import shortened

DTYPE = torch.float64

Function = Callable[[torch.Tensor], Any]


def point(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=DTYPE)


def tried(f: Any, x: Any, *data: Any, **options: Any) -> ns.Gradcheck:
    return ns.gradcheck(f, x, *data, **{"samples": 1, "raise_exception": False, **options})


def norm(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x)


# --- what must be accepted --------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Function] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "relu6": F.relu6,
    "clamp": lambda x: x.clamp(0.0, 1.0),
    "clamp below": lambda x: x.clamp(min=0.0),
    "hardtanh": F.hardtanh,
    "hardsigmoid": lambda x: F.hardsigmoid(x + 3),
    "softshrink": lambda x: F.softshrink(x, 1.0),
    "elu": lambda x: F.elu(x, 2.0),
    "maximum": lambda x: torch.maximum(x[:2], x[2:]),
    "minimum": lambda x: torch.minimum(x, torch.zeros_like(x)),
    "max": lambda x: x.max(),
    "min along an axis": lambda x: x.reshape(2, 2).min(1).values,
    "amax": lambda x: x.amax(),
    "sort": lambda x: x.sort().values,
    "topk": lambda x: x.topk(2).values,
    "median": lambda x: x.median(),
    "max_pool": lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2),
    "norm": norm,
    "norm 1": lambda x: x.norm(p=1),
    "where": lambda x: torch.where(x > 0, x, 0.5 * x),
    "where and square": lambda x: torch.where(x * x > 0, x * x, torch.zeros_like(x)),
    "if": lambda x: x[0] if x[0] > x[3] else x[3],
    "max of Python": lambda x: max(x[0], x[1]) + abs(x[2]),
    "nuclear norm": lambda x: torch.linalg.matrix_norm(x.reshape(2, 2), "nuc"),
    "identity by relu": lambda x: torch.relu(x) - torch.relu(-x),
    "softplus": lambda x: x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())),
    "sine": torch.sin,
    "logarithm": lambda x: torch.log(3 + x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_torchs_own_derivative_is_accepted(name: str) -> None:
    result = tried(OPERATIONS[name], point(0, 1, 1, -2))
    assert result, result.message
    assert not result.notes and any(c.outcome == "passed" for c in result.checks)


@pytest.mark.parametrize("name", ["relu", "max", "sort", "max_pool", "norm"])
def test_torchs_own_derivative_is_accepted_at_the_origin(name: str) -> None:
    assert (result := tried(OPERATIONS[name], point(0, 0, 0, 0))), result.message


@pytest.mark.parametrize("name", ["relu", "clamp", "sort", "max_pool", "norm", "sine"])
def test_single_precision_is_accepted(name: str) -> None:
    result = tried(OPERATIONS[name], point(0, 1, 1, -2).float())
    assert result, result.message


CONVENTIONS = ("minimum-norm", "random", 1.0)


WEIGHED = ("relu", "abs", "leaky_relu", "max", "norm", "clamp", "topk")

PAIRS = [(name, CONVENTIONS[(k + shift) % 3]) for shift in range(3) for k, name in enumerate(WEIGHED)]
"""Every operation under every convention: at every run some operations under one of them, the slow run has all 21."""


@pytest.mark.parametrize(("name", "convention"), shortened(PAIRS, len(WEIGHED)))
def test_every_convention_of_one_operation_is_accepted(name: str, convention: Any) -> None:
    f, x = (lambda x: OPERATIONS[name](x).sum()), point(0, 0)
    result = tried(f, x, derivative=ns.grad(f, at_kinks=convention))
    assert result, f"{convention}: {result.message}"


def test_artifacts_of_the_chain_rule_are_told_from_errors() -> None:
    def identity(t: torch.Tensor) -> torch.Tensor:
        return (torch.relu(t) - torch.relu(-t)).sum()

    own = tried(identity, point(0.0))
    assert own and any(c.rule == "hull" and "chain rule" in c.note for c in own.checks)
    two = ns.grad(identity, at_kinks=1.0)
    assert tried(identity, point(0.0), derivative=two).refuted
    assert tried(identity, point(0.0), derivative=two, hull=False)
    assert tried(identity, point(0.0), hull=True).refuted


RANDOM = range(6)


def accepted_random_program(seed: int) -> None:
    program = random_program(seed)
    result = tried(program.function(), program.x())
    nans = [c for c in result.failures if c.rule == "finite"]
    assert result or nans, f"{program}\n{result.message}"


@pytest.mark.parametrize("seed", shortened(RANDOM, 4))
def test_random_programs_are_accepted(seed: int) -> None:
    accepted_random_program(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_programs_are_accepted(block: int) -> None:
    for seed in range(1000 + 50 * block, 1050 + 50 * block):
        accepted_random_program(seed)


def test_it_passes_where_finite_differences_fail() -> None:
    x = point(0.0, 1.0).requires_grad_()
    assert not torch.autograd.gradcheck(lambda x: torch.relu(x).sum(), (x,), raise_exception=False)
    assert ns.gradcheck(lambda x: torch.relu(x).sum(), x.detach())


# --- what must be rejected --------------------------------------------------------------------------------------------


def custom(rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    """relu with a backward of its own, rule(x, incoming gradient)."""

    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return rule(ctx.saved_tensors[0], g)

    return Relu.apply


def slopes(right: float, at: float, left: float) -> Function:
    return custom(lambda x, g: g * torch.where(x > 0, right, torch.where(x == 0, at, left)))


@pytest.mark.parametrize("at", [0.0, 0.25, 1.0])
def test_a_right_backward_is_accepted(at: float) -> None:
    for x in (point(0.0), point(0, 1, -1), point(0.0, 2.0).float()):
        assert (result := tried(slopes(1.0, at, 0.0), x)), result.message


@pytest.mark.parametrize(
    ("right", "at", "left", "rule"),
    [
        (1.0, 17.0, 0.0, "hull"),
        (1.0, -0.01, 0.0, "hull"),
        (1.0, 1.01, 0.0, "hull"),
        (0.9, 0.5, 0.0, "integral"),
        (-1.0, 0.0, 0.0, "integral"),
        (1.0, 0.0, 0.001, "integral"),
        (1.00001, 0.0, 0.0, "integral"),
        (float("nan"), 0.0, 0.0, "finite"),
        (float("inf"), 0.0, 0.0, "finite"),
    ],
)
def test_a_wrong_backward_is_rejected(right: float, at: float, left: float, rule: str) -> None:
    for x in (point(0.0), point(0, 1, -1)):
        result = tried(slopes(right, at, left), x)
        assert result.refuted and rule in {c.rule for c in result.failures}, str(result)


def test_a_value_outside_is_rejected_in_single_precision() -> None:
    assert tried(slopes(1.0, 17.0, 0.0), point(0, 1).float()).refuted


def test_a_wrong_value_is_found_at_a_kink_met_on_a_path() -> None:
    for x in (point(0.37), point(0.3, -0.7, 1.1)):
        assert tried(slopes(1.0, 17.0, 0.0), x).refuted


@pytest.mark.parametrize("alpha", [1.0, 0.5, -3.0])
def test_a_backward_that_drops_the_incoming_gradient_is_rejected(alpha: float) -> None:
    def backward(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        g = g.clone()
        g[x < 0] = 0
        g[x == 0] = alpha
        return g

    for f in (custom(backward), lambda x: custom(backward)(x).sum()):
        result = tried(f, point(0, 1, -1))
        (check, *_) = [c for c in result.failures if c.rule == "linear"]
        assert "not linear in its cotangent" in check.note


def test_torchs_own_backward_of_segment_reduce_is_rejected_at_ties() -> None:
    """torch 2.13 splits a positive incoming gradient between tied entries, and gives each the whole of a negative one."""
    f = lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([3]))  # noqa: E731
    assert {c.rule for c in tried(f, point(2, 2, 0)).failures} == {"linear"}
    assert "integral" in {c.rule for c in tried(lambda x: -f(x), point(2, 2, 0)).failures}


@pytest.mark.parametrize(
    "derivative",
    [
        lambda x: -torch.sign(x),
        lambda x: 1.1 * torch.sign(x),
        lambda x: torch.sign(x) + 17.0 * (x == 0),
        lambda x: torch.sign(x) + 1.5 * (x == 0),
        lambda x: torch.sign(x) + 0.01 * (x > 2),
        lambda x: torch.sign(x) * float("nan"),
        lambda x: torch.sign(x).flip(0),
    ],
)
def test_wrong_gradients_are_rejected(derivative: Function) -> None:
    f: Function = lambda x: x.abs().sum()  # noqa: E731
    assert tried(f, point(0, 1, -2), derivative=torch.sign)
    assert tried(f, point(0, 1, -2), derivative=derivative).refuted


def test_errors_that_cancel_on_the_whole_path_are_rejected() -> None:
    """Along every segment through 0 the wrong sign of an even function has the integral 0, as it should be."""
    result = tried(lambda x: x.abs().sum(), point(0.0), derivative=lambda x: -torch.sign(x))
    assert "segment through x" in {c.what for c in result.failures}


def test_what_is_cut_off_is_rejected() -> None:
    assert tried(lambda x: (x * x.detach()).sum(), point(1, 2)).refuted
    assert tried(lambda x: x.sum() + (x - x.detach()).abs().sum(), point(1, 2))


def test_a_function_that_jumps_is_rejected() -> None:
    result = tried(lambda x: torch.sign(x).sum(), point(0.3))
    assert result.refuted and {c.rule for c in result.failures} == {"integral"}


BROKEN_LINES = {
    "corners": st.lists(st.integers(-8, 8), min_size=1, max_size=4, unique=True),
    "kinks": st.lists(st.integers(-3, 3).filter(bool), min_size=4, max_size=4),
    "piece": st.integers(0, 4),
    "error": st.sampled_from([1e-4, -0.01, 0.5, -2.0, 30.0]),
}


@settings(max_examples=3, deadline=None)
@given(**BROKEN_LINES)
def test_a_wrong_slope_on_a_piece_is_always_rejected(
    corners: list[int], kinks: list[int], piece: int, error: float
) -> None:
    check_wrong_slope(corners, kinks, piece, error)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(**BROKEN_LINES)
def test_many_wrong_slopes_on_a_piece_are_rejected(
    corners: list[int], kinks: list[int], piece: int, error: float
) -> None:
    check_wrong_slope(corners, kinks, piece, error)


def check_wrong_slope(corners: list[int], kinks: list[int], piece: int, error: float) -> None:
    corners = sorted(corners)
    places, bends = torch.tensor(corners, dtype=DTYPE) / 8, torch.tensor(kinks[: len(corners)], dtype=DTYPE)
    ends = [-math.inf, *(c / 8 for c in corners), math.inf]
    low, high = ends[piece % len(corners)], ends[piece % len(corners) + 1]

    def f(t: torch.Tensor) -> torch.Tensor:
        return (bends * torch.relu(t - places)).sum()

    def right(t: torch.Tensor) -> torch.Tensor:
        return (bends * (t > places)).sum().reshape(1)

    x, wide = point(0.0), 16.0  # a segment of half length 2 or more
    assert (result := tried(f, x, derivative=right, radius=wide)), result.message
    assert tried(f, x, derivative=lambda t: right(t) + error * ((t > low) & (t < high)), radius=wide).refuted


@pytest.mark.parametrize("seed", shortened(range(5), 3))
def test_a_wrong_entry_of_random_programs_is_rejected(seed: int) -> None:
    program = random_program(seed)
    f, x, rng = program.function(), program.x(), random.Random(seed)
    place, error = rng.randrange(len(x)), rng.choice([1e-3, -0.1, 5.0])

    def derivative(z: torch.Tensor) -> torch.Tensor:
        z = z.detach().clone().requires_grad_()
        (g,) = torch.autograd.grad(f(z), z, allow_unused=True, materialize_grads=True)
        g = g.clone()
        g[place] += error
        return g

    assert tried(f, x, derivative=derivative).refuted


# --- sets of measure zero ---------------------------------------------------------------------------------------------


def on_segment(x: torch.Tensor) -> torch.Tensor:
    on = (x[1] == 1) & (x[0] >= 0) & (x[0] <= 1)
    return torch.where(on, torch.zeros_like(x), x / norm(x))


def on_segment_by_if(x: torch.Tensor) -> torch.Tensor:
    if x[1] == 1 and 0 <= x[0] <= 1:
        return torch.zeros_like(x)
    return x / norm(x)


def on_oblique_segment(x: torch.Tensor) -> torch.Tensor:
    return torch.where((x[0] + 2 * x[1] == 1) & (x[0].abs() <= 1), torch.zeros_like(x), x / norm(x))


def on_arc(x: torch.Tensor) -> torch.Tensor:
    if abs(float(norm(x.detach())) - 1) < 1e-15 and x[0] > 0:
        return torch.zeros_like(x)
    return x / norm(x)


@pytest.mark.parametrize(
    ("derivative", "x"),
    [
        (on_segment, (0.5, 1.0)),
        (on_segment, (0.5, 1.3)),
        (on_segment, (0.3, 0.9)),
        (on_segment_by_if, (0.5, 1.0)),
        (on_segment_by_if, (0.6, 1.3)),
        (on_oblique_segment, (0.5, 0.25)),
        (on_oblique_segment, (0.3, 0.4)),
    ],
)
def test_the_segment_is_found_in_the_program_of_the_derivative(derivative: Function, x: tuple[float, float]) -> None:
    result = tried(norm, point(*x), derivative=derivative, hull=False)
    assert any(c.what.startswith("inside the kink of `compare`") for c in result.failures), str(result)


def test_the_segment_is_found_along_a_given_path() -> None:
    x = point(-3.0, 2.5)
    opaque = lambda x: torch.as_tensor(on_segment(x.detach()).numpy())  # noqa: E731  what no capture reads
    assert tried(norm, x, derivative=opaque, hull=False)
    straight = [point(0, 1), point(1, 1)]
    for path in (straight, lambda t: point(t, 1), lambda t: np.array([t * t, 1.0])):
        (check, *_) = tried(norm, x, derivative=opaque, hull=False, paths=[path]).failures
        assert check.what == "given path 1" and abs(check.discrepancy - (math.sqrt(2) - 1)) < 1e-6


def test_the_arc_is_accepted_along_itself() -> None:
    arc = lambda t: point(math.cos(t), math.sin(t))  # noqa: E731
    result = tried(norm, point(0.6, 0.8), derivative=on_arc, hull=False, paths=[arc])
    assert result and result.checks[0].what == "given path 1" and result.checks[0].outcome == "passed"
    assert tried(norm, point(0.6, 0.8), derivative=on_arc).refuted, "0 is no subgradient of the norm there"


def test_ties_are_a_set_too() -> None:
    def derivative(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[0] == x[1], torch.zeros_like(x), torch.stack([x[0] >= x[1], x[0] < x[1]]).to(x))

    for x in (point(1, 1), point(0.3, 0.4)):
        result = tried(lambda x: x.max(), x, derivative=derivative, hull=False)
        assert result.refuted and {c.rule for c in result.failures} == {"integral"}


# --- sets given by the user -------------------------------------------------------------------------------------------


class Interval:
    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def contains(self, v: torch.Tensor) -> bool | None:
        return None if v.isnan().any() else bool(((v >= self.low) & (v <= self.high)).all())


def test_a_given_set_replaces_the_hull() -> None:
    f, two = (lambda x: (torch.relu(x) - torch.relu(-x)).sum()), lambda x: torch.where(x == 0, 2.0, 1.0)
    assert tried(f, point(0.0), derivative=two).refuted
    assert tried(f, point(0.0), derivative=two, sets=Interval(0, 2))
    assert tried(f, point(0.0), derivative=two, sets=lambda z: Interval(0, 2))
    (check, *_) = tried(f, point(0.0), derivative=two, sets=lambda z: Interval(0, 1.5)).failures
    assert check.rule == "set" and "not in the given set" in check.note


# --- how it speaks ----------------------------------------------------------------------------------------------------


def test_the_error_names_path_and_discrepancy() -> None:
    with pytest.raises(GradcheckError, match=r"(?s)segment through x.*they differ by .*, tolerance") as caught:
        ns.gradcheck(lambda x: x.abs().sum(), point(1, -2), derivative=lambda x: 2 * torch.sign(x))
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, NonsmoothError)


def test_a_result_tells_what_was_tried() -> None:
    result = ns.gradcheck(lambda x: torch.relu(x), point(0, 1, 1), samples=1)
    assert result and not result.refuted and result.status == "sampled" and not result.failures
    assert {"segment through x", "loop through x", "inside the ties of x", "ray through the origin"} <= {
        c.what for c in result.checks
    }
    assert {c.rule for c in result.checks} == {"integral", "linear", "hull"}
    assert all(c.discrepancy <= c.tolerance for c in result.checks if c.outcome == "passed")
    assert "not refuted by" in str(result) and "<table>" in result._repr_html_()


def test_the_seed_decides() -> None:
    runs = [tried(lambda x: torch.relu(x), point(0, 1, -2), seed=s).checks for s in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


def test_a_function_that_cannot_be_captured_is_checked_all_the_same() -> None:
    def numbers(x: torch.Tensor) -> torch.Tensor:
        return ns.capture(torch.relu, x.detach()).function(x).sum()

    result = tried(numbers, point(0, 1))
    assert result and "not captured" in result.notes[0]
    assert all("not captured" in c.note for c in result.checks if c.rule == "hull")


def test_trees_data_and_cotangents() -> None:
    x = {"a": point(0, 1), "b": [point(2.0)]}
    f = lambda x, w, k: {"out": torch.relu(x["a"]) * w, "norm": x["b"][0].abs() ** k}  # noqa: E731
    assert tried(f, x, point(3, -1), 2)
    g = lambda x, w: (torch.relu(x["a"]) * w).sum() + x["b"][0].abs().sum()  # noqa: E731
    right = lambda x, w: {"a": w * (x["a"] > 0), "b": [torch.sign(x["b"][0])]}  # noqa: E731
    assert tried(g, x, point(3, -1), derivative=right)
    assert tried(g, x, point(3, -1), derivative=lambda x, w: {**right(x, w), "b": [-torch.sign(x["b"][0])]}).refuted


def test_paths_that_leave_the_domain_are_drawn_together_or_left_out() -> None:
    result = tried(lambda x: torch.log(x).sum(), point(0.1, 4.0))
    assert result and any(c.outcome == "passed" and c.what == "segment through x" for c in result.checks)
    away = tried(lambda x: torch.log(x).sum(), point(0.1), paths=[[point(-1.0), point(1.0)]])
    assert away and away.checks[0].outcome == "left out"


def test_nothing_of_the_users_is_touched() -> None:
    norm_layer = torch.nn.BatchNorm1d(2).double()
    before = [t.clone() for t in (*norm_layer.parameters(), *norm_layer.buffers())]
    x, data = point(0.0, 1.0).requires_grad_(), torch.ones(3, 2, dtype=DTYPE)
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()
    python = random.getstate()
    assert tried(lambda x, d: norm_layer(torch.relu(x) * d + d.cumsum(0)).sum(1), x, data)
    assert x.grad is None and all(p.grad is None for p in norm_layer.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*norm_layer.parameters(), *norm_layer.buffers()), strict=True)
    )
    assert torch.equal(state, torch.get_rng_state()) and (drawn == np.random.get_state()[1]).all()
    assert python == random.getstate() and torch.is_grad_enabled() and torch.equal(data, torch.ones(3, 2, dtype=DTYPE))


def calls_backward(x: torch.Tensor) -> torch.Tensor:
    y = (x * x).sum()
    y.backward(retain_graph=True)
    return y


def changes_input(x: torch.Tensor) -> torch.Tensor:
    return x.mul_(2).sum()


@pytest.mark.parametrize(
    ("error", "f", "x", "options"),
    [
        (RandomnessError, lambda x: (x * torch.rand(2)).sum(), point(1, 1), {}),
        (RandomnessError, lambda x: x.sum() * random.random(), point(1, 1), {}),
        (RandomnessError, lambda x: F.dropout(x).sum(), point(1, 1), {}),
        (ChangedInput, changes_input, point(1, 1), {}),
        (CaptureError, calls_backward, point(1, 1), {}),
        (PointError, torch.sum, torch.ones(2, dtype=torch.int64), {}),
        (UsageError, lambda x: torch.log(x).sum(), point(-1, 1), {}),
        (UsageError, torch.sum, point(1, 1), {"samples": 0}),
        (UsageError, torch.sum, point(1, 1), {"radius": 0.0}),
        (UsageError, torch.sum, point(1, 1), {"paths": [point(1, 1)]}),
        (UsageError, torch.sum, point(1, 1), {"paths": [[point(1.0), point(2.0)]]}),
        (UsageError, torch.sum, point(1, 1), {"derivative": lambda x: torch.ones(3)}),
        (ResultError, torch.relu, point(1, 1), {"derivative": torch.sign}),
        (ResultError, lambda x: 3.0, point(1, 1), {}),
    ],
)
def test_wrong_use_is_refused(error: type[Exception], f: Any, x: Any, options: dict[str, Any]) -> None:
    with pytest.raises(error):
        tried(f, x, **options)


def test_it_needs_gradients() -> None:
    with torch.no_grad(), pytest.raises(UsageError, match="records no gradients"):
        tried(torch.relu, point(1, 1))
