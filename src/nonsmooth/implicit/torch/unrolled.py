"""Iterations of torch tensors, differentiated through their steps, with tangents pushed beside them.

Closed-over modules are differentiated in reverse mode as everything else: the graph is torch's own.

Over 300 lines: all that unrolling and one-step differentiation ask of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils import _pytree as pytree

from nonsmooth.errors import UsageError
from nonsmooth.implicit.iteration import MIXED, Iterates, Push, Record, in_place, mismatch, not_finite, random_tangents

__all__ = [
    "alike",
    "detached",
    "gradient",
    "iterate",
    "operators",
    "pusher",
    "settle",
    "shifted",
    "step_residual",
    "stepped",
]

Tree = Any


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and (leaf.is_floating_point())


def _map(function: Callable[[Any], Any], tree: Tree) -> Tree:
    return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)


def detached(tree: Tree) -> Tree:
    """Give a tree without its graph."""
    return _map(lambda leaf: leaf.detach(), tree)


def _floating(tree: Tree) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_flatten(tree)[0] if _is_array(leaf)]


def _known(tree: Tree) -> list[torch.Tensor] | None:
    """Give plain values, out of the wrappers of torch.func; None where one value stands for several (vmap)."""
    functorch = torch._C._functorch
    found = []
    for leaf in _floating(tree):
        while functorch.is_functorch_wrapped_tensor(leaf):
            if functorch.is_batchedtensor(leaf):
                return None
            leaf = functorch.get_unwrapped(leaf)
        found.append(leaf.detach())
    return found


def gradient(f: Callable[..., Any], y: Tree, theta: tuple[Any, ...]) -> Tree:
    """Give the gradient of the scalar f(y, *theta) in y, which can be differentiated again."""
    return torch.func.grad(lambda moving: _scalar(f(moving, *theta)))(y)


def _scalar(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise UsageError(f"the objective must give one number; found {what}: sum it, or pass gradient= instead.")
    return value.reshape(())


def alike(T: Any, y: Tree, new: Tree) -> Tree:
    """Refuse what T gives if it is not like y."""
    leaves, structure = pytree.tree_flatten(y)
    others, other = pytree.tree_flatten(new)
    if structure != other:
        raise mismatch(T, f"the structure {structure}", f"{other}")
    for a, b in zip(leaves, others, strict=True):
        shapes = [tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__ for t in (a, b)]
        if shapes[0] != shapes[1]:
            raise mismatch(T, f"shape {shapes[0]}", f"{shapes[1]}")
        if isinstance(a, torch.Tensor) and a.dtype != b.dtype:
            raise mismatch(T, f"dtype {a.dtype}", f"{b.dtype}")
    return new


def stepped(T: Any, y: Tree, theta: tuple[Any, ...]) -> Tree:
    """Make one step; refuse one that changes its arguments."""
    before = _versions((y, theta))
    new = T(y, *theta)
    if _versions((y, theta)) != before:
        raise in_place(T)
    return alike(T, y, new)


def _versions(tree: Tree) -> list[int]:
    """Give how often each tensor was changed in place."""
    return [leaf._version for leaf in _floating(tree) if not leaf.is_inference()]


def _own(tree: Tree) -> Tree:
    """Copy a start, so that no step can change the user's."""
    return _map(lambda leaf: leaf.clone(), tree)


def _length(leaves: list[torch.Tensor]) -> torch.Tensor:
    squares = [leaf.detach().double().square().sum() for leaf in leaves]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)


def _less(new: Tree, old: Tree) -> list[torch.Tensor]:
    return [a.detach() - b.detach() for a, b in zip(_floating(new), _floating(old), strict=True)]


def _filled(tree: Tree, values: list[torch.Tensor]) -> Tree:
    """Put values in the place of the floating leaves."""
    source = iter(values)
    return pytree.tree_map(lambda leaf: next(source) if _is_array(leaf) else leaf, tree)


