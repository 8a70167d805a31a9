"""Capture: a function becomes a program, and the program is shown to be the function.

The proof compares values *and native gradients*, at the point and at random nearby points under the same guards.
Values alone prove nothing: a program that has lost a dependency has the right value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from nonsmooth.errors import ChangedInput, NonsmoothError, ProofFailed, ResultError, StaleProgram, UsageError
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.tape import Tape
from nonsmooth.frameworks.torch.tree import (
    check_data,
    check_point,
    flatten,
    leaf_names,
    random_state,
    same_content,
    unflatten,
)
from nonsmooth.program import Program, Proof

__all__ = ["capture_function", "native_gradient", "pieces"]

RANDOMNESS = ("refuse", "freeze")
ATTEMPTS = 6
"""How often a nearby point is drawn before the proof goes without one."""


def capture_function(
    framework: Any,
    function: Callable[..., Any],
    x: Any,
    data: tuple[Any, ...],
    *,
    randomness: str = "refuse",
    forced: Mapping[tuple[int, int], int] | None = None,
    prove: bool = True,
) -> Program:
    """Turn a function into a program near a point, with its proof."""
    if not callable(function):
        raise UsageError(f"capture takes a function f(x, *data); found a {type(function).__name__}.")
    if randomness not in RANDOMNESS:
        raise UsageError(f"randomness={randomness!r}: use one of {RANDOMNESS}.")
    check_point(x)
    with random_state(), torch.enable_grad():
        start = torch.get_rng_state()
        program, protected = _record(framework, function, x, data, randomness, forced)
        if not prove:
            return program
        return replace(program, proof=_prove(program, x, data, start, protected, bool(forced)))


def _copies(x: Any, data: tuple[Any, ...]) -> tuple[list[torch.Tensor], Any, list[Any], Any]:
    """Clone what a function is called with."""
    leaves, structure = flatten(x)
    items, data_structure = check_data(data)
    point = [t.detach().clone().requires_grad_() for t in leaves]
    copies = [t.detach().clone() if isinstance(t, torch.Tensor) else t for t in items]
    return point, structure, copies, data_structure


def _record(
    framework: Any, function: Callable[..., Any], x: Any, data: tuple[Any, ...], randomness: str, forced: Any
) -> tuple[Program, bool]:
    """Run a function under the tape."""
    point, structure, items, data_structure = _copies(x, data)
    names = leaf_names(x, "x")
    modules = getattr(function, "module_name", None)
    tape = Tape(point, items, names, randomness=randomness, forced=forced, modules=modules)
    originals = [t.detach() for t in flatten(x)[0]], [t for t in check_data(data)[0]]
    with tape.running():
        result = _called(function, unflatten(point, structure), unflatten(items, data_structure))
    leaves, result_structure = flatten(result)
    if not leaves or not all(isinstance(t, torch.Tensor) for t in leaves):
        kinds = sorted({type(t).__name__ for t in leaves}) or ["nothing"]
        raise ResultError(
            f"the function must return tensors; found {', '.join(kinds)}. Values that left torch have no derivative."
        )
    for t in leaves:
        if t.numel() and not bool(torch.isfinite(t).all()):
            raise UsageError(
                f"the function is not finite at the point: its value is {_brief(t)}. Move the point, or mend the function: "
                "there is no derivative where there is no value."
            )
    for now, before in ((point, originals[0]), (items, originals[1])):
        for a, b in zip(now, before, strict=True):
            if isinstance(a, torch.Tensor) and not same_content(a.detach(), b):
                raise ChangedInput("capture: the function changes its input in place; clone it first: `x = x.clone()`.")
    references = unflatten([tape.reference(t) for t in leaves], result_structure)
    program = Program(
        framework=framework,
        function=function,
        values=tuple(tape.values),
        steps=tuple(tape.steps),
        constants=dict(tape.constants),
        inputs=tape.inputs,
        data=tape.data,
        result=references,
        structure=structure,
        guards=tuple(tape.guards),
        findings=tuple(tape.findings.values()),
        options={"randomness": randomness, "forced": dict(forced or {})},
    )
    return program, tape.protected


def _called(function: Callable[..., Any], x: Any, data: Any) -> Any:
    """Call the user's function; an error of its own passes through with a note on what was being done."""
    try:
        return function(x, *data)
    except NonsmoothError:
        raise
    except Exception as error:
        error.add_note("nonsmooth: raised while the function was being captured; does f(x, *data) run by itself?")
        raise


