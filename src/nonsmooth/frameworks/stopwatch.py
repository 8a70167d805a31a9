"""What a framework offers to whoever measures it: its own ways to differentiate, a clock, and a count of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Run", "Stopwatch"]


@dataclass(frozen=True)
class Run:
    """Something to be timed: a call without arguments, ready to run.

    `compile_seconds` is what it took to compile, apart from its calls; `memory` the peak in bytes where the compiler
    states it. None: it is not compiled.
    """

    call: Callable[[], Any]
    compile_seconds: float | None = None
    memory: int | None = None


class Stopwatch(Protocol):
    """The clock of a framework for a function f(x, *data) at a point, and the framework's own ways to differentiate f.

    Attributes:
        clock: "CUDA events" or "wall time"; `device`, where it runs; `threads`, how many the framework may use there.
    """

    clock: str
    device: str
    threads: int

    def prepared(self) -> AbstractContextManager[Any]:
        """Give the state in which all of it is measured: the framework as it is, without the user's modes."""
        ...

    def evaluation(self) -> Run:
        """Evaluate the function, without gradients."""
        ...

    def gradient(self) -> Run:
        """Evaluate and differentiate it by the framework itself."""
        ...

    def forward(self, directions: Sequence[Any]) -> Run:
        """Evaluate it with the framework's own tangents along directions, all at once."""
        ...

    def compiled(self, function: Callable[..., Any]) -> Run | None:
        """Compile another function of (x, *data); None where the framework compiles nothing."""
        ...

    def seconds(self, run: Run) -> float:
        """Time one call, to the end of all the work that it starts."""
        ...

    def memory(self, run: Run) -> int | None:
        """Give the most bytes of arrays that one call holds at a time beside what was there; None where it is not known."""
        ...
