"""Equations that hold jaxprs: nested functions are opened, control flow goes as it comes out at the point."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from jax import numpy as jnp

from nonsmooth.dictionary import opaque
from nonsmooth.errors import CaptureError
from nonsmooth.frameworks.jax.rows import Reading
from nonsmooth.frameworks.jax.sources import is_library
from nonsmooth.program import Finding, Source

if TYPE_CHECKING:
    from nonsmooth.frameworks.jax.walk import Walk

__all__ = ["STRUCTURE", "where_rows"]

Slots: TypeAlias = list[Any]
Wanted: TypeAlias = tuple[bool, ...]


def _inlined(parameter: str) -> Callable[..., Slots]:
    """Open an equation that calls a jaxpr."""

    def inline(walk: Walk, eqn: Any, inputs: Slots, source: Source | None, inside: bool, wanted: Wanted) -> Slots:
        inner = eqn.params[parameter]
        jaxpr, constants = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return walk.run(jaxpr, constants, inputs, source, inside or _of_library(jaxpr), wanted)

    return inline


def _of_library(jaxpr: Any) -> bool:
    """Tell a function of jax's own, whose lines are those of its first caller."""
    info = str(getattr(getattr(jaxpr, "debug_info", None), "func_src_info", "") or "")
    file = info.split(" at ", 1)[-1].rsplit(":", 1)[0]
    return is_library(file)


def _custom(walk: Walk, eqn: Any, inputs: Slots, source: Source | None, inside: bool, wanted: Wanted) -> Slots:
    """Keep a function that brings its own derivative as one step, known by name alone."""
    jaxpr = eqn.params["call_jaxpr"].jaxpr
    name = str(eqn.params.get("name") or getattr(getattr(jaxpr, "debug_info", None), "func_name", "") or "custom")
    safe = "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_") or "custom"
    reading = Reading(opaque(safe), tuple(range(len(inputs))), {})
    walk.findings[f"opaque {source}"] = Finding(
        "opaque",
        f"the function {name} brings its own derivative ({eqn.primitive.name}), which is trusted",
        source,
        "write it with operations that the dictionary lists, if its kinks are to be seen",
    )
    return walk.whole(eqn, reading, safe, inputs, source)


def _cond(walk: Walk, eqn: Any, inputs: Slots, source: Source | None, inside: bool, wanted: Wanted) -> Slots:
    """Take the branch that comes out at the point."""
    branch = eqn.params["branches"][int(walk.decide(inputs[0], source))]
    return walk.run(branch.jaxpr, branch.consts, inputs[1:], source, inside, wanted)


def _while(walk: Walk, eqn: Any, inputs: Slots, source: Source | None, inside: bool, wanted: Wanted) -> Slots:
    """Unroll a loop, with a guard for each round; one that was mapped goes on while any of its rows does."""
    p = eqn.params
    m, n = p["cond_nconsts"], p["body_nconsts"]
    tests, fixed, carried = inputs[:m], inputs[m : m + n], inputs[m + n :]
    test, body = p["cond_jaxpr"], p["body_jaxpr"]
    mapped = bool(test.out_avals[0].shape)
    while True:
        (going,) = walk.run(test.jaxpr, test.consts, [*tests, *carried], source, inside)
        (some,) = walk.apply(jnp.any, [going], source) if mapped else (going,)
        if not walk.decide(some, source):
            return carried
        after = walk.run(body.jaxpr, body.consts, [*fixed, *carried], source, inside)
        if mapped:
            pairs = zip(after, carried, strict=True)
            after = [walk.apply(where_rows, [going, new, old], source)[0] for new, old in pairs]
        carried = after


def where_rows(rows: Any, new: Any, old: Any) -> Any:
    """Take the rows of a mapped loop that go on from its body, the others as they were."""
    return jnp.where(rows.reshape(rows.shape + (1,) * (new.ndim - rows.ndim)), new, old)


def _scan(walk: Walk, eqn: Any, inputs: Slots, source: Source | None, inside: bool, wanted: Wanted) -> Slots:
    """Unroll a scan: its body for each slice."""
    p = eqn.params
    fixed, carried, sliced = _split(inputs, p["num_consts"], p["num_carry"])
    body, rows = p["jaxpr"], []
    order = range(p["length"] - 1, -1, -1) if p["reverse"] else range(p["length"])
    written = []
    for k in order:
        written.append(len(walk.steps))
        if len(written) == 3:
            _admit(walk, min(b - a for a, b in pairwise(written)), p["length"], source)
        parts = [walk.apply(lambda a, k=k: a[k], [s], source)[0] for s in sliced]
        outputs = walk.run(body.jaxpr, body.consts, [*fixed, *carried, *parts], source, inside)
        carried = outputs[: p["num_carry"]]
        rows.append(outputs[p["num_carry"] :])
    rows = rows[::-1] if p["reverse"] else rows
    stacked = []
    for place, variable in enumerate(eqn.outvars[p["num_carry"] :]):
        if not rows:
            stacked.append(jnp.zeros(variable.aval.shape, variable.aval.dtype))
            continue
        stacked += walk.apply(lambda *parts: jnp.stack(parts), [row[place] for row in rows], source)
    return [*carried, *stacked]


def _admit(walk: Walk, steps: int, rounds: int, source: Source | None) -> None:
    """Refuse at once a loop that is too long, by the steps of its first rounds."""
    from nonsmooth.frameworks.jax.walk import LIMIT

    if steps * rounds > LIMIT:
        raise CaptureError(
            f"capture: more than {LIMIT} steps, at a loop of {rounds} rounds ({source or 'an unknown line'}): loops are "
            "unrolled, and this one is too long. Shorten the loop, or differentiate its body."
        )


def _split(inputs: Slots, first: int, second: int) -> tuple[Slots, Slots, Slots]:
    """Split what a scan reads into constants, carried values and slices."""
    return inputs[:first], inputs[first : first + second], inputs[first + second :]


STRUCTURE: dict[str, Callable[..., Slots]] = {
    **dict.fromkeys(("jit", "pjit", "remat", "checkpoint", "remat2"), _inlined("jaxpr")),
    **dict.fromkeys(("closed_call", "core_call"), _inlined("call_jaxpr")),
    "custom_vmap_call": _inlined("call"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), _custom),
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
"""Equations that hold jaxprs: how each is walked."""