def _brief(tensor: torch.Tensor) -> str:
    """Print a scalar, or say what is bad in a tensor."""
    if tensor.dim() == 0:
        return str(float(tensor.detach()))
    return f"a tensor {tuple(tensor.shape)} with {int((~torch.isfinite(tensor)).sum())} entries nan or inf"


def native_gradient(
    function: Callable[..., Any], x: Any, data: tuple[Any, ...], *, protected: bool = False
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Evaluate a function by torch alone: its results, and the gradient of their weighed sum."""
    point, structure, items, data_structure = _copies(x, data)
    if protected:
        with Tape(point, items, leaf_names(x, "x"), record=False).running():
            result = function(unflatten(point, structure), *unflatten(items, data_structure))
    else:
        result = function(unflatten(point, structure), *unflatten(items, data_structure))
    leaves = flatten(result)[0]
    return [t.detach() for t in leaves], gradient_of(leaves, point)


def gradient_of(results: list[torch.Tensor], point: list[torch.Tensor]) -> list[torch.Tensor]:
    """Give the gradient of the sum of results, each entry weighed by a fixed number so that none cancels."""
    total = None
    for t in results:
        if t.requires_grad and t.is_floating_point():
            weights = 1 + 0.25 * torch.sin(torch.arange(t.numel(), dtype=t.dtype, device=t.device)).reshape(t.shape)
            part = (t * weights).sum() if t.dim() else t
            total = part if total is None else total + part
    if total is None:
        return [torch.zeros_like(p) for p in point]
    found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(total, point, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, point, strict=True)]


def _prove(
    program: Program, x: Any, data: tuple[Any, ...], start: torch.Tensor, protected: bool, forced: bool
) -> Proof:
    """Compare a program with its function at the point and at nearby points."""
    leaves = flatten(x)[0]
    tolerance = max(_tolerance(t.dtype) for t in leaves)
    errors = []
    if not forced:
        errors.append(_compare(program, x, data, start, protected))
    nearby = 0
    generator = torch.Generator().manual_seed(0)
    for attempt in range(ATTEMPTS):
        point = _nearby(leaves, generator, attempt)
        try:
            errors.append(_compare(program, unflatten(point, program.structure), data, start, protected))
            nearby += 1
        except StaleProgram:
            continue
        break
    value_error = max((e[0] for e in errors), default=0.0)
    gradient_error = max((e[1] for e in errors), default=0.0)
    proof = Proof(value_error, gradient_error, nearby, tolerance, "sampled" if nearby else "computed")
    for what, error in (("values", value_error), ("native gradients", gradient_error)):
        if not error <= tolerance:
            raise ProofFailed(
                f"capture: the program does not reproduce the {what} of the function: relative difference {error:.2g}, "
                f"tolerance {tolerance:.1g}. Likely causes: (a) the function is not deterministic or depends on hidden state "
                "that it changes; (b) a value passes through something torch does not see (numpy, another library, "
                "torch.func transforms, compiled code); (c) a custom backward is lost. Its steps:\n"
                + str(program)[:4000]
            )
    return proof


def _nearby(leaves: list[torch.Tensor], generator: torch.Generator, attempt: int) -> list[torch.Tensor]:
    """Draw a nearby point, nearer at every attempt."""
    scale = 1e-3 * 0.1**attempt
    point = []
    for leaf in leaves:
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device, leaf.dtype)
        size = leaf.detach().abs().mean() if leaf.numel() else 1.0
        point.append(leaf.detach() + scale * (size + 1e-3) * noise)
    return point


def _tolerance(dtype: torch.dtype) -> float:
    """Give the relative difference that rounding may make."""
    return float(min(0.1, 2e4 * torch.finfo(dtype).eps)) if dtype is not torch.float64 else 1e-9


def _compare(
    program: Program, x: Any, data: tuple[Any, ...], start: torch.Tensor, protected: bool
) -> tuple[float, float]:
    """Give the relative differences of values and gradients between program and function."""
    items = [t for t in check_data(data)[0] if isinstance(t, torch.Tensor)]
    point = [t.detach().clone().requires_grad_() for t in flatten(x)[0]]
    evaluation = replay(program, point, items)
    results = flatten(evaluation.result)[0]
    ours = [t.detach() for t in results], gradient_of(results, point)
    after = torch.get_rng_state()
    torch.set_rng_state(start)
    try:
        theirs = native_gradient(program.function, x, data, protected=protected)
    finally:
        torch.set_rng_state(after)
    return _distance(ours[0], theirs[0]), _distance(ours[1], theirs[1])


def _distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Give the largest relative difference of two lists of tensors, nan equal to nan."""
    worst = 0.0
    if len(a) != len(b):
        return float("inf")
    for u, v in zip(a, b, strict=True):
        if u.shape != v.shape:
            return float("inf")
        if not u.numel() or same_content(u, v):
            continue
        u, v = u.double(), v.double()
        bad = ~(torch.isfinite(u) & torch.isfinite(v))
        if bool(bad.any()) and not same_content(u[bad], v[bad]):
            return float("inf")
        u, v = u[~bad], v[~bad]
        scale = float(torch.maximum(u.abs().max(), v.abs().max())) if u.numel() else 0.0
        worst = max(worst, float((u - v).abs().max()) / scale if scale else 0.0)
    return worst


def pieces(program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
    """Walk the programs that are active at the point: one for each outcome of the guards that tie there.

    Tied elements of the comparisons behind each guard are forced to either side, and the function is captured again.
    Programs that repeat the guards of an earlier one are left out.
    """
    items = [t for t in check_data(data)[0] if isinstance(t, torch.Tensor)]
    queue, seen, count = [dict(program.options.get("forced", {}))], set(), 0
    while queue and count < limit:
        forced = queue.pop(0)
        piece = program if forced == program.options.get("forced", {}) else None
        if piece is None:
            piece = capture_function(
                program.framework, program.function, x, data, randomness=program.options["randomness"], forced=forced
            )
        ties = tied_comparisons(piece, x, items)
        for key in ties:
            if key not in forced:
                for sign in (-1, 1):
                    queue.append({**forced, key: sign})
                break
        signature = tuple(str(g.outcome) for g in piece.guards), len(piece.steps)
        if signature not in seen:
            seen.add(signature)
            count += 1
            yield piece


def tied_comparisons(program: Program, x: Any, items: list[torch.Tensor]) -> list[tuple[int, int]]:
    """List the tied elements of the comparisons behind the guards, as (ordinal of the comparison, element)."""
    wanted = sorted({c for g in program.guards if g.kind == "branch" for c in g.comparisons})
    if not wanted:
        return []
    ordinals = {
        s.index: k
        for k, s in enumerate(s for s in program.steps if s.label.rstrip("_") in ("eq", "ne", "lt", "le", "gt", "ge"))
    }
    values = compared_values(program, flatten(x)[0], items, frozenset(wanted))
    found = []
    for index in wanted:
        a, b = values[index]
        tied = (torch.as_tensor(a) == torch.as_tensor(b)).reshape(-1)
        found += [(ordinals[index], int(e)) for e in itertools.islice(tied.nonzero().reshape(-1), 16)]
    return found


def compared_values(
    program: Program, leaves: list[torch.Tensor], items: list[torch.Tensor], wanted: frozenset[int]
) -> dict[int, Any]:
    """Give what the wanted comparisons compare at a point."""
    found: dict[int, Any] = {}

    def tap(step: Any) -> Any:
        def target(*args: Any, **kwargs: Any) -> Any:
            found[step.index] = tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args[:2])
            return step.target(*args, **kwargs)

        return target

    steps = tuple(replace(s, target=tap(s)) if s.index in wanted else s for s in program.steps)
    with torch.no_grad():
        replay(replace(program, steps=steps), [t.detach() for t in leaves], items)
    return found
