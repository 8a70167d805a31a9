"""Where the framework's own backward runs more than the theorem allows, or evaluates again, and what to do there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nonsmooth.program import Finding, Source

if TYPE_CHECKING:
    from nonsmooth.cost.own_backward import OwnLine

__all__ = ["findings_of"]


def findings_of(
    line: OwnLine, source: Source | None, module: str, framework: str, *, counted: bool
) -> Iterator[Finding]:
    """Say where a line's backward evaluates again, and where it exceeds what the theorem allows.

    `module` is the path of a module whose layers no line of the function's calls; `counted` whether all of the line is.
    """
    what = f"module `{module}`" if module else "this line"
    if line.again:
        yield Finding(
            "rematerialisation",
            f"{framework} evaluates {line.again:,.0f} operations of {what} again in its backward pass, of which the forward "
            f"pass counts {line.forward:,.0f}: a checkpoint keeps their results out of memory",
            source,
            "that is the price of the memory it saves; take the checkpoint off where memory allows",
        )
    backward = line.backward - line.again
    if backward <= line.allowed or not counted:
        return
    much = (
        f"the backward pass of {framework} counts {backward:,.0f} operations for {what}, of which the program counts "
        f"{line.evaluation:,.0f} and the scalar reverse sweep {line.pull:,.0f} more"
    )
    if line.fills:
        yield Finding(
            "dense-backward",
            f"{much}: every index or slice of an array has a dense array of its size as cotangent ({line.fills:,} zeros are "
            "stored), and these are added whole",
            source,
            _UNBIND.get(framework, "take all entries at once instead of indexing in a loop"),
        )
    else:
        yield Finding("costly-backward", much, source, f"write {what} with fewer, larger operations")


_UNBIND = {
    "torch": "take all entries at once (an operation on the whole tensor), or `for row in x.unbind():` instead of `x[i]` in a "
    "loop: its backward stacks the cotangents once",
    "jax": "take all entries at once (an operation on the whole array, jax.vmap), or `for row in jnp.unstack(x):` instead of "
    "`x[i]` in a loop: its backward stacks the cotangents once",
}
