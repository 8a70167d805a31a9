"""The line of the user's program that is running."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Mapping

import torch

from nonsmooth.program import Source

__all__ = ["running_module", "user_frame"]

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_CHAPTERS = tuple(_OURS + name + os.sep for name in ("frameworks", "derivatives", "kinks", "optim", "audit", "program"))
_COMMAND = _OURS + "cli" + os.sep
_CALL = torch.nn.Module._call_impl.__code__
_LIBRARY = (_TORCH, *_CHAPTERS, contextlib.__file__, "<frozen", "<__array")


def user_frame() -> Source | None:
    """Find the line of the user's program: the innermost frame outside torch and this library.

    A model made of torch's own modules alone, run by the command, has no such line: its modules say where.
    """
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_COMMAND):
            return None
        if not file.startswith(_LIBRARY):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Source(file, frame.f_lineno, frame.f_code.co_name, text)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def running_module(names: Mapping[int, str]) -> str:
    """Give the path of the innermost module that runs, by the name of its id; "" outside all of them."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            name = names.get(id(frame.f_locals["self"]))
            if name is not None:
                return name
        frame = frame.f_back  # type: ignore[assignment]
    return ""