def _jvp(T: Any, y: Tree, theta: Tree, tangent: list[Any], direction: list[Any]) -> list[torch.Tensor]:
    """Push a tangent of the floating leaves of y and theta through a step."""
    leaves, n = [*_floating(y), *_floating(theta)], len(tangent)

    def moved(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(_floating(T(_filled(y, list(values[:n])), *_filled(theta, list(values[n:])))))

    plain = tuple(leaf.detach() for leaf in leaves)
    with torch.no_grad():
        return [t.detach() for t in torch.func.jvp(moved, plain, (*tangent, *direction))[1]]


def _draw(tree: Tree, rng: np.random.Generator) -> list[torch.Tensor]:
    leaves = _floating(tree)
    drawn = random_tangents([tuple(leaf.shape) for leaf in leaves], rng)
    return [torch.as_tensor(d).to(leaf) for d, leaf in zip(drawn, leaves, strict=True)]


def iterate(run: Iterates, start: Tree, theta: tuple[Any, ...]) -> Tree:
    """Make the steps, and record them."""
    if run.mode == "forward":
        return _forward(run, start, theta)
    if callable(start):
        start = start(*theta)
    _check(start)
    y, monitor = _own(start), _Monitor(run, start, theta)
    for _ in range(run.steps):
        new = stepped(run.T, y, theta)
        monitor.step(y, new)
        y = new
    monitor.finish(y, needed=any(leaf.requires_grad for leaf in _floating(y)))
    return y


def _check(start: Tree) -> None:
    if not _floating(start):
        raise UsageError("start: pass a floating tensor, or a tree of them, like what T returns.")


class _Monitor:
    """Pushes random tangents beside the iterates, and measures both; wrappers of torch.func are seen through."""

    def __init__(self, run: Iterates, start: Tree, theta: tuple[Any, ...], tangents: int | None = None) -> None:
        self.run, self.reason = run, ""
        rng = np.random.default_rng(run.seed)
        count = run.tangents if tangents is None else tangents
        plain = _known((start, theta))
        self.blind = plain is None
        if self.blind:
            count = 0
        self.theta = _filled(theta, plain[len(_floating(start)) :]) if plain is not None else theta
        self.pushed = [(_draw(start, rng), _draw(theta, rng)) for _ in range(count)]
        self.moved: list[torch.Tensor] = []
        self.changes: list[list[torch.Tensor]] = []

    def step(self, y: Tree, new: Tree) -> None:
        """Measure one step."""
        if not self.blind:
            with temporarily_clear_interpreter_stack():
                self._measure(y, new)

    def _measure(self, y: Tree, new: Tree) -> None:
        """Measure one step, of plain values."""
        before, after = _known(y), _known(new)
        assert before is not None and after is not None
        self.moved.append(_length([b - a for a, b in zip(before, after, strict=True)]))
        if not self.pushed:
            return
        at, changes = _filled(y, before), []
        for number, (tangent, direction) in enumerate(self.pushed):
            try:
                found = _jvp(self.run.T, at, self.theta, tangent, direction)
            except (NotImplementedError, RuntimeError) as error:
                self.reason = f"torch cannot push a tangent through T ({str(error).splitlines()[0][:120]})"
                self.pushed, self.changes = [], []
                return
            changes.append(_length([a - b for a, b in zip(found, tangent, strict=True)]))
            self.pushed[number] = (found, direction)
        self.changes.append(changes)

    def finish(self, y: Tree, needed: bool = True) -> None:
        """Hand over what was measured."""
        if not self.blind:
            with temporarily_clear_interpreter_stack():
                self._hand_over(y, needed)

    def _hand_over(self, y: Tree, needed: bool) -> None:
        """Read the numbers."""
        last = _known(y)
        assert last is not None
        moved = torch.stack(self.moved).cpu().numpy()
        changes = torch.stack([torch.stack(c) for c in self.changes]).T.cpu().numpy() if self.changes else None
        sizes = [float(_length(t)) for t, _ in self.pushed]
        eps = max(float(torch.finfo(leaf.dtype).eps) for leaf in last)
        record = Record(moved, float(_length(last)), changes, max(sizes, default=0.0), eps, self.reason)
        if not np.isfinite(moved).all():
            raise not_finite(self.run.T, int(np.argmin(np.isfinite(moved))) + 1)
        self.run.record(record, _filled(detached(y), last), self.theta, needed)


def _forward(run: Iterates, start: Tree, theta: tuple[Any, ...]) -> Tree:
    """Push the tangents of all entries of theta: no graph is kept, and the memory does not grow with the steps."""
    inputs = [
        leaf for leaf in _floating(theta) if leaf.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(leaf)
    ]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(leaf) for leaf in inputs):
        raise UsageError(
            "mode='forward' of `unroll` differentiates by torch's autograd (`backward`, `torch.autograd.grad`); "
            "under the transforms of torch.func use mode='reverse', whose steps they differentiate, or torch.func.jvp."
        )
    fixed = detached(theta)
    marks = [leaf.requires_grad for leaf in _floating(theta)]
    directions = []
    zeros = [torch.zeros_like(leaf) for leaf in _floating(fixed)]
    for place, (leaf, mark) in enumerate(zip(_floating(fixed), marks, strict=True)):
        for entry in range(leaf.numel() if mark else 0):
            unit = torch.zeros_like(leaf)
            unit.view(-1)[entry] = 1.0
            directions.append([*zeros[:place], unit, *zeros[place + 1 :]])
    y, columns = _first(start, theta, fixed, directions)
    monitor = _Monitor(run, y, fixed)
    _refuse_hidden(run.T, y, fixed)
    for _ in range(run.steps):
        with torch.no_grad():
            new = detached(stepped(run.T, y, fixed))
        columns = [_jvp(run.T, y, fixed, c, d) for c, d in zip(columns, directions, strict=True)]
        monitor.step(y, new)
        y = new
    monitor.finish(y, needed=bool(directions))
    return _attached(y, columns, inputs) if directions and torch.is_grad_enabled() else y


