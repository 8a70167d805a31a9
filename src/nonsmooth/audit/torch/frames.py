"""Acting when a loop is gone that calls back at its end, but not when it fails."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["at_end_of", "end_what_is_over", "find_caller"]


class _End:
    """Lives as long as the frame that holds it among its variables, and acts then."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.name = f"nonsmooth {id(self)}"
        self.act = weakref.finalize(self, act)
        self.act.atexit = False


_PENDING: weakref.WeakValueDictionary[str, _End] = weakref.WeakValueDictionary()


def find_caller(name: str, kind: type) -> FrameType | None:
    """Find the innermost running method of a name that belongs to an object of a kind."""
    frames = (f for f in _running() if f.f_code.co_name == name and isinstance(f.f_locals.get("self"), kind))
    return next(frames, None)


def at_end_of(frame: FrameType, act: Callable[[], None]) -> None:
    """Act when a frame is gone, by a return or by an exception that has been dealt with.

    What is put among the variables of a frame lives as long as the frame (PEP 667; before, the mapping itself does).
    """
    end = _End(act)
    _PENDING[end.name] = end
    frame.f_locals[end.name] = end


def end_what_is_over() -> None:
    """Act for the frames that run no more, and that a traceback keeps: that of the last error in a notebook, say."""
    alive = {name for frame in _running() for name in frame.f_locals if name in _PENDING}
    for name, end in list(_PENDING.items()):
        if name not in alive:
            end.act()


def _running() -> Iterator[FrameType]:
    """Go through the running frames of this thread, from here outwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
