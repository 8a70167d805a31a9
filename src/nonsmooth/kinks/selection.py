"""Selections: for each active kink a weight on its pieces. Backpropagation is the chain rule under one of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary import OPERATIONS, Call, Cone, Kind, Nonsmooth, Rule, Select, Switch
from nonsmooth.dictionary.convention import FRAMEWORKS, load_convention
from nonsmooth.dictionary.operation import is_number
from nonsmooth.errors import ConventionError
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.program import Step

__all__ = ["WORDS", "AtKinks", "selection"]

AtKinks: TypeAlias = str | float | Mapping[str, Any] | Callable[..., Any]
"""What an `at_kinks=` may be; see `selection`."""

WORDS = ("framework", *FRAMEWORKS, "minimum-norm", "random")
"""The conventions that have a name."""


def selection(at_kinks: AtKinks, framework: str, *, seed: int = 0) -> Selector | None:
    """Read an `at_kinks=` as a selection; None leaves every kink to the framework.

    * `"framework"`: the framework's own rules, at no cost (also its own name, on its own programs);
    * `"torch"`, `"jax"`, `"tensorflow"`: what that framework would have picked at each operation, by the measured tables;
      where it has no rule for one the program's own framework decides;
    * `"minimum-norm"`: at each kink the shortest vector of the operation's own set;
    * `"random"`: at each kink element a random weight (seeded, the user's generators are not touched);
    * a number a: the weight of the right-hand slope at switches (abs: slope 2a - 1), the even split at ties, the centre
      of the ball at norms; guards keep their branch;
    * a mapping from names of operations or kinds to rules; what it does not name is left to the framework;
    * a callable (step, kink, call) -> rule or None.

    Raises:
        ConventionError: none of these, or a name that the dictionary does not have.

    Source: BoltePauwels2020b.
    """
    if isinstance(at_kinks, str):
        if at_kinks in ("framework", framework):
            return None
        if at_kinks in FRAMEWORKS:
            return _by_table(at_kinks, framework)
        if at_kinks == "minimum-norm":
            return _per_kink(_minimum_norm, framework)
        if at_kinks == "random":
            return _per_kink(_randomly(np.random.default_rng(seed)), framework)
        raise ConventionError(
            f"at_kinks={at_kinks!r} is no convention{_hint(at_kinks, WORDS)}; use one of {WORDS}, a number, "
            "a mapping or a callable."
        )
    if isinstance(at_kinks, bool | None):
        raise ConventionError(f"at_kinks={at_kinks!r}: pass a number such as 0.0 or 1.0, or one of {WORDS}.")
    if isinstance(at_kinks, int | float):
        if not math.isfinite(at_kinks):
            raise ConventionError(f"at_kinks={at_kinks!r}: the weight of the right-hand slope must be finite.")
        return _by_number(float(at_kinks))
    if isinstance(at_kinks, Mapping):
        return _by_mapping(at_kinks, framework)
    if callable(at_kinks):
        return _per_kink(at_kinks, framework)
    raise ConventionError(
        f"at_kinks takes a word, a number, a mapping or a callable; found a {type(at_kinks).__name__}."
    )


def _hint(word: str, words: Any) -> str:
    """Name the word that was probably meant."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _operation(step: Step) -> Nonsmooth:
    """Give the record of a step with kinks."""
    assert isinstance(step.operation, Nonsmooth)
    return step.operation


def _rules(
    step: Step, find: Callable[[str], Rule | None], call: Call, masks: Mapping[str, Any], framework: str
) -> Mapping[str, Rule] | None:
    """Ask for the rule of every kink of a step; None if all of them are left to the framework.

    A kink of the step without a rule, beside one that has a rule, follows the measured convention of the framework.
    """
    operation = _operation(step)
    rules = {kink: find(kink) for kink in masks}
    if all(rule is None for rule in rules.values()):
        return None
    for kink, rule in rules.items():
        if rule is None:
            rules[kink] = _measured(framework if framework in FRAMEWORKS else "torch", step, kink, call)
            if rules[kink] is None:
                rules[kink] = _centre(operation, kink)
    return {k: r for k, r in rules.items() if r is not None}


def _measured(framework: str, step: Step, kink: str, call: Call) -> Rule | None:
    """Read the rule of a framework at a kink of a call from its table."""
    operation, exponent = _operation(step), _exponent(_operation(step), call)
    rule = load_convention(framework).rule(_row_name(step, call), operation.kinks, kink, exponent)
    if kink == "zero vector" and isinstance(rule, float):
        return rule / operation.image(call, call.operands).shape[-1]  # type: ignore[attr-defined]
    if rule == "zero" and isinstance(operation, Switch):
        left, right = (operation.pieces(call)[operation.kinks.index(kink) + side][0] for side in (0, 1))
        return left / (left - right)
    return rule


def _row_name(step: Step, call: Call) -> str:
    """Name the row of the tables where they tell apart what one record holds."""
    name = step.operation.name
    if name == "median" and step.attributes.get("dim") is not None:
        return "median_dim"
    if name == "sort" and step.attributes.get("descending"):
        return "sort_descending"
    if name in ("max_pool", "adaptive_max_pool"):
        return f"{name}{_spatial_axes(step, call)}d"
    return name


def _spatial_axes(step: Step, call: Call) -> int:
    """Count the axes that a pool runs over; windows over all axes have the width 1 over batch and channels."""
    first = int(step.attributes["spatial_from"])
    if first or "kernel_size" not in step.attributes:
        return len(call.result.shape) - first
    wide = [axis for axis, width in enumerate(step.attributes["kernel_size"]) if width > 1]
    return wide[-1] - wide[0] + 1 if wide else 1


def _exponent(operation: Nonsmooth, call: Call) -> float:
    """Give the p of a norm; 2 for everything else."""
    return operation.exponent(call) if isinstance(operation, Cone) else 2.0


def _centre(operation: Nonsmooth, kink: str) -> Rule:
    """Give the middle of the set of an operation."""
    if operation.kind is Kind.CONE:
        return {"tie": "even", "zero entry": 0.5}.get(kink, "zero")
    return {Kind.SWITCH: 0.5, Kind.ORDER: "even", Kind.SPECTRAL: "even"}.get(operation.kind, "zero")


def _by_number(weight: float) -> Selector:
    """Select by one number."""
    at = {Kind.SWITCH: weight, Kind.ORDER: "even", Kind.CONE: "zero", Kind.SPECTRAL: "even"}

    def rule_for(operation: Nonsmooth, kink: str) -> Rule:
        if operation.kind is Kind.CONE:
            return {"zero entry": weight, "tie": "even"}.get(kink, "zero")
        return at[operation.kind]

    return lambda step, call, masks: {kink: rule_for(_operation(step), kink) for kink in masks}


def _by_table(table: str, framework: str) -> Selector:
    """Select by the measured convention of a framework; guards and `where` keep their branch."""

    def select(step: Step, call: Call, masks: Mapping[str, Any]) -> Mapping[str, Rule] | None:
        if isinstance(_operation(step), Select):
            return None
        return _rules(step, lambda kink: _measured(table, step, kink, call), call, masks, framework)

    return select


def _by_mapping(mapping: Mapping[str, Any], framework: str) -> Selector:
    """Select by the names of operations or kinds."""
    kinds = {kind.value for kind in Kind if kind.has_weights}
    kinky = {name for name, record in OPERATIONS.items() if isinstance(record, Nonsmooth)}
    for name in mapping:
        if name not in kinds and name not in kinky:
            raise ConventionError(
                f"at_kinks names {name!r}, which is no operation with kinks{_hint(str(name), kinky | kinds)}; "
                f"`nonsmooth ops` lists them. Kinds: {sorted(kinds)}."
            )

    def select(step: Step, call: Call, masks: Mapping[str, Any]) -> Mapping[str, Rule] | None:
        operation = _operation(step)
        wanted = mapping.get(operation.name, mapping.get(operation.kind.value))
        if wanted is None or wanted == "framework":
            return None
        if isinstance(wanted, Mapping):
            unknown = set(wanted) - set(operation.kinks)
            if unknown:
                raise ConventionError(
                    f"{operation.name!r} has the kinks {operation.kinks}; at_kinks names {sorted(unknown)}."
                )
            return _rules(step, wanted.get, call, masks, framework)
        return _rules(step, lambda kink: _spread(operation, kink, wanted), call, masks, framework)

    return select


def _spread(operation: Nonsmooth, kink: str, rule: Any) -> Any:
    """Read one rule for all kinks of an operation: a number means the even split at ties, the centre at norms."""
    number = isinstance(rule, int | float)
    if number and (operation.kind is Kind.ORDER or (kink == "tie" and operation.kind is Kind.CONE)):
        return "even"
    return "zero" if number and kink == "zero vector" else rule


def _per_kink(rule: Callable[..., Any], framework: str) -> Selector:
    """Select by a function of step, kink and call."""
    return lambda step, call, masks: _rules(step, lambda kink: rule(step, kink, call), call, masks, framework)


def _minimum_norm(step: Step, kink: str, call: Call) -> Rule:
    """Give the weight of the shortest vector of the operation's own set: the projection of 0 on a segment."""
    operation = _operation(step)
    if isinstance(operation, Switch):
        place = operation.kinks.index(kink)
        pieces = operation.pieces(call)
        left, right = pieces[place], pieces[place + 1]
        inner = sum(a * (b - a) for a, b in zip(left, right, strict=True))
        length = sum((b - a) * (b - a) for a, b in zip(left, right, strict=True))
        if is_number(length):
            return min(max(-inner / length, 0.0), 1.0) if length else 0.5
        return call.xp.clip(-inner / call.xp.where(length == 0, call.xp.ones_like(length), length), 0.0, 1.0)
    if isinstance(operation, Select):
        return 0.5
    if operation.kind is Kind.SPECTRAL:
        return "even"
    return {"tie": "even", "zero entry": 0.5}.get(kink, "zero")


def _randomly(generator: np.random.Generator) -> Callable[[Step, str, Call], Rule]:
    """Draw a weight for every kink element."""

    def rule(step: Step, kink: str, call: Call) -> Rule:
        operation = _operation(step)

        def uniform(shape: tuple[int, ...]) -> Any:
            device = getattr(call.result, "device", None)  # a tracer of jax has none
            drawn = call.xp.asarray(generator.uniform(0.001, 0.999, shape), device=device)
            return call.xp.astype(drawn, call.result.dtype)

        if operation.kind is Kind.ORDER:
            return uniform(tuple(call.operands[0].shape))
        if operation.kind is Kind.SPECTRAL:
            return operation.image(call, tuple(uniform(tuple(u.shape)) for u in call.operands))  # type: ignore[attr-defined]
        if operation.kind is Kind.CONE and kink != "zero entry":
            if kink == "tie":
                return "even"
            image = operation.image(call, call.operands)  # type: ignore[attr-defined]
            return (uniform(tuple(image.shape)) - 0.5) / max(1, image.shape[-1])
        if operation.kind is Kind.CONE:
            return uniform(tuple(operation.image(call, call.operands).shape))  # type: ignore[attr-defined]
        return uniform(tuple(call.result.shape))

    return rule