def _first(start: Tree, theta: Any, fixed: Any, directions: list[Any]) -> tuple[Tree, list[list[torch.Tensor]]]:
    """Give the start and its derivatives."""
    if callable(start):
        y = detached(start(*fixed))
        _check(y)
        still = [torch.zeros_like(z) for z in _floating(y)]
        return y, [_jvp(lambda _, *t: start(*t), y, fixed, still, d) for d in directions]
    _check(start)
    if any(leaf.requires_grad for leaf in _floating(start)):
        raise UsageError(
            "mode='forward' differentiates in the parameters, and start requires a gradient: pass start as a function of the "
            "parameters, start=lambda *theta: ..., or use mode='reverse'."
        )
    return _own(detached(start)), [[torch.zeros_like(z) for z in _floating(start)] for _ in directions]


def _refuse_hidden(T: Any, y: Tree, theta: Any) -> None:
    """Refuse a T that closes over what requires a gradient: forward mode would give none for it, in silence."""
    with torch.enable_grad():
        if any(leaf.requires_grad for leaf in _floating(T(y, *theta))):
            raise UsageError(
                "mode='forward': T closes over tensors that require a gradient (parameters of a module?), which tangents of the "
                "parameters passed do not reach. Pass them as parameters, freeze them, or use mode='reverse'."
            )


class _Attach(torch.autograd.Function):
    """y as a function of parameters, with a Jacobian that is known."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, jacobian: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        """Give y."""
        ctx.save_for_backward(jacobian, *inputs)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Give the cotangent times the Jacobian, (entries of y, entries of all inputs)."""
        return (None, None, *_Pull.apply(cotangent, *ctx.saved_tensors))


class _Pull(torch.autograd.Function):
    """The pullback of a known Jacobian; its own derivative is not known, and refused."""

    @staticmethod
    def forward(ctx: Any, cotangent: torch.Tensor, jacobian: torch.Tensor, *inputs: torch.Tensor) -> Any:
        """Give a cotangent for each input."""
        row = (cotangent.reshape(-1) @ jacobian).split([leaf.numel() for leaf in inputs])
        return tuple(part.reshape(leaf.shape).to(leaf.dtype) for part, leaf in zip(row, inputs, strict=True))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """Refuse."""
        raise UsageError(
            "mode='forward' of `unroll` knows first derivatives alone; for derivatives of derivatives use mode='reverse'."
        )


def _attached(y: Tree, columns: list[list[torch.Tensor]], inputs: list[torch.Tensor]) -> Tree:
    found = []
    for place, leaf in enumerate(_floating(y)):
        jacobian = torch.stack([c[place].reshape(-1) for c in columns], 1)
        found.append(_Attach.apply(leaf, jacobian, *inputs))
    return _filled(y, found)


