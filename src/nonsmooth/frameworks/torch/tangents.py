"""Tangents on torch: its forward mode pushes them through smooth steps; in place they are carried beside the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat.torch as xp
import torch

from nonsmooth.frameworks.replay.arguments import refs_of
from nonsmooth.frameworks.replay.forward import Pushed
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.frameworks.torch.arguments import storage_of
from nonsmooth.frameworks.torch.forward import push_forward, written_down
from nonsmooth.program import Step

__all__ = ["TorchTangents"]


class TorchTangents(Tangents):
    """The tangents of one run of a torch program along directions.

    Of a program that does not write in place (`late`) they are computed when asked for; of one that does they are
    carried beside the values, in memory that aliases as theirs does.
    """

    xp = xp
    quiet = staticmethod(torch.no_grad)

    def push_forward(
        self,
        step: Step,
        read: Mapping[int, Any],
        tangents: Mapping[int, torch.Tensor],
        known: Sequence[bool],
        lost: bool,
    ) -> Pushed:
        """Push tangents by torch's forward mode, or what stands for it."""
        return push_forward(step, read, tangents, known, lost)

    def shortcut(
        self, step: Step, read: Mapping[int, Any], tangents: Mapping[int, torch.Tensor], scales: Mapping[int, float]
    ) -> tuple[Pushed, float | None] | None:
        """Push tangents through sums, products and `detach`."""
        return written_down(step, read, tangents, scales)

    def started(self, value: int, tangent: torch.Tensor) -> torch.Tensor:
        """Give a direction the type of the input that it moves."""
        known = getattr(torch, self.program.values[value].dtype)
        return tangent.to(_double(known) if self.wide else known)

    def widened(self, array: Any) -> Any:
        """Give a real or complex tensor in double precision."""
        return array.detach().to(_double(array.dtype)) if _is_real(array) else array

    def generator(self) -> torch.Generator:
        """Make a generator of its own."""
        return torch.Generator().manual_seed(0)

    def drawn(self, like: torch.Tensor, scale: float) -> torch.Tensor:
        """Draw numbers in [-scale, scale]."""
        wide = like.real.dtype if like.is_complex() else like.dtype
        uniform = torch.rand(like.shape, generator=self.noise, dtype=torch.float32).mul_(2).sub_(1)
        return uniform.to(device=like.device, dtype=wide).mul_(scale).to(like.dtype)

    def size(self, array: torch.Tensor | None) -> float:
        """Give the largest absolute entry, in one pass."""
        if array is None or not array.numel():
            return 0.0
        if array.is_complex():
            return float(array.detach().abs().max())
        low, high = array.detach().aminmax()
        return max(-float(low), float(high))

    # --- programs that write in place: memory of tangents aliases as the values do ------------------------------------

    def ask(self, step: Step, operands: Sequence[torch.Tensor]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Give the functions by which a call asks for tangents and scale; taken now where they will not stay."""
        if self.late:
            return super().ask(step, operands)
        tangents = [tuple(t.clone() for t in self.operands(step, operands, k)) for k in range(self.count)]
        scales = [self.scale(step.operands, k) for k in range(self.count)]
        return tangents.__getitem__, scales.__getitem__

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

    def _set(self, value: int, k: int, tangent: torch.Tensor | None, scale: float) -> None:
        """Write down the tangent of a value."""
        super()._set(value, k, tangent, scale)
        tangent = self.known[value, k]
        if tangent is not None and not self.late and value in self.env:
            self.known[value, k] = _laid_out_as(tangent, self.env[value])

    def _store(
        self, step: Step, k: int, outputs: Sequence[torch.Tensor | None], scale: float, tangents: Mapping[int, Any]
    ) -> None:
        """Write tangents into memory that aliases as the results of the step do."""
        if self.late:
            return super()._store(step, k, outputs, scale, tangents)
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


def _double(dtype: torch.dtype) -> torch.dtype:
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
