"""Random draws: refused, or frozen as constants of the program."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch._dispatch.python import enable_python_dispatcher

from nonsmooth.errors import RandomnessError
from nonsmooth.frameworks.torch.arguments import tensors_of
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.frameworks.torch.protection import refusal
from nonsmooth.program import Ref

if TYPE_CHECKING:
    from nonsmooth.frameworks.torch.tape import Tape

__all__ = ["SHAPES", "draw", "draws_nothing"]

SHAPES = "shapes"
"""What stands for randomness where a function is traced by shapes alone: draws are numbers between bounds."""

_NO_DERIVATIVE = frozenset(["bernoulli", "multinomial", "poisson", "rand_like", "randn_like", "randint_like"])
"""Operators whose draws torch does not differentiate."""


def draws_nothing(func: Any, args: Any, kwargs: Any) -> bool:
    """Tell a random operator that draws nothing in this call."""
    named = arguments_of(func, args, kwargs)
    off = named.get("train") is False or named.get("training") is False
    return off or any(named.get(k) == 0 for k in ("p", "dropout", "dropout_p"))


def draw(tape: Tape, mode: Any, func: Any, args: Any, kwargs: Any, depends: bool) -> Any:
    """Refuse a draw, or freeze it: the drawn tensor becomes a constant of the program."""
    name = packet_name(func)
    if tape.randomness == "refuse":
        raise refusal(
            RandomnessError,
            f"`{name}` draws random numbers, so that the function has no one value at x",
            "switch it off (model.eval(); for Keras training=False), or keep the draws of one capture: pass the program "
            "ns.capture(f, x, *data, randomness='freeze') in the place of f",
        )
    if name == "rrelu_with_noise":
        return _with_drawn_slopes(tape, mode, func, args, kwargs)
    if depends:
        opened = tape.open(mode, func, args, kwargs)
        if opened is not NotImplemented:
            return opened
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors_of((args, kwargs)))
        if differentiable and name not in _NO_DERIVATIVE:
            raise refusal(RandomnessError, f"`{name}` draws numbers whose law depends on x", "draw them outside")
    tape.remember(kwargs.get("generator"))
    result = func(*args, **kwargs)
    if not isinstance(result, torch.Tensor):
        raise refusal(RandomnessError, f"the draws of `{name}` cannot be frozen", "draw them outside")
    drawn = tape.constant(result.detach().clone(), outside=False)
    tape.drawn[drawn.value] = _between(name)
    number = tape.ids.get(id(result))
    if number is None:
        step = tape.write(torch.ops.aten.clone.default, (drawn,), {}, (tape.new_value(result, "drawn"),))
    else:
        reference = tape.reference(result)
        step = tape.write(torch.ops.aten.copy_.default, (reference, drawn), {}, (number,), changed=[result])
    if tape.randomness == SHAPES and (law := _law(tape, func, args, kwargs)):
        tape.steps[-1] = replace(step, target=_following(step.target), args=(*step.args, *law))
    return result


def _law(tape: Tape, func: Any, args: Any, kwargs: Any) -> list[Ref]:
    """List the values on which the law of a draw depends: not those of which it takes the shape, or that it overwrites."""
    if packet_name(func).endswith("_like"):
        return []
    named = arguments_of(func, args, kwargs)
    law = {a.name: named[a.name] for a in func._schema.arguments if a.alias_info is None or not a.alias_info.is_write}
    if packet_name(func) == "bernoulli" and isinstance(law.get("p"), float | int):
        law.pop("self", None)
    return [tape.reference(t) for t in tensors_of(law)]


def _following(target: Any) -> Any:
    """Give an operator that takes no notice of the values on which the law of what it is given depends."""
    return lambda *args, **kwargs: target(*args[: len(target._schema.arguments)], **kwargs)


def _between(name: str) -> tuple[float, float]:
    """Give two numbers between which what an operator draws lies."""
    return (0.0, 1.0) if name.startswith(("bernoulli", "rand_like", "rand.")) or name == "rand" else (-inf, inf)


def _with_drawn_slopes(tape: Tape, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """Freeze the slopes that `rrelu` draws as it goes: its kernel leaves them in its argument `noise`."""
    named = arguments_of(func, args, kwargs)
    operand, slopes = named["self"], torch.empty_like(named["self"])
    with torch.no_grad():
        torch.ops.aten.rrelu_with_noise.default(operand.detach(), slopes, named["lower"], named["upper"], True)
    with enable_python_dispatcher(), mode:
        return torch.where(operand <= 0, operand * slopes, operand)