def settle(T: Any, start: Tree, theta: tuple[Any, ...], iterations: int, tolerance: float | None) -> Tree:
    """Iterate until the step is within the tolerance, without a graph; give the last but one iterate."""
    fixed, y = detached(theta), _own(detached(start))
    _check(y)
    for k in range(iterations):
        new = detached(stepped(T, y, fixed))
        moved, size = float(_length(_less(new, y))), float(_length(_floating(y)))
        if not np.isfinite(moved):
            raise not_finite(T, k + 1)
        eps = max(float(torch.finfo(leaf.dtype).eps) for leaf in _floating(y))
        if moved <= (eps**0.5 if tolerance is None else tolerance) * (1 + size):
            break
        y = new
    return y


def step_residual(x: Tree, y: Tree) -> tuple[float, float, float] | None:
    """Give |y - x|, |x| and the unit of rounding; None where there are no values."""
    before, after = _known(x), _known(y)
    if before is None or after is None:
        return None
    eps = max(float(torch.finfo(leaf.dtype).eps) for leaf in before)
    return float(_length([b - a for a, b in zip(before, after, strict=True)])), float(_length(before)), eps


def pusher(T: Any, x: Tree, theta: tuple[Any, ...], tangent: Any) -> tuple[Any, Push] | None:
    """Give a tangent of x, near the one passed if that fits, and what pulls it back through T; None where there are no values.

    B' grows as B does, and a backward pass is what every T has: forward mode fails on buffers that T updates, and on functions
    with a backward of their own.
    """
    plain = _known((x, theta))
    if plain is None:
        return None
    drawn = _draw(plain[: len(_floating(x))], np.random.default_rng(0))
    if tangent is not None and [(t.shape, t.dtype) for t in tangent] == [(d.shape, d.dtype) for d in drawn]:
        drawn = [t + MIXED * d for t, d in zip(tangent, drawn, strict=True)]
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.enable_grad():
        plain = [leaf.clone() if leaf.is_inference() else leaf for leaf in plain]
        at, *fixed = _filled(detached((x, *theta)), plain)
        leaves = [leaf.requires_grad_() for leaf in _floating(at)]
        result = _floating(T(at, *fixed))

    def pull(moved: Any) -> tuple[float, Any]:
        pairs = [(r, t) for r, t in zip(result, moved, strict=True) if r.requires_grad]
        if not pairs:
            return 0.0, moved
        outputs, cotangents = zip(*pairs, strict=True)
        with temporarily_clear_interpreter_stack():
            before = _length(moved)
            moved = torch.autograd.grad(
                outputs, leaves, cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            size = float(_length(moved))
            return size / float(before), [t / size for t in moved] if size else moved

    return drawn, pull


def operators(T: Any, y: Tree, theta: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the sizes of y and theta, and the maps t -> B t, c -> c'B, v -> A v, c -> c'A on flat arrays of numpy."""
    fixed, at = detached(theta), detached(y)
    leaves = [*_floating(at), *_floating(fixed)]
    n = len(_floating(at))
    sizes = [leaf.numel() for leaf in leaves]

    def moved(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(_floating(T(_filled(at, list(values[:n])), *_filled(fixed, list(values[n:])))))

    result, pull = torch.func.vjp(moved, *leaves)[:2]
    here = [leaf.detach() for leaf in result]

    def split(flat: Any, like: list[torch.Tensor]) -> list[torch.Tensor]:
        parts = np.split(flat, np.cumsum([leaf.numel() for leaf in like])[:-1])
        return [torch.as_tensor(p).reshape(leaf.shape).to(leaf) for p, leaf in zip(parts, like, strict=True)]

    def join(found: Any) -> Any:
        return np.concatenate([t.detach().double().cpu().numpy().ravel() for t in found] or [np.zeros(0)])

    def push(flat: Any) -> Any:
        return join(torch.func.jvp(moved, tuple(leaves), tuple(split(flat, leaves)))[1])

    def pulled(flat: Any) -> Any:
        return join(pull(tuple(split(flat, list(result)))))

    return sum(sizes[:n]), sum(sizes[n:]), push, pulled, join([b - a for a, b in zip(leaves, here, strict=False)])


def shifted(tree: Tree, flat: Any) -> Tree:
    """Add a flat array to the floating leaves."""
    leaves = _floating(tree)
    parts = np.split(flat, np.cumsum([leaf.numel() for leaf in leaves])[:-1])
    moved = [
        leaf.detach() + torch.as_tensor(p).reshape(leaf.shape).to(leaf) for p, leaf in zip(parts, leaves, strict=True)
    ]
    return _filled(tree, moved)
