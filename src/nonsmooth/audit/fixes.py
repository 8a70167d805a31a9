"""What to do about a finding: texts that can be followed as they stand."""

from __future__ import annotations

from collections.abc import Sequence

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
    "acos": "x.abs() < 1",
    "asin": "x.abs() < 1",
    "atanh": "x.abs() < 1",
    "erfinv": "x.abs() < 1",
    "acosh": "x > 1",
    "logit": "(x > 0) & (x < 1)",
    "reciprocal": "x != 0",
}
"""Where the operation has a finite derivative, if that is not x > 0."""


def fix_singular(operation: str, masked: bool) -> str:
    """Say how to keep an operation away from its bad point.

    >>> fix_singular("sqrt", masked=True)
    'write torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1)), 0): the inner where keeps the infinite slope out'
    """
    inside = _DOMAIN.get(operation, "x > 0")
    if operation == "div":
        if masked:
            return "write torch.where(b != 0, a / torch.where(b != 0, b, 1), 0): the inner where keeps 0 out"
        return "keep the denominator away from 0: write a / (b + eps), or a / b.clamp(min=eps) if b >= 0"
    if operation in _SAFE and masked:
        call = f"torch.{operation}(torch.where({inside}, x, {_SAFE[operation]}){', p' if operation == 'pow' else ''})"
        return f"write torch.where({inside}, {call}, 0): the inner where keeps the infinite slope out"
    if operation in ("sqrt", "rsqrt", "log", "log2", "log10", "pow", "xlogy"):
        call = f"torch.{operation}(x + eps{', p' if operation == 'pow' else ''})"
        return f"write {call} with a small eps such as 1e-12, or clamp the operand: x.clamp(min=eps)"
    if operation == "binary_cross_entropy":
        return "use binary_cross_entropy_with_logits on the logits, which is smooth"
    return (
        f"keep the operand inside the domain: clamp it by a small eps before {operation}, or mask it by two torch.where"
    )


_JUMP_FIXES = {
    "sign": "write torch.abs(x) for torch.sign(x) * x; if a smooth sign is meant, write torch.tanh(x / width)",
    "heaviside": "if a smooth step is meant, write torch.sigmoid(x / width); for a kinked one, (x / width).clamp(0, 1)",
    "copysign": "write torch.abs(a) with the wanted sign as data, or a smooth sign: a.abs() * torch.tanh(b / width)",
    "hardshrink": "use torch.nn.functional.softshrink, which is continuous; no derivative exists at +-lambd",
    "threshold_jump": "use value = threshold, so that the pieces join: torch.nn.functional.threshold(x, t, t)",
    "where": "let the branches agree where the predicate ties, or write torch.maximum, torch.minimum or torch.clamp",
}
"""What to do about jumps, by operation."""


def fix_jump(operation: str) -> str:
    """Say how to mend a jump.

    >>> fix_jump("sign")
    'write torch.abs(x) for torch.sign(x) * x; if a smooth sign is meant, write torch.tanh(x / width)'
    """
    general = (
        f"take {operation} out of the differentiated path (compute it as data), or relax it; a straight-through "
        "estimator is a choice of yours, no derivative"
    )
    return _JUMP_FIXES.get(operation, general)


def fix_kink(kind: str, operation: str, zero_parameters: Sequence[str]) -> str:
    """Say how to leave a kink, or how to choose at it.

    >>> fix_kink("switch", "relu", ["conv1.bias"])
    'give conv1.bias a small random value (torch.nn.init.uniform_, -0.01 to 0.01), or choose the slope: at_kinks=0.5'
    """
    if zero_parameters:
        names = " and ".join(zero_parameters)
        draw = "a small random value (torch.nn.init.uniform_, -0.01 to 0.01)"
        return f"give {names} {draw}, or choose the slope: at_kinks=0.5"
    if kind == Kind.ORDER.value:
        return (
            f"choose how {operation} shares a tie: at_kinks={{'{operation}': 'even'}}; or break the ties by small noise"
        )
    if kind == Kind.CONE.value:
        return "smooth the norm: torch.sqrt((x * x).sum() + eps * eps); or choose its subgradient 0: at_kinks=0.5"
    return (
        f"move the operand off the kink by a small random offset, or choose the slope: at_kinks={{'{operation}': 0.5}}"
    )
