"""A training loop under observation: from one step of the optimiser to the next, and every N-th of them seen."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.observation import Observation
from nonsmooth.frameworks.torch.budget import Budget
from nonsmooth.frameworks.torch.distances import Distances
from nonsmooth.frameworks.torch.observe import StepMode
from nonsmooth.frameworks.torch.parts import named_parameters
from nonsmooth.frameworks.torch.processes import Processes
from nonsmooth.frameworks.torch.repeatable import uncompiled

__all__ = ["TorchObserver", "observe_training"]

_WATCHED_THREADS: WeakKeyDictionary[TorchObserver, int] = WeakKeyDictionary()
"""The observers at work, and the thread of each: one mode of torch would hide what runs from another."""


def observe_training(
    model: Any,
    receive: Callable[[Observation], None],
    *,
    every: int,
    change_every: int,
    select: Selector | None,
    reduce: bool | None,
    budget: float | None,
) -> TorchObserver:
    """Make the observer of a module."""
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"watch takes a torch.nn.Module; found a {type(model).__module__}.{type(model).__name__}.")
    compiled = [name or "the model" for name, module in model.named_modules() if _is_compiled(module)]
    if compiled:
        raise UsageError(
            f"{compiled[0]} is compiled by torch.compile, and what runs in compiled code cannot be watched; watch a run "
            "of the model that is not compiled."
        )
    scripted = [name or "the model" for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        raise UsageError(
            f"{scripted[0]} is a TorchScript module, which cannot be watched; watch the module it was made of."
        )
    return TorchObserver(model, receive, every, change_every, select, reduce, budget)


class TorchObserver:
    """Watches a training loop: a step ends where an optimiser that holds parameters of the model has stepped."""

    def __init__(
        self,
        model: torch.nn.Module,
        receive: Callable[[Observation], None],
        every: int,
        change_every: int,
        select: Selector | None,
        reduce: bool | None,
        budget: float | None,
    ) -> None:
        self._model, self._receive = bare(model), receive
        self._every, self._change_every, self._select = every, change_every, select
        self._processes = Processes(model, reduce)
        if budget is not None and self._processes.reduces:
            raise UsageError(
                "budget: the processes would not leave out the same steps; pass `every` instead, or reduce=False."
            )
        self._budget = None if budget is None else Budget(budget)
        self._due = False
        self.left_out = 0
        self._by_hand = False
        self._watched: dict[str, torch.Tensor] = {}
        self._distances = Distances()
        self._optimiser: Callable[[], Any] = lambda: None
        self._rival: Callable[[], Any] = lambda: None
        self._mode: StepMode | None = None
        self._handles: list[Any] = []
        self._changed: int | None = None
        self._seen = -1
        self._left: list[StepMode] = []
        self._warned = False
        self.steps = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them saw."""
        return self._processes.rank == 0

    def start(self) -> None:
        """Begin to watch, with the first step observed."""
        if self._handles:
            raise UsageError("this log watches already: one block at a time.")
        if threading.get_ident() in _WATCHED_THREADS.values():
            raise UsageError(
                "another block watches this loop already, and sees all models in it: pass them together, as "
                "watch(torch.nn.ModuleList([a, b]))."
            )
        self._processes.meet()
        _WATCHED_THREADS[self] = threading.get_ident()
        self._watched = dict(named_parameters(self._model))
        self._handles = [
            register_optimizer_step_pre_hook(uncompiled(self._before)),
            register_optimizer_step_post_hook(uncompiled(self._after)),
        ]
        if self._budget is not None:
            self._budget.start()
        self._arm()

    def stop(self, *, failed: bool) -> None:
        """End, with nothing left of the watching."""
        _WATCHED_THREADS.pop(self, None)
        for handle in self._handles:
            handle.remove()
        self._handles = []
        mode = self._mode
        try:
            if mode is not None and mode.backwards and not self.steps and not failed:
                self._conclude()  # a loop that no optimiser of torch.optim has stepped: its only observation
            elif mode is not None:
                self._put_away(mode)
        finally:
            self._processes.leave()
        self._mode = None
        self._left = [m for m in self._left if not m.leave()]

    def _put_away(self, mode: StepMode) -> None:
        """Take a mode away, later if torch has it in hand now."""
        if not mode.leave():
            self._left.append(mode)

    def finish_step(self) -> None:
        """End a step by hand; from then on optimisers are not asked."""
        self._by_hand = True
        self._finish()

    def _before(self, optimiser: Any, args: Any, kwargs: Any) -> None:
        """See an optimiser that is about to step: with a closure the passes are still to come."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if self._takes_over(optimiser):
            self._optimiser, self._due = weakref.ref(optimiser), self._mode is not None
            self._drop()  # it has seen the first of the two steps
        if self._is_ours(optimiser) and closure is None:
            self._conclude()

    def _after(self, optimiser: Any, args: Any, kwargs: Any) -> None:
        """See an optimiser that has stepped."""
        if self._is_ours(optimiser):
            self._finish()

    def _is_ours(self, optimiser: Any) -> bool:
        """Tell the optimiser that counts the steps: the first one that holds a parameter of the model."""
        if self._by_hand:
            return False
        known = self._optimiser()
        if known is None and not _held(optimiser).isdisjoint(map(id, self._watched.values())):
            self._optimiser, known = weakref.ref(optimiser), optimiser
        return known is optimiser

    def _takes_over(self, optimiser: Any) -> bool:
        """Tell an optimiser that another phase of the training has put in the place of the first.

        It shares parameters with that one, and steps twice in a row.
        """
        known, before = self._optimiser(), self._rival()
        self._rival = weakref.ref(optimiser)
        if self._by_hand or known is None or known is optimiser or before is not optimiser:
            return False
        return not _held(optimiser).isdisjoint(_held(known))

    def _drop(self) -> None:
        """End an observation without a record."""
        mode, self._mode = self._mode, None
        if mode is not None:
            self._put_away(mode)

    def _finish(self) -> None:
        """Count a step, and observe the next one if it is due."""
        observed = self._mode is not None or self._seen == self.steps
        self._conclude()
        self.steps += 1
        if self._budget is not None:
            self._budget.passed(observed)
        self._arm()

    def _arm(self) -> None:
        """Observe the step that begins, if it is due."""
        if self.steps % self._every == 0:
            self.left_out += self._due
            self._due = True
        if not self._due or (self._budget is not None and not self._budget.allows):
            return
        self._due = False
        self._watched = dict(named_parameters(self._model))  # it may grow; also those that are frozen now
        due = self._changed is None or self.steps - self._changed >= self._change_every
        self._left = [m for m in self._left if not m.leave()]
        self._mode = StepMode(self._model, self._watched, self._select if due else None, self._distances)
        self._mode.enter()

    def _conclude(self) -> None:
        """End the observation of a step, and hand it over."""
        mode, self._mode = self._mode, None
        if mode is None:
            return
        self._put_away(mode)
        if mode.is_elsewhere:  # the next step, that begins here, is seen
            self._due = True
            return
        if self._select is None:
            mode.why = "not asked for"
        change = mode.change()
        if mode.failed:
            self._warn(mode.failed)
        if change is not None and mode.measured:
            self._changed = self.steps
        mode.release()
        self._seen = self.steps
        try:
            norm, not_finite = self._gradient()
        except Exception as error:  # gradients of a kind that is not known here
            norm, not_finite = None, ()
            self._warn(f"the gradient's norm: {type(error).__name__}: {error}")
        seen = Observation(
            step=self.steps,
            rows=mode.rows(),
            change=change,
            why="" if change is not None else mode.why,
            gradient_norm=norm,
            not_finite=not_finite,
            backwards=mode.backwards,
            unseen=tuple(sorted(mode.unseen)),
        )
        self._receive(self._processes.merged(seen))

    def _warn(self, what: str) -> None:
        """Say once what failed."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"watch: step {self.steps} of the training: {what}.", stacklevel=3)

    def _gradient(self) -> tuple[float | None, tuple[str, ...]]:
        """Give the norm of the gradient, and the parameters where it is not finite."""
        named = [(n, p.grad) for n, p in self._watched.items() if p.grad is not None]
        if not named:
            return None, ()
        dense = [(g.coalesce()._values() if g.is_sparse else g).detach() for _, g in named]
        groups: dict[Any, list[torch.Tensor]] = {}
        for g in dense:
            groups.setdefault((g.device, g.dtype), []).append(g)
        norms: dict[int, float] = {}
        for (_, dtype), part in groups.items():
            found = torch.stack(torch._foreach_norm(part, 2, dtype=_wide(dtype))).tolist()
            norms.update({id(g): n for g, n in zip(part, found, strict=True)})
        sizes = [norms[id(g)] for g in dense]
        bad = tuple(
            n for (n, _), g, s in zip(named, dense, sizes, strict=True) if not s < float("inf") and not _finite(g)
        )
        return sum(s**2 for s in sizes) ** 0.5, bad


def _held(optimiser: Any) -> set[int]:
    """Give the identities of the parameters that an optimiser holds."""
    return {id(p) for group in optimiser.param_groups for p in group["params"]}


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """Give the model inside a wrapper for several processes or devices."""
    wrappers = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def _is_compiled(module: torch.nn.Module) -> bool:
    """Tell whether a module runs compiled."""
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None


def _wide(dtype: torch.dtype) -> torch.dtype | None:
    """Give the type in which norms are added up."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None


def _finite(tensor: torch.Tensor) -> bool:
    """Tell whether all entries are finite."""
    return bool(torch.isfinite(tensor).all())
