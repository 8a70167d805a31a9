"""What stands between the user's function and torch while a tape runs.

Operators arrive by a dispatch mode at torch's pre-dispatch key: before autograd, before composite operators are taken
apart, with real tensors. Beside it, what a dispatch mode cannot see: a user's `autograd.Function`, values that leave as
lists or arrays, and which module is running. All of it acts on the capturing thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nonsmooth.errors import CaptureError, UsageError
from nonsmooth.frameworks.torch.protection import refusal

if TYPE_CHECKING:
    from nonsmooth.frameworks.torch.tape import Tape

__all__ = [
    "CALLS_BACKWARD",
    "Escapes",
    "ModulePath",
    "Operators",
    "alone_at_pre_dispatch",
    "is_tracing",
    "torchs_own_slopes",
    "tracing",
    "watching_functions",
]

CALLS_BACKWARD = (
    "the function calls backward(), which adds to `.grad` of tensors",
    "differentiate inside with torch.autograd.grad(..., create_graph=True)",
)
"""What is wrong, and what to do, where the function calls backward()."""

_THREAD = threading.local()
_LOCK = threading.Lock()
_PRE_DISPATCH = threading.Lock()
_WATCHERS = 0


class Operators(SchemaCheckMode):
    """The dispatch mode: hands every operator to the tape, with itself switched off meanwhile."""

    def __init__(self, tape: Tape) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C._DisablePythonDispatcher():  # else torch would run its own decompositions, with other slopes
            return self.tape.operator(self, func, args, dict(kwargs or {}))


class Escapes(TorchFunctionMode):
    """Sees what leaves torch without an operator: lists, numpy arrays; prints are none of our business."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the name of a function of torch."""
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__", "__dlpack__"):
            with self.tape.paused():
                result = func(*args, **(kwargs or {}))
            self.tape.escape(name.strip("_"), args[0])
            return result
        if name in ("__repr__", "__format__"):
            with self.tape.paused():
                return func(*args, **(kwargs or {}))
        if name == "backward" and func is torch.Tensor.backward:
            raise refusal(CaptureError, *CALLS_BACKWARD)
        if name in ("register_hook", "register_post_accumulate_grad_hook"):
            message = "a tensor has a hook on its backward pass, which the program does not run"
            self.tape.find("hook", message, "write what the hook does as an autograd.Function")
        return func(*args, **(kwargs or {}))


class ModulePath:
    """The path of the module that is running, kept by torch's hooks around every forward."""

    def __init__(self, name_of: Callable[[torch.nn.Module], str] | None) -> None:
        self._name_of = name_of
        self._paths: list[str] = []
        self._known: dict[int, str] = {}
        self._thread = threading.get_ident()

    @property
    def current(self) -> str:
        """The path of the innermost module."""
        return self._paths[-1] if self._paths else ""

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow the modules until the end of the block."""
        before = torch.nn.modules.module.register_module_forward_pre_hook(self._enter)
        after = torch.nn.modules.module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def remember(self) -> None:
        """Keep the paths met so far, for modules that a checkpoint runs again by themselves."""
        named, known = self._name_of, dict(self._known)
        self._name_of = lambda module: (named(module) if named else "") or known.get(id(module), "")

    def _enter(self, module: torch.nn.Module, inputs: Any) -> None:
        """Go into a module."""
        if threading.get_ident() != self._thread:
            return
        if not self._paths:
            self._known.update({id(m): n for n, m in module.named_modules()})
        name = self._name_of(module) if self._name_of else ""
        self._paths.append(name or self._known.get(id(module), "") or self.current)

    def _leave(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Come out of a module."""
        if threading.get_ident() == self._thread and self._paths:
            self._paths.pop()


@contextmanager
def watching_functions(tape: Tape) -> Iterator[None]:
    """Hand `autograd.Function.apply` of this thread to the tape, also where the user has kept the bound method."""
    global _WATCHERS
    with _LOCK:
        _WATCHERS += 1
        if _WATCHERS == 1:
            setattr(_SingleLevelFunction, "apply", classmethod(_apply))  # noqa: B010
    _THREAD.tape = tape
    try:
        yield
    finally:
        _THREAD.tape = None
        with _LOCK:
            _WATCHERS -= 1
            if _WATCHERS == 0:
                delattr(_SingleLevelFunction, "apply")


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for `autograd.Function.apply`; what torch makes of a registered operator is that operator, no user's."""
    native = super(_SingleLevelFunction, cls).apply
    tape = getattr(_THREAD, "tape", None)
    if tape is None or cls.__module__ == torch._library.autograd.__name__:
        return native(*args, **kwargs)
    return tape.user_function(cls, native, args, kwargs)


@contextmanager
def alone_at_pre_dispatch() -> Iterator[None]:
    """Hold torch's pre-dispatch modes, of which a process has one stack: other threads wait."""
    if getattr(_THREAD, "tracing", False):
        raise UsageError(
            "capture was called inside a function that is being captured; capture the inner function by itself, and use "
            "plain torch inside."
        )
    with _PRE_DISPATCH:
        if torch._ops._len_torch_dispatch_stack_pre_dispatch():
            raise UsageError("capture was called inside a trace of torch (make_fx, export); call it outside.")
        _THREAD.tracing = True
        try:
            yield
        finally:
            _THREAD.tracing = False


def is_tracing() -> bool:
    """Tell whether this thread holds torch's pre-dispatch modes, or asked for torch's own slopes."""
    return bool(getattr(_THREAD, "tracing", False) or getattr(_THREAD, "native", False))


@contextmanager
def torchs_own_slopes() -> Iterator[None]:
    """Keep a surrounding `at_kinks` away from what the library itself evaluates."""
    before = getattr(_THREAD, "native", False)
    _THREAD.native = True
    try:
        yield
    finally:
        _THREAD.native = before


@contextmanager
def tracing(tape: Tape) -> Iterator[None]:
    """Hand every operator of torch on this thread to the tape."""
    with alone_at_pre_dispatch(), enable_python_dispatcher(), Operators(tape):
        yield
