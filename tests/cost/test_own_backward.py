"""The frameworks' own backward, counted: textbook counts, dense backwards of views, checkpoints, and nothing disturbed."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.cost.definitions import DEFINITIONS
from nonsmooth.cost.model import CostModel
from nonsmooth.cost.own_backward import OwnCost, compare_backward
from nonsmooth.frameworks.own_backward import OwnBackward
from tests.adapters import Adapter


def compared(f: Any, x: Any, *data: Any) -> OwnCost:
    """Capture and compare."""
    return compare_backward(ns.capture(f, x, *data), x, data)


def summed(xp: Adapter, entries: Any) -> Any:
    """Add the relus of entries up, one by one."""
    total = xp.relu(entries[0])
    for k in range(1, len(entries)):
        total = total + xp.relu(entries[k])
    return total


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 12])
def test_an_index_in_a_loop_has_a_dense_backward(xp: Adapter, n: int) -> None:
    """n relus forward, n choices and n - 1 additions of whole arrays backward: the overhead grows like n / 2."""
    x = xp.array(np.linspace(1.0, 2.0, n))
    own = compared(lambda x: summed(xp, x), x)
    assert own.evaluation == 2 * n - 1
    assert own.backward == n + n * (n - 1)
    kept = own.forward - own.evaluation  # JAX keeps x > 0 for its backward
    assert kept == (n if xp.name == "jax" else 0)
    assert own.ratio == (2 * n - 1 + kept + n * n) / (2 * n - 1)
    assert own.fills == n * (n - 1)
    assert not own.uncounted


def test_the_finding_names_the_line_and_what_helps(xp: Adapter) -> None:
    """The line of the loop is found, with the count, and told to take the entries at once."""
    own = compared(lambda x: summed(xp, x), xp.array(np.ones(16)))
    finding = own.findings[0]  # the greatest excess; the line before the loop has an index of its own
    lines, first = inspect.getsourcelines(summed)
    assert finding.rule == "dense-backward"
    assert finding.source is not None
    assert finding.source.text == lines[finding.source.line - first].strip() == "total = total + xp.relu(entries[k])"
    assert "unbind" in finding.advice if xp.name == "torch" else "unstack" in finding.advice
    assert "dense-backward" in str(own)


def test_what_the_advice_says_removes_the_excess(xp: Adapter) -> None:
    """Unbound, or on the whole array, the backward counts n choices, under the scalar sweep's own count."""
    n = 12
    x = xp.array(np.ones(n))

    def rows(x: Any) -> Any:
        if xp.name == "torch":
            return x.unbind()
        import jax.numpy as jnp

        return jnp.unstack(x)

    for f in (lambda x: summed(xp, rows(x)), lambda x: xp.sum(xp.relu(x))):
        own = compared(f, x)
        assert own.backward == n < own.pull
        assert not own.findings
        assert own.fills == 0


def test_one_index_stores_zeros_and_is_no_finding(xp: Adapter) -> None:
    """The zeros of one view are stores, seen in their column; no arithmetic is too much."""
    own = compared(lambda x: x[3] * x[3], xp.array(np.ones(100)))
    assert own.backward <= 3 + 100
    one = compared(lambda x: xp.sin(x[3]), xp.array(np.ones(100)))
    assert one.fills == 99
    assert not one.findings


# --- textbook ---------------------------------------------------------------------------------------------------------


def layers(xp: Adapter, sizes: tuple[int, ...]) -> list[Any]:
    """Draw the weights of a network."""
    random = np.random.default_rng(0)
    return [xp.array(random.normal(size=pair)) for pair in itertools.pairwise(sizes)]


def product(m: int, k: int, n: int) -> int:
    """Count the operations of a product of matrices."""
    return m * k * n + m * (k - 1) * n


@pytest.mark.parametrize("sizes", [(5, 7, 3), (4, 6, 6, 2)])
def test_a_network_has_two_products_for_each_layer_but_the_first(xp: Adapter, sizes: tuple[int, ...]) -> None:
    """Backward: h' g for every layer, g w' for all but the first, and one choice for each relu."""
    batch = 8

    def f(weights: list[Any], inputs: Any) -> Any:
        h = inputs
        for w in weights[:-1]:
            h = xp.relu(h @ w)
        return xp.sum(h @ weights[-1])

    own = compared(f, layers(xp, sizes), xp.array(np.random.default_rng(1).normal(size=(batch, sizes[0]))))
    pairs = list(itertools.pairwise(sizes))
    weights = sum(product(i, batch, o) for i, o in pairs)
    inputs = sum(product(batch, o, i) for i, o in pairs[1:])
    assert own.backward == weights + inputs + batch * sum(sizes[1:-1])
    kept = batch * sum(sizes[1:-1]) if xp.name == "jax" else 0
    assert own.forward == own.evaluation + kept
    assert not own.uncounted
    assert not own.findings


