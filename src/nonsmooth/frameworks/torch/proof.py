"""The proof of capture: the program is compared with the function, by values and native gradients.

Both are evaluated at the point, and at a random nearby point under the same guards. Values at the point alone prove
nothing: a program that has lost a dependency has the right value there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nonsmooth.errors import ProofFailed, StaleProgram
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.protection import preserved
from nonsmooth.frameworks.torch.tree import (
    RandomState,
    check_data,
    copy_of,
    flatten,
    is_finite,
    same_content,
    unflatten,
)
from nonsmooth.program import Program, Proof

__all__ = ["Native", "prove"]

NEARBY = (0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-5)
"""The distances, relative to the mean size of a leaf, at which nearby points are tried until one is on the same piece."""

LOST_AMONG = 1e-3
"""The part of the largest gradient below which a gradient is compared with that part: next to nothing is rounding."""

Pair = tuple[list[torch.Tensor], list[torch.Tensor]]


@dataclass(frozen=True)
class Native:
    """The user's function run by torch alone; generators start as at capture, tensors that it writes to are put back."""

    function: Callable[..., Any]
    start: RandomState
    generators: list[tuple[torch.Generator, torch.Tensor]]
    rewritten: list[torch.Tensor]

    def __call__(self, x: Any, data: tuple[Any, ...], *, frozen: bool) -> Pair:
        """Give the results, and the gradient of their weighed sum."""
        (leaves, structure), (items, data_structure) = flatten(x), check_data(data)
        point = [copy_of(t).requires_grad_() for t in leaves]
        if frozen:
            self.start.put()
        copies = unflatten([copy_of(t) for t in items], data_structure)
        with preserved(self.rewritten):
            try:
                results = flatten(self.function(unflatten(point, structure), *copies))[0]
                return [t.detach().clone() for t in results], gradient_of(results, point)
            finally:
                for generator, state in self.generators:
                    generator.set_state(state)


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
    try:
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(total, point, allow_unused=True)
    except RuntimeError as error:
        error.add_note("nonsmooth: raised by torch's own backward pass, while the proof of capture compared gradients.")
        raise
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, point, strict=True)]


def prove(program: Program, native: Native, x: Any, data: tuple[Any, ...], *, forced: bool = False) -> Proof:
    """Compare a program with its function at the point (unless outcomes are forced there) and at a nearby point.

    Raises:
        ProofFailed: values or gradients differ by more than rounding.
    """
    leaves = flatten(x)[0]
    tolerance = max(_tolerance(t.dtype) for t in leaves)
    errors = [] if forced else [_compare(program, native, x, data)]
    _judge(program, errors, tolerance)
    nearby = 0
    generator = torch.Generator().manual_seed(0)
    for attempt, scale in enumerate(NEARBY):
        point = _moved(leaves, generator, scale)
        items, structure = check_data(data)
        moved = _moved(items, generator, scale) if attempt % 2 == 0 else items
        try:
            error = _compare(
                unforced(program), native, unflatten(point, program.structure), unflatten(moved, structure)
            )
        except StaleProgram:
            continue
        except Exception:  # the function need not be defined there
            continue
        if error is not None:
            nearby += 1
            errors.append(error)
            break
    _judge(program, errors, tolerance)
    found = [e for e in errors if e is not None]
    value_error, gradient_error = (max((e[k] for e in found), default=0.0) for k in (0, 1))
    return Proof(value_error, gradient_error, nearby, tolerance, "sampled" if nearby else "computed")


def _judge(program: Program, errors: list[tuple[float, float] | None], tolerance: float) -> None:
    """Refuse a program that differs from its function by more than rounding."""
    for place, what in enumerate(("values", "native gradients")):
        error = max((e[place] for e in errors if e is not None), default=0.0)
        if not error <= tolerance:
            causes = "; ".join(f"{f.message} ({f.source})" for f in program.findings)
            raise ProofFailed(
                f"capture: the program does not reproduce the {what} of the function: relative difference {error:.2g}, "
                f"tolerance {tolerance:.1g}. " + (f"Found on the way: {causes}. " if causes else "") + "Likely causes: "
                "(a) the function is not deterministic or depends on hidden state that it changes; (b) a value passes "
                "through something torch does not see (numpy, another library, compiled code); (c) a hook or a custom "
                "backward changes the gradient. Its steps:\n" + str(program)[:4000]
            )


def _moved(leaves: list[Any], generator: torch.Generator, scale: float) -> list[Any]:
    """Draw a nearby point: every floating leaf moves."""
    point = []
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or leaf.layout is not torch.strided:
            point.append(leaf)
            continue
        wide = torch.promote_types(leaf.dtype, torch.float32)
        noise = torch.rand(leaf.shape, generator=generator, dtype=wide).to(leaf.device)
        size = scale * (float(leaf.detach().abs().mean()) + 1e-3) if leaf.numel() else 0.0
        point.append((leaf.detach() + noise.mul_(4 * size).sub_(2 * size)).to(leaf.dtype))
    return point


def _tolerance(dtype: torch.dtype) -> float:
    """Give the relative difference that rounding may make."""
    return 1e-9 if dtype is torch.float64 else float(min(0.05, 2e3 * torch.finfo(dtype).eps))


def _compare(program: Program, native: Native, x: Any, data: tuple[Any, ...]) -> tuple[float, float] | None:
    """Give the relative differences of values and gradients; None where the function has no finite value."""
    items = [copy_of(t) for t in check_data(data)[0] if isinstance(t, torch.Tensor)]
    point = [copy_of(t).requires_grad_() for t in flatten(x)[0]]
    results = flatten(replay(program, point, items).result)[0]
    ours = [t.detach() for t in results], gradient_of(results, point)
    theirs = native(x, data, frozen=program.options.get("randomness") == "freeze")
    if not all(is_finite(t) for t in theirs[0]):
        return None
    return _distance(ours[0], theirs[0], 0.0), _distance(ours[1], theirs[1], LOST_AMONG)


def _distance(a: list[torch.Tensor], b: list[torch.Tensor], part: float) -> float:
    """Give the largest relative difference of two lists of tensors, nan equal to nan.

    It is relative to the largest entry of a tensor, but at least to a part of the largest entry of all.
    """
    if len(a) != len(b) or any(u.shape != v.shape for u, v in zip(a, b, strict=True)):
        return float("inf")
    differing = [(u, v) for u, v in zip(a, b, strict=True) if u.numel() and not same_content(u, v)]
    floor = part * max(_size(v) for v in b) if differing else 0.0
    worst = 0.0
    for u, v in differing:
        wide = torch.complex128 if u.is_complex() or v.is_complex() else torch.float64
        u, v = u.to(wide), v.to(wide)
        bad = ~(torch.isfinite(u) & torch.isfinite(v))
        if bool(bad.any()) and not same_content(u[bad], v[bad]):
            return float("inf")
        u, v = u[~bad], v[~bad]
        scale = max(_size(u), _size(v), floor)
        worst = max(worst, float((u - v).abs().max()) / scale if scale else 0.0)
    return worst


def _size(tensor: torch.Tensor) -> float:
    """Give the largest finite entry of a tensor."""
    finite = tensor[torch.isfinite(tensor)] if tensor.numel() else tensor
    return float(finite.abs().max()) if finite.numel() else 0.0
