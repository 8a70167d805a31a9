"""What to do about a finding: texts that can be followed as they stand."""

from __future__ import annotations

from collections.abc import Sequence

from nonsmooth.audit.spelling import Spelling, spelling
from nonsmooth.dictionary import Kind

__all__ = ["fix_jump", "fix_kink", "fix_singular"]

_SAFE = {
    "sqrt": "1",
    "rsqrt": "1",
    "log": "1",
    "log2": "1",
    "log10": "1",
    "log1p": "0",
    "reciprocal": "1",
    "pow": "1",
    "power": "1",
    "acos": "0",
    "asin": "0",
    "acosh": "2",
    "atanh": "0",
    "erfinv": "0",
    "logit": "0.5",
}
"""A point at which each singular operation of one operand has a finite derivative."""

_DOMAIN = {
    "log1p": "x > -1",
    "acos": "{magnitude} < 1",
    "asin": "{magnitude} < 1",
    "atanh": "{magnitude} < 1",
    "erfinv": "{magnitude} < 1",
    "acosh": "x > 1",
    "logit": "(x > 0) & (x < 1)",
    "reciprocal": "x != 0",
}
"""Where the operation has a finite derivative, if that is not x > 0."""


def fix_singular(operation: str, masked: bool, framework: str = "torch") -> str:
    """Say how to keep an operation away from its bad point.

    >>> fix_singular("sqrt", masked=True)
    'write torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1)), 0): the inner where keeps the infinite slope out'
    >>> fix_singular("sqrt", masked=False, framework="jax")
    'write jnp.sqrt(x + eps) with a small eps such as 1e-12, or clamp the operand: jnp.maximum(x, eps)'
    """
    words = spelling(framework)
    inside = _DOMAIN.get(operation, "x > 0").format(magnitude=words.magnitude)
    where, power = words.call("where"), ", p" if operation in ("pow", "power") else ""
    if operation == "div":
        if masked:
            return f"write {where}(b != 0, a / {where}(b != 0, b, 1), 0): the inner where keeps 0 out"
        return f"keep the denominator away from 0: write a / (b + eps), or a / {words.bounded} if b >= 0"
    if operation in _SAFE and masked:
        call = f"{words.call(operation)}({where}({inside}, x, {_SAFE[operation]}){power})"
        return f"write {where}({inside}, {call}, 0): the inner where keeps the infinite slope out"
    if operation in ("sqrt", "rsqrt", "log", "log2", "log10", "pow", "power", "xlogy"):
        call = f"{words.call(operation)}(x + eps{power})"
        return f"write {call} with a small eps such as 1e-12, or clamp the operand: {words.clamp}"
    if operation == "binary_cross_entropy":
        return f"use {words.logits} on the logits, which is smooth"
    return f"keep the operand inside the domain: clamp it by a small eps before {operation}, or mask it by two {where}"


def _jump_fixes(words: Spelling) -> dict[str, str]:
    """Say what to do about jumps, by operation."""
    call = words.call
    sign = (
        f"write {call('abs')}(x) for {call('sign')}(x) * x; if a smooth sign is meant, write {call('tanh')}(x / width)"
    )
    step = f"if a smooth step is meant, write {call('sigmoid')}(x / width); for a kinked one, {words.unit}"
    copied = f"write {call('abs')}(a) with the wanted sign as data, or a smooth sign: {call('abs')}(a) * {call('tanh')}(b / width)"
    others = f"{call('maximum')}, {call('minimum')} or {call('clamp')}"
    return {
        "sign": sign,
        "heaviside": step,
        "copysign": copied,
        "hardshrink": f"use {words.soft_threshold}, which is continuous; no derivative exists at +-lambd",
        "threshold_jump": f"use value = threshold, so that the pieces join: {words.joined_threshold}",
        "where": f"let the branches agree where the predicate ties, or write {others}",
    }


def fix_jump(operation: str, framework: str = "torch") -> str:
    """Say how to mend a jump.

    >>> fix_jump("sign")
    'write torch.abs(x) for torch.sign(x) * x; if a smooth sign is meant, write torch.tanh(x / width)'
    """
    general = (
        f"take {operation} out of the differentiated path (compute it as data), or relax it; a straight-through "
        "estimator is a choice of yours, no derivative"
    )
    return _jump_fixes(spelling(framework)).get(operation, general)


def fix_kink(kind: str, operation: str, zero_parameters: Sequence[str], framework: str = "torch") -> str:
    """Say how to leave a kink, or how to choose at it.

    >>> fix_kink("switch", "relu", ["conv1.bias"])
    'give conv1.bias a small random value (torch.nn.init.uniform_, -0.01 to 0.01), or choose the slope: at_kinks=0.5'
    """
    words = spelling(framework)
    if zero_parameters:
        names = " and ".join(zero_parameters)
        return f"give {names} a small random value ({words.draw}), or choose the slope: at_kinks=0.5"
    if kind == Kind.ORDER.value:
        return (
            f"choose how {operation} shares a tie: at_kinks={{'{operation}': 'even'}}; or break the ties by small noise"
        )
    if kind == Kind.CONE.value:
        root = words.call("sqrt")
        return f"smooth the norm: {root}((x * x).sum() + eps * eps); or choose its subgradient 0: at_kinks=0.5"
    return (
        f"move the operand off the kink by a small random offset, or choose the slope: at_kinks={{'{operation}': 0.5}}"
    )
