"""Affine steps: which steps of a program are affine in the point, all else being constant."""

from __future__ import annotations

from nonsmooth.dictionary import Kind
from nonsmooth.program.program import Program, Step, references

__all__ = ["is_affine_step", "upstream"]

FACTORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("mul", "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer", "kron", "linear", "conv_tbc"), (0, 1)
    ),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), (0, 1)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (0, 1)),
    **dict.fromkeys(("addmm", "addbmm", "baddbmm", "addmv", "addr", "addcmul"), (1, 2)),
}
"""Operations that are linear in each of two arguments (their places), and affine in the others."""


def is_affine_step(program: Program, step: Step) -> bool:
    """Tell whether a smooth step is affine in what depends on the point.

    >>> import torch
    >>> import nonsmooth as ns
    >>> program = ns.capture(lambda x: (2.0 * x * x).sum(), torch.ones(2))
    >>> [is_affine_step(program, step) for step in program.steps]
    [True, False, True]

    Source: Griewank2013.
    """

    def depends(tree: object) -> bool:
        return any(program.values[r.value].depends_on_point for r in references(tree))

    if step.operation.kind in (Kind.AFFINE, Kind.INDEX) or not depends((step.args, dict(step.kwargs))):
        return True
    if step.operation.name == "div":
        return not depends((step.args[1:], dict(step.kwargs)))
    if step.operation.name == "einsum":
        return sum(depends(item) for item in step.args[1]) <= 1
    places = FACTORS.get(step.operation.name)
    return places is not None and sum(depends(step.args[p]) for p in places if p < len(step.args)) <= 1


def upstream(program: Program, steps: list[Step]) -> set[int]:
    """Give the steps from which some steps compute what depends on the point, those steps themselves left out."""
    found: set[int] = set()
    waiting = list(steps)
    while waiting:
        step = waiting.pop()
        for ref in references((step.args, dict(step.kwargs))):
            before = program.producer.get(ref.value)
            if before is not None and program.values[ref.value].depends_on_point and before.index not in found:
                found.add(before.index)
                waiting.append(before)
    return found
