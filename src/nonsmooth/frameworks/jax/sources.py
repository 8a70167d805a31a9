"""The line of the user's program from which an equation of a jaxpr comes, and the module of the model."""

from __future__ import annotations

import linecache
import os
import re
from functools import cache
from types import TracebackType
from typing import Any

import jax
from jax._src import source_info_util

from nonsmooth.program import Source

__all__ = ["is_library", "module_of", "source_at", "source_of"]

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_CHAPTERS = tuple(
    _OURS + name + os.sep for name in "frameworks bounds derivatives kinks cost optim implicit audit program".split()
)
_LIBRARIES = tuple(os.path.join("site-packages", name, "") for name in ("jax", "flax", "equinox", "optax", "keras"))
_JAX = os.path.dirname(jax.__file__) + os.sep


@cache
def is_library(file: str) -> bool:
    """Tell the files of jax, of libraries of layers, and of this library."""
    return file.startswith((_JAX, *_CHAPTERS)) or any(name in file for name in _LIBRARIES)


def source_of(info: Any, outer: Source | None) -> Source | None:
    """Find the line of the user's program: the innermost frame outside of the libraries, else that of the call around it.

    The traces of jax's own compiled functions are cached, with the lines of whoever called them first: an equation
    inside of one has the line of the call.
    """
    traceback = getattr(info, "traceback", None)
    frames = source_info_util.user_frames(traceback) if traceback is not None else ()
    for frame in frames:
        if not is_library(frame.file_name):
            text = linecache.getline(frame.file_name, frame.start_line).strip()
            return Source(frame.file_name, frame.start_line, frame.function_name, text)
    return outer


def module_of(info: Any) -> str:
    """Give the path of the module that runs, where the library of layers names it (Flax and Keras do).

    >>> from types import SimpleNamespace
    >>> module_of(SimpleNamespace(name_stack="vmap(jit(MLP))/jvp(Dense_0)"))
    'MLP.Dense_0'
    """
    name = str(getattr(info, "name_stack", ""))
    while (bare := re.sub(r"\b(?:vmap|jit|jvp|transpose|pmap|checkpoint|remat)\(([^()]*)\)", r"\1", name)) != name:
        name = bare
    return ".".join(part for part in name.split("/") if part)


def source_at(traceback: TracebackType | None) -> Source | None:
    """Find the user's innermost line in the traceback of an error."""
    found = None
    while traceback is not None:
        file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        if not is_library(file):
            found = Source(file, line, traceback.tb_frame.f_code.co_name, linecache.getline(file, line).strip())
        traceback = traceback.tb_next
    return found