def test_a_convolution_has_its_products_twice(xp: Adapter) -> None:
    """Cotangents of image and kernel each take the products of the convolution; the padding takes none."""
    image, kernel = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3))
    met = (6 * 3 - 2) ** 2  # of 6 places 2 lack one entry of 3
    products = 2 * 4 * 3 * met

    def convolved(k: Any, u: Any) -> Any:
        if xp.name == "torch":
            import torch

            return xp.sum(torch.nn.functional.conv2d(u, k, padding=1))
        from jax import lax

        return xp.sum(lax.conv_general_dilated(u, k, (1, 1), "SAME"))

    weight = products + products - 4 * 3 * 9
    inputs = products + products - 2 * 3 * 36
    own = compared(convolved, xp.array(kernel), xp.array(image))
    assert (own.backward, own.uncounted) == (weight, ())
    both = compared(lambda x: convolved(*x), [xp.array(kernel), xp.array(image)])
    assert (both.backward, both.uncounted) == (weight + inputs, ())


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_evaluated_again_on_its_line(xp: Adapter) -> None:
    """The product and the tanh inside of the checkpoint run once more, and the finding has the line inside."""

    def layer(w: Any, h: Any) -> Any:
        return xp.tanh(h @ w)

    def f(weights: list[Any], inputs: Any, kept: bool) -> Any:
        h = inputs
        for w in weights:
            if kept:
                h = layer(w, h)
            elif xp.name == "torch":
                from torch.utils.checkpoint import checkpoint

                h = checkpoint(layer, w, h, use_reentrant=False)
            else:
                import jax

                h = jax.checkpoint(layer)(w, h)
        return xp.sum(h)

    sizes, batch = (4, 4, 4), 3
    weights, inputs = layers(xp, sizes), xp.array(np.ones((batch, 4)))
    plain, again = (compared(f, weights, inputs, kept) for kept in (True, False))
    once = sum(product(batch, i, o) + batch * o for i, o in itertools.pairwise(sizes))
    assert plain.again == 0
    assert not plain.findings
    assert again.again >= once
    (finding,) = again.findings
    assert finding.rule == "rematerialisation"
    assert finding.source is not None
    assert finding.source.text == "return xp.tanh(h @ w)"
    if xp.name == "torch":
        assert again.again == once
        assert again.backward == plain.backward + once


# --- the parts --------------------------------------------------------------------------------------------------------


def test_every_line_adds_up(xp: Adapter) -> None:
    """The backward operations stand at the lines whose forward they are of."""

    def f(x: Any) -> Any:
        a = xp.exp(x)
        b = xp.sin(a)
        return xp.sum(b)

    own = compared(f, xp.array(np.ones(10)))
    by_text = {line.text: line for line in own.lines if line.text}
    assert by_text["a = xp.exp(x)"].backward == 10  # c exp(x)
    assert by_text["b = xp.sin(a)"].forward + by_text["b = xp.sin(a)"].backward == 10 + 10 + 10  # sin, cos, c cos(a)
    assert by_text["return xp.sum(b)"].backward == 0
    assert own.backward == sum(line.backward for line in own.lines)
    assert own.pull == 20 + 30 + 18


def test_what_cannot_be_counted_is_named(xp: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation without a scalar program stands in the list, with its pass and its line, and no finding leans on it."""
    monkeypatch.delitem(DEFINITIONS, "sin")
    own = compared(lambda x: xp.sum(xp.sin(x)), xp.array(np.ones(3)))
    assert len(own.uncounted) == 2
    assert all(
        u.startswith(f"sin ({w}, test_own_backward.py:")
        for u, w in zip(own.uncounted, ("program", "forward"), strict=False)
    )
    assert own.ratio is None
    assert "not counted: sin" in str(own)
    assert not own.findings


def test_a_price_is_paid_by_the_framework_too(xp: Adapter) -> None:
    """Prices enter all counts."""
    f, x = (lambda x: xp.sum(xp.exp(x))), xp.array(np.ones(5))
    program = ns.capture(f, x)
    dear = compare_backward(program, x, model=CostModel({"exp": 10}))
    assert dear.forward == 54
    assert dear.backward == 5


def test_nothing_is_disturbed(xp: Adapter) -> None:
    """The point stays as it was, and so do the gradients beside it."""
    x = xp.array(np.linspace(-1, 1, 6))
    before = xp.numpy(x).copy()
    program = ns.capture(lambda x: xp.sum(xp.relu(x)), x)
    first = program.framework.own_backward(program, x, ())
    assert isinstance(first, OwnBackward)
    np.testing.assert_array_equal(xp.numpy(x), before)
    assert [e.call for e in first.entries] == [e.call for e in program.framework.own_backward(program, x, ()).entries]
    assert getattr(x, "grad", None) is None


def test_the_comparison_becomes_json_and_html(xp: Adapter) -> None:
    """It is a result like every other."""
    own = compared(lambda x: summed(xp, x), xp.array(np.ones(16)))
    assert "dense-backward" in own.to_json()
    assert "<table" in own._repr_html_()
