"""Tangents: what the values of a run do along directions, computed when they are asked for.

With v_1 .. v_m directions at the point, the tangent of a value u along v_k is its one-sided derivative under the rules
by which the kinks before it were decided: the chain rule of directional derivatives. torch's forward mode pushes them
through smooth steps, the records of the dictionary through kinks. A program without active kinks asks for none.

Beside each tangent goes its *scale*: a bound (estimated with random signs) of the size of the terms that it was summed
from. Rounding is relative to the scale: a tangent of 1e-17 that is left of terms of size 1 is no margin.

Both ways of carrying tangents, late and beside the values, are here: hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from nonsmooth.dictionary import Call, Kind, Nonsmooth, Switch
from nonsmooth.frameworks.torch.arguments import refs_of, storage_of
from nonsmooth.frameworks.torch.forward import bilinear_tangents, carry, push_forward, sum_tangents
from nonsmooth.frameworks.torch.plan import moving_values
from nonsmooth.program import Program, Ref, Step

__all__ = ["Tangents", "rewrites"]

Point = list[torch.Tensor]


def rewrites(program: Program) -> bool:
    """Tell whether the program changes values in place that other steps read, so that tangents cannot wait."""
    for step in program.steps:
        for value in step.mutates:
            readers = program.uses.get(value, ())
            if program.values[value].differentiable or any(value not in s.mutates for s in readers):
                return True
    return False


class Tangents:
    """The tangents of one run along directions.

    Of a program that does not write in place (`late`) they are computed when asked for, from the values of the run,
    which are kept; of one that does they are carried beside the values, in memory that aliases as theirs does.
    """

    def __init__(
        self,
        program: Program,
        env: dict[int, Any],
        directions: Sequence[Callable[[], Point]],
        deciding: int,
        wide: bool,
    ) -> None:
        self.program, self.env, self.count, self.deciding = program, env, len(directions), deciding
        self.wide = wide
        self._cast: dict[int, tuple[Any, torch.Tensor]] = {}
        self.late, self._directions = not rewrites(program), list(directions)
        self._started: set[int] = set()
        self.known: dict[tuple[int, int], torch.Tensor | None] = {}
        self.scales: dict[tuple[int, int], float] = {}
        self._moving = moving_values(program)
        self.decided: dict[int, tuple[Nonsmooth, Call, Mapping[str, Any]]] = {}
        self.noise = torch.Generator().manual_seed(0)
        self.steps = 0
        if not self.late:
            for k in range(self.count):
                self._start(k)

    def _start(self, k: int) -> None:
        """Set out along the k-th direction."""
        self._started.add(k)
        for value, tangent in zip(self.program.inputs, self._directions[k](), strict=True):
            known = getattr(torch, self.program.values[value].dtype)
            self._set(value, k, tangent.to(_widened(known) if self.wide else known), _size(tangent))

    def restart(self, directions: Sequence[Callable[[], Point]]) -> None:
        """Ask about other directions, the rules of the kinks staying as they are: for tangents on demand only."""
        assert self.late
        self.count, self._directions = len(directions), list(directions)
        for known in (self.known, self.scales, self._started):
            known.clear()

    def of(self, value: int, k: int) -> torch.Tensor | None:
        """Give the tangent of a value along the k-th direction; None stands for zero."""
        if not self.program.values[value].depends_on_point:
            return self.known.get((value, k))  # in a program that writes in place it may have become one that moves
        if k not in self._started:
            self._start(k)
        if (value, k) not in self.known:
            self._pull(value, k)
        return self.known[value, k]

    def operands(self, step: Step, operands: Sequence[torch.Tensor], k: int) -> tuple[torch.Tensor, ...]:
        """Give the tangents of the operands of a step, zeros where there is none."""
        found = []
        for ref, operand in zip(step.operands, operands, strict=True):
            tangent = self.of(ref.value, k) if isinstance(ref, Ref) else None
            if tangent is None:
                floating = operand.is_floating_point() or operand.is_complex()
                wide = _widened(operand.dtype) if self.wide else operand.dtype
                tangent = torch.zeros_like(operand, dtype=wide) if floating else operand
            found.append(tangent)
        return tuple(found)

    def scale(self, refs: Any, k: int) -> float:
        """Give the scale of what is computed from some values, along the k-th direction."""
        values = [r.value for r in refs_of(refs)]
        for value in values:
            self.of(value, k)
        return sum(self.scales.get((v, k), 0.0) for v in values)

    def difference(self, args: Sequence[Any], k: int) -> torch.Tensor:
        """Give the tangent of a - b for the first two arguments of a comparison (of a, if it has but one)."""
        total: torch.Tensor | None = None
        for place, argument in enumerate(args[:2]):
            tangent = self.of(argument.value, k) if isinstance(argument, Ref) else None
            if tangent is not None:
                tangent = -tangent if place else tangent
                total = tangent if total is None else total + tangent
        return torch.zeros(()) if total is None else total

    def ask(self, step: Step, operands: Sequence[torch.Tensor]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Give the functions by which a call asks for tangents and scale; taken now where they will not stay."""
        if self.late:
            return lambda k: self.operands(step, operands, k), lambda k: self.scale(step.operands, k)
        tangents = [tuple(t.clone() for t in self.operands(step, operands, k)) for k in range(self.count)]
        scales = [self.scale(step.operands, k) for k in range(self.count)]
        return tangents.__getitem__, scales.__getitem__

    def decide(self, step: Step, call: Call, rules: Mapping[str, Any]) -> None:
        """Keep the rules by which the kinks of a step were decided."""
        assert isinstance(step.operation, Nonsmooth)
        self.decided[step.index] = step.operation, call, rules

    def before(self, step: Step) -> Any:
        """Take what a step reads, before it runs and writes in place."""
        if self.late:
            return None
        copies = {v: self.env[v].detach().clone() for v in step.mutates}
        values = {r.value for r in refs_of((step.args, dict(step.kwargs)))}
        return {v: copies.get(v, self.env[v]) for v in values}

    def after(self, step: Step, read: Any) -> None:
        """Carry the tangents over a step that has run."""
        if not self.late:
            for k in range(self.count):
                self._push(step, k, read)

    def _pull(self, value: int, k: int) -> None:
        """Compute the tangent of a value, and of everything that it comes from."""
        needed: set[int] = set()
        stack = [value]
        while stack:
            current = stack.pop()
            step = self.program.producer.get(current)
            if (current, k) in self.known or step is None or step.index in needed:
                continue
            needed.add(step.index)
            stack += [
                r.value
                for r in refs_of((step.args, dict(step.kwargs)))
                if self.program.values[r.value].depends_on_point and (r.value, k) not in self.known
            ]
        for index in sorted(needed):
            self._push(self.program.steps[index], k, self.env)
        self.known.setdefault((value, k), None)

    def _push(self, step: Step, k: int, read: Mapping[int, Any]) -> None:
        """Push tangents through one step."""
        refs = list(refs_of((step.args, dict(step.kwargs))))
        tangents = {r.value: t for r in refs if (t := self.known.get((r.value, k))) is not None}
        scale = max((self.scales.get((v, k), 0.0) for v in tangents), default=0.0)
        self.steps += bool(tangents)
        if not tangents:
            outputs: list[torch.Tensor | None] = [None] * len(step.results)
        elif step.index in self.decided:
            outputs, scale = self._decided(step, k, scale)
        else:
            outputs, scale = self._smooth(step, k, _Widened(read, self._cast) if self.wide else read, tangents, scale)
        if self.late:
            for value, tangent in zip(step.results, outputs, strict=True):
                if value is not None:
                    self._set(value, k, tangent, scale)
        else:
            self._store(step, k, outputs, scale, tangents)

    def _decided(self, step: Step, k: int, scale: float) -> tuple[list[torch.Tensor | None], float]:
        """Push tangents through a step with active kinks, by the rules that decided them."""
        operation, call, rules = self.decided[step.index]
        with torch.no_grad():
            assert call.tangents is not None
            tangent = operation.push(call, rules, call.tangents(k))
            slopes = operation.slopes_of(call) if isinstance(operation, Switch) else None
            if slopes is not None:
                scale = max(map(abs, slopes)) * self.scale(step.operands, k)
            elif operation.kind is not Kind.ORDER:
                draws = tuple(
                    self._drawn(t, self.scale(ref, k)) if t.is_floating_point() else t
                    for t, ref in zip(call.tangents(k), step.operands, strict=True)
                )
                scale = max(_size(tangent), 2 * _size(operation.push(call, rules, draws)))
        return [tangent, *(None for _ in step.results[1:])], scale

    def _smooth(
        self, step: Step, k: int, read: Mapping[int, Any], tangents: Mapping[int, torch.Tensor], scale: float
    ) -> tuple[list[torch.Tensor | None], float]:
        """Push tangents through a step where it is smooth."""
        scales = {v: self.scales.get((v, k), 0.0) for v in tangents}
        carried = carry(step, read, tangents) or sum_tangents(step, read, tangents, scales)
        carried = carried or bilinear_tangents(step, read, tangents, scales)
        if carried is not None:
            outputs, gain = carried
            return outputs, gain if gain is not None else scale
        known = [value is not None and self.program.values[value].differentiable for value in step.results]
        first = step.results[0]
        lost = first is not None and first in self._moving
        outputs = push_forward(step, read, tangents, known, lost)
        if step.operation.kind is Kind.INDEX:
            return outputs, scale
        draws = {v: self._drawn(t, scales[v]) for v, t in tangents.items()}
        spread = max((_size(t) for t in push_forward(step, read, draws, known) if t is not None), default=0.0)
        return outputs, max(*(_size(t) for t in outputs if t is not None), 2 * spread, 0.0, 0.0)

    def _drawn(self, like: torch.Tensor, scale: float) -> torch.Tensor:
        """Draw numbers in [-scale, scale], by a generator of its own."""
        wide = like.real.dtype if like.is_complex() else like.dtype
        uniform = torch.rand(like.shape, generator=self.noise, dtype=torch.float32).mul_(2).sub_(1)
        return uniform.to(device=like.device, dtype=wide).mul_(scale).to(like.dtype)

    def _set(self, value: int, k: int, tangent: torch.Tensor | None, scale: float) -> None:
        """Write down the tangent of a value."""
        if tangent is not None and self.wide:
            tangent = tangent.to(_widened(tangent.dtype))
        if tangent is not None and not self.late and value in self.env:
            tangent = _laid_out_as(tangent, self.env[value])
        self.known[value, k] = tangent
        self.scales[value, k] = scale if tangent is not None else 0.0

    # --- programs that write in place: memory of tangents aliases as the values do ------------------------------------

    def _store(
        self, step: Step, k: int, outputs: Sequence[torch.Tensor | None], scale: float, tangents: Mapping[int, Any]
    ) -> None:
        """Write tangents into memory that aliases as the results of the step do."""
        changed = dict.fromkeys(step.mutates)
        for value, tangent in zip(step.results, outputs, strict=True):
            if value is None or not _is_real(self.env.get(value)):
                continue
            if value in changed:
                changed[value] = tangent
            else:
                self._lay(step, value, k, tangent, scale)
        for value, tangent in changed.items():
            mine = self.known.get((value, k))
            if mine is None or tangent is None:
                if not _is_real(self.env.get(value)):
                    continue
                mine = self._lay(step, value, k, mine, scale)
            shown = self.env[value]
            if mine.shape != shown.shape:  # `unsqueeze_` and the like show the same memory otherwise
                mine = mine.as_strided(shown.shape, shown.stride(), mine.storage_offset())
                self.known[value, k] = mine
            mine.copy_(torch.zeros_like(mine) if tangent is None else tangent)
            memory = storage_of(self.env[value])
            for (other, j), _ in list(self.known.items()):
                if j == k and other in self.env and _is_real(self.env[other]) and storage_of(self.env[other]) == memory:
                    self.scales[other, k] = max(self.scales.get((other, k), 0.0), scale)

    def _lay(self, step: Step, value: int, k: int, tangent: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Give a result its tangent: a view of that of an operand whose memory it shows, else memory of its own."""
        shown = self.env[value]
        for ref in refs_of((step.args, dict(step.kwargs))):
            base: Any = self.env.get(ref.value)
            same = ref.value != value and _is_real(base) and base.dtype == shown.dtype
            if same and storage_of(base) == storage_of(shown):
                below = self.known.get((ref.value, k))
                if below is None:
                    below = _laid_out_as(torch.zeros_like(base.detach()), base)
                    self.known[ref.value, k] = below
                offset = shown.storage_offset() - base.storage_offset() + below.storage_offset()
                self.known[value, k] = below.as_strided(shown.shape, shown.stride(), offset)
                self.scales[value, k] = scale
                return self.known[value, k]  # type: ignore[return-value]
        self._set(value, k, torch.zeros_like(shown.detach()) if tangent is None else tangent, scale)
        return self.known[value, k]  # type: ignore[return-value]


class _Widened(Mapping[int, Any]):
    """The values of a run in double precision, each cast when it is read."""

    def __init__(self, read: Mapping[int, Any], known: dict[int, tuple[Any, torch.Tensor]]) -> None:
        self._read, self._known = read, known

    def __getitem__(self, value: int) -> Any:
        """Give a value in double precision."""
        found = self._read[value]
        if not _is_real(found) or found.dtype is _widened(found.dtype):
            return found
        known = self._known.get(value)
        if known is None or known[0] is not found:
            known = self._known[value] = found, found.detach().to(_widened(found.dtype))
        return known[1]

    def __iter__(self) -> Iterator[int]:
        """Walk the values."""
        return iter(self._read)

    def __len__(self) -> int:
        """Count the values."""
        return len(self._read)


def _widened(dtype: torch.dtype) -> torch.dtype:
    """Give the type of double precision."""
    return torch.complex128 if dtype.is_complex else torch.float64


def _laid_out_as(tangent: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Copy a tangent into memory laid out as that of its value."""
    size = int(value.untyped_storage().nbytes() // value.element_size()) if value.numel() else 0
    whole = torch.zeros(max(size, 1), dtype=tangent.dtype, device=tangent.device)
    shown = whole.as_strided(value.shape, value.stride(), value.storage_offset())
    shown.copy_(tangent)
    return shown


def _is_real(value: Any) -> bool:
    """Tell a tensor that can have a tangent."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _size(tensor: torch.Tensor | None) -> float:
    """Give the largest absolute entry."""
    if tensor is None or not tensor.numel():
        return 0.0
    if tensor.is_complex():
        return float(tensor.detach().abs().max())
    low, high = tensor.detach().aminmax()
    return max(-float(low), float(high))
