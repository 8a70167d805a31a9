"""The kink linearisation by torch: one recorded run, cut open at its active kinks, and sweeps over it both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.framework import ROUNDING, Evaluation
from nonsmooth.frameworks.torch.interception import torchs_own_slopes
from nonsmooth.frameworks.torch.space import SPACE
from nonsmooth.frameworks.torch.tree import flatten

__all__ = ["LinearisedTorch"]

ROWS = 64
"""How many rows of a Jacobian one batched backward pass gives."""


class LinearisedTorch:
    """A program cut at its active kinks; see `framework.Linearised`.

    Reverse sweeps run over the graph of the recorded run. Forward sweeps push tangents over its values; a program that
    writes in place is run again for each of them.
    """

    def __init__(self, framework: Any, x: Any, cut: Callable[..., Evaluation]) -> None:
        self._framework, self._x, self._cut = framework, x, cut
        probe = cut()
        self.evaluation = probe
        self._outputs = [u for c in probe.cuts for u in c.outputs]
        self._jumps = [z for c in probe.cuts for z in c.jumps]
        self._arguments = [a for c in probe.cuts for a in c.arguments]

    def start(self) -> tuple[Floats, Floats]:
        """Give J and Y."""
        result = self._framework.scalar(self.evaluation)
        return self._sweep([result], [torch.ones_like(result)])

    def jacobian(self) -> tuple[Floats, Floats]:
        """Give J and Y of the entries of all results, laid out in a row."""
        leaves = flatten(self.evaluation.result)[0]
        units = np.eye(sum(leaf.numel() for leaf in leaves))
        try:
            found = [
                self._sweep(*self._results(units[k : k + ROWS]), batch=len(units[k : k + ROWS]))
                for k in range(0, len(units), ROWS)
            ]
        except RuntimeError:  # an operation whose backward pass cannot be batched
            found = [(j[None], y[None]) for j, y in map(self.pull_results, units)]
        return np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found])

    def pull_results(self, seeds: Floats) -> tuple[Floats, Floats]:
        """Give seeds' J and seeds' Y, for seeds of the entries of all results."""
        return self._sweep(*self._results(seeds))

    def _results(self, seeds: Floats) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Pick the results that depend on the point, with their cotangents: seeds may have a first axis, of several."""
        nodes, cotangents, place = [], [], 0
        for leaf in flatten(self.evaluation.result)[0]:
            part = torch.as_tensor(seeds[..., place : place + leaf.numel()], dtype=leaf.dtype, device=leaf.device)
            place += leaf.numel()
            if leaf.requires_grad:
                nodes.append(leaf)
                cotangents.append(part.reshape((*seeds.shape[:-1], *leaf.shape)))
        return nodes, cotangents

    def pull(self, seeds: Floats, *, arguments: bool = False) -> tuple[Floats, Floats]:
        """Give seeds' Z and seeds' L, by one reverse sweep over the nodes whose seeds are not zero."""
        return self._sweep(*self._seeded(seeds, arguments))

    def rounding(self, part: slice | None = None) -> float:
        """Estimate the rounding of (a part of) J, from the scale of the tangent of the result along random signs."""
        result = self._framework.scalar(self.evaluation)
        n = sum(leaf.numel() for leaf in self.evaluation.leaves)
        signs = np.zeros(n)
        signs[part or slice(None)] = np.random.default_rng(0).choice([-1.0, 1.0], len(signs[part or slice(None)]))
        evaluation, _ = self._moved(signs)
        assert evaluation.program is not None
        with torch.inference_mode(False), torch.no_grad(), torchs_own_slopes():
            scale = evaluation.tangents.scale(evaluation.program.result, 0)
        return ROUNDING * float(torch.finfo(result.dtype).eps) * float(scale)

    def interactions(self, seeds: Floats) -> Floats:
        """Give seeds' L alone."""
        nodes, cotangents = self._seeded(seeds, False)
        return SPACE.flat(self._back(nodes, cotangents, self._outputs))  # type: ignore[no-any-return]

    def _seeded(self, seeds: Floats, arguments: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Pick the nodes whose seeds are not zero, with their cotangents."""
        nodes, cotangents, place = [], [], 0
        for jump, argument in zip(self._jumps, self._arguments, strict=True):
            seed = seeds[place : place + jump.numel()]
            place += jump.numel()
            node = argument if arguments and argument is not None else jump
            if np.any(seed) and node.requires_grad:
                nodes.append(node)
                cotangents.append(torch.as_tensor(seed, dtype=node.dtype, device=node.device).reshape(node.shape))
        return nodes, cotangents

    def rows(self, node: torch.Tensor) -> tuple[Floats, Floats]:
        """Give the derivatives of the entries of a node with respect to the point and to the u."""
        flat = node.reshape(-1)
        found = [self._sweep([flat[i]], [torch.ones_like(flat[i])]) for i in range(flat.numel())]
        return np.array([row for row, _ in found]), np.array([row for _, row in found])

    def push(self, direction: Floats) -> Floats:
        """Give Z d."""
        _, found = self._moved(direction)
        parts = [np.asarray(SPACE.numpy(z), dtype=np.float64).ravel() for z in found]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _moved(self, direction: Floats) -> tuple[Evaluation, list[torch.Tensor]]:
        """Push tangents along a direction; give the run whose values they belong to, and the jumps of its blocks."""
        tree, evaluation = SPACE.unflatten_entries(self._x, torch.as_tensor(direction)), self.evaluation
        with torch.inference_mode(False), torch.no_grad(), torchs_own_slopes():
            if evaluation.tangents.late:
                evaluation.tangents.restart([lambda: flatten(tree)[0]])
            else:
                with torch.enable_grad():
                    evaluation = self._cut(tree)
            moved = [(b, c.call.tangents) for c in evaluation.cuts for b in c.blocks]
            return evaluation, [b.jumps(tangents(0)) for b, tangents in moved if tangents is not None]

    def _sweep(
        self, nodes: list[torch.Tensor], cotangents: list[torch.Tensor], batch: int | None = None
    ) -> tuple[Floats, Floats]:
        """Sweep back from some nodes to the point and to what the blocks add; with many cotangents at once if asked."""
        n = len(self.evaluation.leaves)
        whole = self._back(nodes, cotangents, [*self.evaluation.leaves, *self._outputs], batch)
        if batch is not None:
            parts = [SPACE.numpy(t).reshape(batch, -1).astype(np.float64) for t in whole]
            empty = np.zeros((batch, 0))
            return np.concatenate([empty, *parts[:n]], axis=1), np.concatenate([empty, *parts[n:]], axis=1)
        return SPACE.flat(whole[:n]), SPACE.flat(whole[n:])

    @staticmethod
    def _back(
        nodes: list[torch.Tensor], cotangents: list[torch.Tensor], targets: list[torch.Tensor], batch: int | None = None
    ) -> list[torch.Tensor]:
        """Sweep back from some nodes to others."""
        found: tuple[torch.Tensor | None, ...] = (None,) * len(targets)
        if targets and any(n.requires_grad for n in nodes):
            with torch.inference_mode(False), torchs_own_slopes():
                found = torch.autograd.grad(
                    nodes, targets, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=batch is not None
                )
        shape = () if batch is None else (batch,)
        return [t.new_zeros((*shape, *t.shape)) if g is None else g for g, t in zip(found, targets, strict=True)]
