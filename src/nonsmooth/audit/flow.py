"""Questions about the text of a program: which steps reach the result, and where an operand comes from."""

from __future__ import annotations

from collections.abc import Iterator

from nonsmooth.dictionary import Kind, Select
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["differentiable_path", "feeds_select", "operands_depend", "operator", "vanishing_inputs"]


def operator(step: Step) -> str:
    """Name the framework's operator of a step, in-place variants by their plain name."""
    return (step.label or step.operation.name).rstrip("_")


def differentiable_path(program: Program) -> frozenset[int]:
    """Collect the steps from which the result is computed through floating values: those that a derivative could pass.

    >>> import torch, nonsmooth as ns
    >>> program = ns.capture(lambda x: torch.where(x.detach() > 0, x * x, x).sum(), torch.ones(2))
    >>> path = differentiable_path(program)
    >>> [operator(step) for step in program.steps if step.index in path]
    ['mul', 'where', 'sum']
    """
    writers: dict[int, list[Step]] = {}
    for step in program.steps:
        for value in (*step.results, *step.mutates):
            if value is not None:
                writers.setdefault(value, []).append(step)
    found: set[int] = set()
    stack = [r.value for r in references(program.result)]
    while stack:
        value = stack.pop()
        if "float" not in program.values[value].dtype:
            continue
        for step in writers.get(value, ()):
            if step.index not in found:
                found.add(step.index)
                stack += [r.value for r in references((step.args, dict(step.kwargs)))]
    return frozenset(found)


def operands_depend(program: Program, step: Step) -> bool:
    """Tell whether a floating operand of a step depends on the point."""
    values = (program.values[r.value] for r in references((step.args, dict(step.kwargs))))
    return any(v.depends_on_point and "float" in v.dtype for v in values)


def feeds_select(program: Program, step: Step, depth: int = 4) -> Step | None:
    """Find the `where` that a result flows into within a few steps."""
    for value in step.results:
        for use in program.uses.get(value, ()) if value is not None else ():
            if isinstance(use.operation, Select):
                return use
            onward = feeds_select(program, use, depth - 1) if depth else None
            if onward is not None:
                return onward
    return None


def vanishing_inputs(program: Program, step: Step, vanishing: frozenset[str], names: tuple[str, ...]) -> Iterator[str]:
    """Name the leaves of the point that are all zero and enter the affine step before a step: zero biases."""
    leaves = dict(zip(program.inputs, names, strict=True))
    for operand in step.operands:
        producer = program.producer.get(operand.value) if isinstance(operand, Ref) else None
        if producer is not None and producer.operation.kind in (Kind.AFFINE, Kind.SMOOTH):
            for ref in references(producer.args):
                leaf = leaves.get(_origin(program, ref.value))
                if leaf in vanishing:
                    yield leaf


def _origin(program: Program, value: int) -> int:
    """Give the value from which another is only laid out: expanded, reshaped, moved."""
    producer = program.producer.get(value)
    if producer is None or producer.operation.kind is not Kind.INDEX:
        return value
    laid_out = next(references(producer.args), None)
    if laid_out is None or laid_out.value >= value:  # a value may be the argument of the step that sets it
        return value
    return _origin(program, laid_out.value)
