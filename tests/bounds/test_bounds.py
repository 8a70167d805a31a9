"""Bounds of programs: closed forms, sets, results of objectives, writes in place, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.bounds.bounds import Bound
from nonsmooth.bounds.comparison import compare_bounds
from nonsmooth.bounds.recursion import LayerConstants, MapConstants, localised_chain
from nonsmooth.errors import CaptureError, UnlistedOperation, UsageError
from tests.adapters import Adapter

inf = math.inf
X = np.array([[3.0, 0.0], [0.0, 4.0]])
W = np.array([[1.0, 2.0], [0.0, 2.0]])


def bounds_of(xp: Adapter, f: Callable[..., Any], w: Any = W, x: Any = X, **sets: Any) -> ns.Bounds:
    """Bound f(w, x)."""
    return ns.bounds(f, xp.array(w), xp.array(x), **sets)


SPECTRAL = float(np.linalg.norm(W, 2))

CLOSED: dict[str, tuple[Callable[..., Any], dict[str, Any], str, tuple[float, float, float]]] = {
    # what, sets, with respect to what: (m, l, L)
    "dense in the weights": (lambda xp, w, x: x @ w, {"weights": 2.0}, "weights", (8, 4, 0)),
    "dense in the input": (lambda xp, w, x: x @ w, {"inputs": 1.0}, "inputs", (None, SPECTRAL, 0)),
    "dense anywhere": (lambda xp, w, x: x @ w, {"inputs": inf}, "inputs", (inf, SPECTRAL, 0)),
    "dense in both": (lambda xp, w, x: x @ w, {"weights": 2.0, "inputs": ns.Ball(5.0)}, "both", (10, math.hypot(5, 2), 1)),
    "tanh": (lambda xp, w, x: xp.tanh(w), {"weights": 9.0}, "weights", (2, 1, 0.76981)),
    "twice": (lambda xp, w, x: w + w, {"weights": 3.0}, "weights", (6, 2, 0)),
    "square": (lambda xp, w, x: xp.sum(w * w), {"weights": 3.0}, "weights", (9, 6, 2)),
    "relu": (lambda xp, w, x: xp.relu(w), {"weights": 3.0}, "weights", (3, 1, inf)),
    "relu away from its kink": (lambda xp, w, x: xp.relu(w + 5), {"weights": 3.0}, "weights", (None, 1, 0)),
    "does not move": (lambda xp, w, x: xp.sum(xp.relu(x)), {"weights": 3.0}, "weights", (7, 0, 0)),
    "spectral ball": (
        lambda xp, w, x: x @ w, {"weights": ns.Ball(2.0, norm="spectral")}, "weights", (None, 4, 0)
    ),
    "max ball": (lambda xp, w, x: w, {"weights": ns.Ball(2.0, norm="max")}, "weights", (4, 1, 0)),
    "ball around": (lambda xp, w, x: w, {"weights": ns.Ball(1.0, "here")}, "weights", (4, 1, 0)),
    "ball about an array": (lambda xp, w, x: w, {"weights": ns.Ball(1.0, np.ones((2, 2)))}, "weights", (3, 1, 0)),
}  # fmt: skip
"""Constants that can be computed by hand, each attained."""


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(xp: Adapter, name: str) -> None:
    """The three constants are those computed by hand."""
    f, sets, kind, constants = CLOSED[name]
    found: Bound = getattr(bounds_of(xp, lambda w, x: f(xp, w, x), **sets), kind)
    for wanted, seen in zip(constants, (found.norm, found.lipschitz, found.smoothness), strict=True):
        assert wanted is None or seen == pytest.approx(wanted, rel=2e-5), (name, found)


def test_what_flows_together_adds_and_what_stands_side_by_side_adds_as_squares(xp: Adapter) -> None:
    """Weight sharing adds, concatenation is Pythagoras."""
    together = bounds_of(xp, lambda w, x: x @ w + 2 * (x @ w), weights=1.0)
    side = bounds_of(xp, lambda w, x: xp.concat([x @ w, 2 * (x @ w)]), weights=1.0)
    assert together.weights.lipschitz == pytest.approx(12)
    assert side.weights.lipschitz == pytest.approx(4 * math.sqrt(5))


def test_blocks_have_constants_of_their_own(xp: Adapter) -> None:
    """l of all is the root of the sum of the squares of those of the blocks, L the norm of their matrix."""
    w = {"a": xp.array(W), "b": xp.array(W)}
    found = ns.bounds(lambda w, x: x @ w["a"] @ w["b"], w, xp.array(X), weights={"a": 1.0, "b": 3.0})
    assert {b.name: round(b.lipschitz, 6) for b in found.blocks} == {"a": 12.0, "b": 4.0}
    assert found.weights.lipschitz == pytest.approx(math.hypot(12, 4))
    assert found.weights.smoothness == pytest.approx(4)  # D_a D_b = 4, the others 0


def test_a_name_stands_for_its_module_and_the_rest_is_fixed(xp: Adapter) -> None:
    """Only the blocks that a pattern names move."""
    w = {"first": {"v": xp.array(W)}, "second": {"v": xp.array(W)}}
    f = lambda w, x: x @ w["first"]["v"] @ w["second"]["v"]  # noqa: E731
    found = ns.bounds(f, w, xp.array(X), weights={"second": 1.0})
    assert [b.name for b in found.blocks] == ["second.v"]


def test_an_objective_is_bounded_beside_its_network(xp: Adapter) -> None:
    """With a loss and a regularisation there are two results; the constants are those of the objective."""
    found = ns.bounds(
        lambda w, x: x @ w,
        xp.array(W),
        xp.array(X),
        weights=1.0,
        loss=lambda out, y: xp.sum((out - y) ** 2) / 2,
        target=xp.array(np.zeros((2, 2))),
        regularisation=lambda w: xp.sum(w * w) / 2,
    )
    network, objective = (found.results[n][0] for n in ("network", "objective"))
    assert (network.lipschitz, network.smoothness) == (pytest.approx(4), 0)
    assert objective.lipschitz == pytest.approx(4 * 4 + 1)  # the residual has norm 4 at most
    assert objective.smoothness == pytest.approx(16 + 1)
    assert found.weights == objective


def test_layers_and_causes_name_the_line(xp: Adapter) -> None:
    """An operation that is not smooth gives L = inf with its line, from there on."""

    def f(w: Any, x: Any) -> Any:
        z = xp.tanh(x @ w)
        z = xp.relu(z)  # here
        return xp.sum(z)

    found = bounds_of(xp, f, weights=1.0)
    assert [layer.weights.smoothness == inf for layer in found.layers] == [False, False, True, True]
    assert len(found.causes) == 1
    assert "test_bounds.py" in found.causes[0] and "# here" in found.causes[0]
    assert str(found.layers[2].operation) == "relu" and found.layers[2].why
    assert found.weights.lipschitz < inf and "not smooth" in str(found)


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_is_bounded_no_worse_than_by_the_recursion_of_layers(xp: Adapter, seed: int) -> None:
    """On a chain of dense layers without bias the walk gives at most the localised recursion's constants."""
    rng = np.random.default_rng(seed)
    depth, width, mu = int(rng.integers(1, 5)), int(rng.integers(2, 5)), float(rng.choice([0.5, 1.0, 3.0]))
    x = rng.normal(size=(3, width))
    w = {f"v{k}": xp.array(rng.normal(size=(width, width))) for k in range(depth)}

    def f(w: Any, x: Any) -> Any:
        for k in range(depth):
            x = xp.tanh(x @ w[f"v{k}"])
        return x

    tanh = MapConstants(1.0, 4 / (3 * math.sqrt(3)), 0.0, math.sqrt(x.size), 1.0)
    chain = localised_chain([LayerConstants(1.0, 0.0, mu, (tanh,))] * depth, float(np.linalg.norm(x)))[-1]
    found = ns.bounds(f, w, xp.array(x), weights=mu).weights
    for name in ("norm", "lipschitz", "smoothness"):
        assert getattr(found, name) <= getattr(chain, name) * (1 + 1e-6), name


REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = {
    "unbounded weights": (lambda xp, w, x: x @ w, {"weights": inf}, UsageError, "unbounded"),
    "a negative radius": (lambda xp, w, x: x @ w, {"weights": -1.0}, UsageError, "radius is a number >= 0"),
    "a radius that is none": (lambda xp, w, x: x @ w, {"weights": math.nan}, UsageError, "radius is a number >= 0"),
    "a zero radius": (lambda xp, w, x: x @ w, {"weights": 0.0}, UsageError, "radius 0"),
    "a zero radius of inputs": (lambda xp, w, x: x @ w, {"inputs": 0.0}, UsageError, "radius 0"),
    "a zero ball": (lambda xp, w, x: x @ w, {"weights": ns.Ball(0.0)}, UsageError, "radius 0"),
    "a key that is no name": (lambda xp, w, x: x @ w, {"weights": {3: 1.0}}, UsageError, "key that is a int"),
    "no loss": (lambda xp, w, x: x @ w, {"weights": 1.0, "loss": "ce", "target": 1}, UsageError, "must be a function"),
    "a target alone": (lambda xp, w, x: x @ w, {"weights": 1.0, "target": 1}, UsageError, "belong together"),
    "a budget that is none": (lambda xp, w, x: x @ w, {"weights": 1.0, "budget": "a"}, UsageError, "multiplications"),
    "a name that is none": (lambda xp, w, x: x @ w, {"weights": {"v9": 1.0}}, UsageError, "which is none of"),
    "no radius": (lambda xp, w, x: x @ w, {"weights": "big"}, UsageError, "radius, a Ball, or a mapping"),
    "a norm that is none": (lambda xp, w, x: x, {"weights": 1.0, "inputs": ()}, UsageError, "radius, a Ball"),
    "a center of another shape": (
        lambda xp, w, x: x @ w, {"weights": ns.Ball(1.0, np.ones(3))}, UsageError, "of its shape"
    ),
    "a regularisation alone": (
        lambda xp, w, x: x @ w, {"weights": 1.0, "regularisation": lambda w: w}, UsageError, "give the loss too"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(xp: Adapter, name: str) -> None:
    """Bad input is refused in words."""
    f, sets, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        bounds_of(xp, lambda w, x: f(xp, w, x), **sets)


def test_weights_are_floating_arrays(xp: Adapter) -> None:
    """Whole numbers and what is no array are refused by name."""
    with pytest.raises(UsageError, match=r"weights are floating arrays .* n is"):
        ns.bounds(
            lambda w: w["w"], {"w": xp.array(W), "n": xp.same(np.array([1, 2]), xp.argmax(xp.array(W)))}, weights=1.0
        )
    with pytest.raises(UsageError, match="is a str"):
        ns.bounds(lambda w: w["w"], {"w": xp.array(W), "name": "relu"}, weights=1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(xp: Adapter, bad: float) -> None:
    """A center must be finite, and so must what is fixed."""
    spoilt = np.array([[1.0, bad], [0.0, 1.0]])
    with pytest.raises(UsageError, match="w holds nan or inf"):
        bounds_of(xp, lambda w, x: x @ w, w=spoilt, weights=ns.Ball(1.0, "here"))
    with pytest.raises(UsageError, match="x0 holds nan or inf"):
        bounds_of(xp, lambda w, x: x @ w, x=spoilt, weights=1.0)


def test_a_branch_on_data_is_refused_by_line(xp: Adapter) -> None:
    """What holds on one branch need not hold on the set."""

    def f(w: Any, x: Any) -> Any:
        if xp.name == "jax":
            return xp.cond(xp.max(w) > 0, lambda w: w, lambda w: 2 * w, w)  # chosen here
        return w if torch_max(w) > 0 else 2 * w  # chosen here

    torch_max = xp.max
    with pytest.raises(CaptureError, match="chosen here"):
        bounds_of(xp, f, weights=1.0)


def test_an_operation_without_constants_is_named(xp: Adapter) -> None:
    """The error names the operation, the line and the way out."""
    from nonsmooth.bounds.constants import CONSTANTS

    record = CONSTANTS.pop("tanh")
    try:
        with pytest.raises(UnlistedOperation, match=r"`tanh`.*test_bounds.py.*bound_operation\('tanh'\)"):
            bounds_of(xp, lambda w, x: xp.tanh(w), weights=1.0)
    finally:
        CONSTANTS["tanh"] = record


def test_results_are_written(xp: Adapter, tmp_path: Path) -> None:
    """JSON is strict, also where a constant is infinite; text and picture are there."""
    found = bounds_of(xp, lambda w, x: xp.relu(x @ w), weights=1.0, inputs=0.1)
    paths = found.save(tmp_path)
    assert [p.name for p in paths] == ["report.json", "report.txt", "bounds.png"]
    assert json.loads(paths[0].read_text())["blocks"][0]["name"]


def test_architectures_are_compared_layer_by_layer(xp: Adapter, tmp_path: Path) -> None:
    """Layers of the same operation stand in one row."""
    plain = bounds_of(xp, lambda w, x: xp.sum(x @ w), weights=1.0)
    bent = bounds_of(xp, lambda w, x: xp.sum(xp.tanh(x @ w)), weights=1.0)
    compared = compare_bounds({"plain": plain, "bent": bent})
    assert compared.rows == ((0, 0), (None, 1), (1, 2))
    assert "bent" in str(compared) and len(compared.save(tmp_path)) == 3
    with pytest.raises(UsageError, match="two architectures"):
        compare_bounds({"plain": plain})


def test_nothing_of_the_user_is_changed(xp: Adapter) -> None:
    """Arrays and random states stay as they were."""
    w, x = xp.array(W), xp.array(X)
    state = np.random.get_state()[1].copy()
    ns.bounds(lambda w, x: xp.tanh(x @ w), w, x, weights=ns.Ball(0.1, "here"), inputs=0.1)
    assert np.array_equal(xp.numpy(w), W) and np.array_equal(xp.numpy(x), X)
    assert np.array_equal(np.random.get_state()[1], state)
