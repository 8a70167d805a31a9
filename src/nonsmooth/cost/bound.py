"""The constant of the theorem: how much more than evaluating a program its reverse sweep can cost, by its dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from nonsmooth.cost.model import CostModel, as_model, rounded
from nonsmooth.cost.scalars import SCALARS, Scalar, Style
from nonsmooth.cost.tally import Whole
from nonsmooth.errors import UsageError

__all__ = ["NAMED", "bound_of", "dictionary_bound", "exact_bound", "scalar_bound", "whole_bound"]

_FIELD = ("add", "sub", "neg", "mul")

NAMED: dict[str, tuple[str, ...]] = {
    "+, x, relu": ("add", "mul", "relu"),
    "+, -, x, /": (*_FIELD, "div"),
    "piecewise affine": (*_FIELD, "relu", "abs", "max", "min", "select", "compare"),
    "+, x, relu, exp, log": ("add", "mul", "relu", "exp", "log"),
    "+, x, relu, sort": ("add", "mul", "relu", "compare"),
    "everything": tuple(SCALARS),
}
"""Dictionaries with a name; a sort is comparisons and moves."""


def scalar_bound(scalar: Scalar, model: CostModel) -> float:
    """Give the ratio that one scalar operation g cannot exceed in a reverse sweep.

        w_g = [c_g + D_g + 2 max(c_add, c_mul) p_g] / c_g

    c_g is its price, D_g that of its p_g partial derivatives once its value is known. An operation without a derivative
    has w_g = 1. Status: proved, docs/theory/cost.md.

    >>> scalar_bound(SCALARS["mul"], as_model(None)), scalar_bound(SCALARS["relu"], as_model(None))
    (5.0, 3.0)

    Source: BolteBoustanyPauwelsPesquet2023.
    """
    return rounded(_of_scalar(scalar, model))


def _of_scalar(scalar: Scalar, model: CostModel) -> Fraction:
    """Give w_g as a fraction."""
    if scalar.style is Style.NONE:
        return Fraction(1)
    price, add, mul = (model.exact({name: 1}) for name in (scalar.name, "add", "mul"))
    return max((price + model.exact(d) + 2 * max(add, mul) * len(p)) / price for p, d in scalar.partials.items())


def whole_bound(whole: Whole, model: CostModel) -> float:
    """Give the ratio of an operation on arrays that is elementary as a whole.

        w_g = [cost(g) + cost(pull_g) + c_add n_g] / cost(g)

    n_g counts the numbers that it takes and that move: each of their cotangents is added to.
    """
    return rounded(_of_whole(whole, model))


def _of_whole(whole: Whole, model: CostModel) -> Fraction:
    """Give the ratio as a fraction."""
    cost = model.exact(whole.evaluation)
    return 1 + (model.exact(whole.pull) + model.exact({"add": whole.operands})) / cost if cost else Fraction(1)


def bound_of(names: Iterable[str], wholes: Iterable[Whole], model: CostModel) -> float:
    """Give w_b = max_g w_g over the scalar operations and whole operations that a program uses; 1 if it uses none."""
    return rounded(exact_bound(names, wholes, model))


def exact_bound(names: Iterable[str], wholes: Iterable[Whole], model: CostModel) -> Fraction:
    """Give w_b as a fraction, against which counts can be held without rounding."""
    scalars = [_of_scalar(SCALARS[name], model) for name in names]
    return max([Fraction(1), *scalars, *(_of_whole(w, model) for w in wholes)])


def dictionary_bound(
    dictionary: str | Iterable[str], model: CostModel | Mapping[str, float] | str | None = None
) -> float:
    """Give the constant w_b of a dictionary of scalar operations: cost(backprop(P)) <= w_b cost(P) for all its programs.

    Args:
        dictionary: one of the named ones, or scalar operations.
        model: what an operation costs: a model, its name, or prices; 1 each if it is left out.

    Raises:
        UsageError: a name that is no dictionary and no scalar operation.

    >>> dictionary_bound("+, x, relu"), dictionary_bound(["add", "mul", "exp"], CostModel({"exp": 10}))
    (5.0, 5.0)

    Status: proved, docs/theory/cost.md. Source: BaurStrassen1983, BolteBoustanyPauwelsPesquet2023.
    """
    if isinstance(dictionary, str):
        if dictionary not in NAMED:
            raise UsageError(f"cost: no dictionary is called {dictionary!r}; there are {', '.join(map(repr, NAMED))}.")
        dictionary = NAMED[dictionary]
    names = list(dictionary)
    for name in names:
        if name not in SCALARS:
            raise UsageError(f"cost: {name!r} is no scalar operation; they are {', '.join(sorted(SCALARS))}.")
    return bound_of(names, (), as_model(model))
