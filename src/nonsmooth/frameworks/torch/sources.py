"""The line of the user's program that is running."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
from collections.abc import Mapping
from types import CodeType, FrameType, TracebackType

import torch

from nonsmooth.program import Source

__all__ = ["line_of", "place_of", "user_frame"]

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_CHAPTERS = tuple(
    _OURS + name + os.sep for name in "frameworks bounds derivatives kinks cost optim implicit audit program".split()
)
_COMMAND = _OURS + "cli" + os.sep
_CALL = torch.nn.Module._call_impl.__code__
_KERAS = os.path.join("site-packages", "keras", "src", "")
_LIBRARY = (_TORCH, *_CHAPTERS, contextlib.__file__, "<frozen", "<__array")


def user_frame() -> Source | None:
    """Find the line of the user's program: the innermost frame outside torch, Keras and this library.

    A model made of torch's own modules alone, run by the command, has no such line: its modules say where.
    """
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_COMMAND):
            return None
        if not _is_library(file):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Source(file, frame.f_lineno, frame.f_code.co_name, text)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def line_of(traceback: TracebackType | None) -> Source | None:
    """Find the line of the user's program in which an error arose: the innermost outside torch, Keras and this library."""
    found = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not _is_library(code.co_filename) and not code.co_filename.startswith(_COMMAND):
            text = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
            found = Source(code.co_filename, traceback.tb_lineno, code.co_name, text)
        traceback = traceback.tb_next
    return found


def place_of(names: Mapping[int, str]) -> tuple[str, str]:
    """Give the path of the innermost module that runs, by the name of its id, and the line of the user's program.

    Each is "" where there is none.
    """
    module, line = "", ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (module and line):
        code = frame.f_code
        if code is _CALL:
            module = module or names.get(id(frame.f_locals["self"]), "")
        elif not line and not _is_library(code.co_filename):
            line = _line(code, frame.f_lineno)
        frame = frame.f_back
    return module, line


@functools.cache
def _is_library(file: str) -> bool:
    """Tell the files of torch, of this library, and of Keras, whose layers say where."""
    return file.startswith(_LIBRARY) or _KERAS in file


@functools.cache
def _line(code: CodeType, number: int) -> str:
    """Print a line of the user's program."""
    text = linecache.getline(code.co_filename, number).strip()
    return str(Source(code.co_filename, number, code.co_name, text))
