"""The distances of a call to its kinks, in as little memory traffic as that takes.

A training loop leaves its values cold, and fresh memory costs more than arithmetic: values are read once, in chunks that
stay in the cache, and what is computed from them goes into buffers that are kept.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf, prod
from typing import Any

import torch

from nonsmooth.dictionary import Call, Extremum, Nonsmooth, Switch
from nonsmooth.dictionary.pooling import Pooling
from nonsmooth.frameworks.torch.weighing import fits

__all__ = ["Distances"]

CHUNK = 1 << 17
"""Elements read at a time."""


class Distances:
    """Finds the least distance of a call to each of its kinks, and the elements at distance 0."""

    def __init__(self) -> None:
        self._buffers: dict[Any, torch.Tensor] = {}

    def least(self, operation: Nonsmooth, call: Call) -> dict[str, float]:
        """Give the least distance to each kink over all elements; entries that cannot move are left out.

        What is 0 here may still be no active kink; what is more than 0 is none.
        """
        if isinstance(operation, Switch):
            arguments = zip(operation.kinks, operation.arguments(call), strict=True)
            return {kink: self._least_absolute(a) for kink, a in arguments}
        if isinstance(operation, Pooling) and self._is_plain(call):
            return {"tie": _near(self._gaps(call))}
        return {k: _least(_alive(operation, call, d)) for k, d in operation.margins(call).items()}

    def masks(self, operation: Nonsmooth, call: Call) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Mark the active elements of each kink, and give the least distance of the elements that are not at it."""
        if isinstance(operation, Pooling) and self._is_plain(call):
            gaps = self._gaps(call)
            at = gaps == 0
            masks = {"tie": at} if call.attributes.get("dead") is None else operation.active(call)
            return masks, {"tie": _near(gaps.masked_fill_(at, inf))}
        if isinstance(operation, Switch) and operation.slopes_of(call) is not None:
            at_breakpoints = self._at_breakpoints(operation, call)
            if at_breakpoints is not None:
                return at_breakpoints
        distances = {k: _alive(operation, call, d) for k, d in operation.margins(call).items()}
        return operation.active(call), {k: _least(d.masked_fill(d == 0, inf)) for k, d in distances.items()}

    def _at_breakpoints(self, operation: Switch, call: Call) -> tuple[dict[str, torch.Tensor], dict[str, float]] | None:
        """Do the same for a switch of constant slopes, two of which meet at every breakpoint; None if they agree at one."""
        pieces = operation.pieces(call)
        if any(before == after for before, after in pairwise(pieces)):
            return None
        masks, beyond = {}, {}
        for kink, argument in zip(operation.kinks, operation.arguments(call), strict=True):
            masks[kink] = argument == 0
            distance = argument.abs() if argument.device.type != "cpu" else self._absolute(argument)
            beyond[kink] = _least(distance.masked_fill_(masks[kink], inf))
        return masks, beyond

    def _absolute(self, argument: torch.Tensor) -> torch.Tensor:
        """Give |a| in a buffer."""
        buffer = self._buffer("whole", argument, argument.numel())
        return torch.abs(argument, out=buffer.view(argument.shape))

    def _buffer(self, name: str, like: torch.Tensor, size: int) -> torch.Tensor:
        """Give a flat buffer that is kept."""
        key = name, like.dtype, like.device
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size]

    def _least_absolute(self, argument: torch.Tensor) -> float:
        """Give min |a|."""
        flat = _flat(argument)
        if flat is None or argument.device.type != "cpu":
            return _least(argument.abs())
        least = inf
        for part in flat.split(CHUNK):
            least = min(least, _least(torch.abs(part, out=self._buffer("chunk", part, part.numel()))))
        return least

    def _is_plain(self, call: Call) -> bool:
        """Tell a pooling of contiguous planes whose windows lie inside."""
        (operand,), padding = call.operands, call.attributes.get("padding")
        return (
            padding is not None
            and not any(padding)
            and operand.is_contiguous()
            and call.result.is_contiguous()
            and operand.numel() > 0
            and all(k > 0 for k in call.attributes["kernel_size"])
            and prod(call.attributes["kernel_size"]) > 1
            and fits(call)
        )

    def _gaps(self, call: Call) -> torch.Tensor:
        """Give the largest entry of each window less the second largest; a huge number where none of them can move."""
        if "gaps" not in call.known:
            call.known["gaps"] = self._compute_gaps(call)
        return call.known["gaps"]  # type: ignore[no-any-return]

    def _compute_gaps(self, call: Call) -> torch.Tensor:
        """Take the two largest entries axis by axis, some planes at a time, and read them where windows begin."""
        operand, result = call.operands[0], call.result
        spatial = result.ndim - call.attributes["spatial_from"]
        sizes, targets = operand.shape[-spatial:], result.shape[-spatial:]
        plane, window = prod(sizes), prod(targets)
        together = max(1, CHUNK // plane)
        flat, best = operand.view(-1), result.view(-1)
        gaps = torch.empty_like(best)
        for start in range(0, operand.numel() // plane, together):
            entries = flat[start * plane : (start + together) * plane]
            planes = entries.numel() // plane
            second, strides = self._second(call, entries, planes, list(sizes), targets)
            part = slice(start * window, (start + planes) * window)
            at = second.as_strided((planes, *targets), strides, second.storage_offset())
            torch.sub(best[part].view(planes, *targets), at, out=gaps[part].view(planes, *targets))
        for value in call.attributes.get("flats") or ():
            # marks added as numbers take a third of the time of a mask
            gaps.add_(torch.eq(best, value, out=self._buffer("marks", best, best.numel())), alpha=_far(best.dtype))
        return gaps.view(result.shape)

    def _second(
        self, call: Call, entries: torch.Tensor, planes: int, sizes: list[int], targets: tuple[int, ...]
    ) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Give the second largest entry of every window, and the strides at which to read it.

        An axis along which windows lie side by side is shortened to one entry a window, as long as all before it are; along
        the others, and along the last one, whose entries are neighbours in memory, the window slides over all places.
        """
        top, second = entries, None
        kernel, dilation = call.attributes["kernel_size"], call.attributes["dilation"]
        strides = list(call.attributes["stride"])
        last, sliding = max(axis for axis, size in enumerate(kernel) if size > 1), False
        for axis, (size, apart) in enumerate(zip(kernel, dilation, strict=True)):
            if size == 1:
                continue
            rest = prod(sizes[axis + 1 :])
            sliding = sliding or axis == len(kernel) - 1 or strides[axis] <= (size - 1) * apart
            if sliding:
                length = top.numel() - (size - 1) * apart * rest
                cuts = [slice(k * apart * rest, k * apart * rest + length) for k in range(size)]
                shape: tuple[int, ...] = (length,)
            else:
                reach = (targets[axis] - 1) * strides[axis] + 1
                cuts = [slice(k * apart, k * apart + reach, strides[axis]) for k in range(size)]
                shape = (planes * prod(sizes[:axis]), targets[axis], rest)
                before = (shape[0], sizes[axis], rest)
                top, second = top.view(before), None if second is None else second.view(before)
                sizes[axis], strides[axis] = targets[axis], 1
            top, second = self._two_largest(axis, top, second, cuts, shape, axis < last)
        assert second is not None
        plane = prod(sizes)
        steps = (s * prod(sizes[axis + 1 :]) for axis, s in enumerate(strides))
        return second, (plane, *steps)

    def _two_largest(
        self,
        axis: int,
        top: torch.Tensor,
        second: torch.Tensor | None,
        cuts: list[slice],
        shape: tuple[int, ...],
        go_on: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the two largest of several cuts of the entries, and of those that came second before."""
        places = [(slice(None), cut) if len(shape) > 1 else cut for cut in cuts]
        above, below, lower = (
            self._buffer(name, top, prod(shape)).view(shape) for name in (f"top {axis}", f"second {axis}", "lower")
        )
        running = top[places[0]]
        for number, place in enumerate(places[1:], 2):
            entry = top[place]
            torch.minimum(running, entry, out=below if number == 2 else lower)
            if number > 2:
                torch.maximum(below, lower, out=below)
            if second is not None:
                if number == 2:
                    torch.maximum(below, second[places[0]], out=below)
                torch.maximum(below, second[place], out=below)
            if number < len(places) or go_on:
                running = torch.maximum(running, entry, out=above)
        return (running.reshape(-1) if go_on else running), below.view(-1)


def _flat(tensor: torch.Tensor) -> torch.Tensor | None:
    """Lay a tensor without gaps out flat, in the order of its memory; None if it has gaps."""
    if not (tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))):
        return None
    return tensor.as_strided((tensor.numel(),), (1,))


def _least(tensor: torch.Tensor) -> float:
    """Give the least entry; infinity if there is none, or if one is no number."""
    least = float(tensor.min()) if tensor.numel() else inf
    return least if least == least else _least(tensor[~tensor.isnan()])


def _far(dtype: torch.dtype) -> float:
    """Give a distance that no values have."""
    return float(torch.finfo(dtype).max) / 4


def _near(gaps: torch.Tensor) -> float:
    """Give the least gap; infinity if all are far."""
    least = _least(gaps)
    return least if least < _far(gaps.dtype) / 2 else inf


def _alive(operation: Nonsmooth, call: Call, distances: torch.Tensor) -> torch.Tensor:
    """Leave out the results of an extremum that cannot move."""
    if isinstance(operation, Extremum) and distances.shape == call.result.shape:
        for value in call.attributes.get("flats") or ():
            distances = distances.masked_fill(call.result == value, inf)
    return distances
