"""A problem in a user's file: `FILE.py:NAME`, where NAME() returns (function, point, *data)."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from nonsmooth.errors import NonsmoothError, UsageError

__all__ = ["Problem", "open_problem"]

Problem: TypeAlias = tuple[Callable[..., Any], Any, tuple[Any, ...]]
"""A function, a point, and the data."""

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@contextlib.contextmanager
def open_problem(target: str, returns: str = "(function, point, *data)") -> Iterator[Problem]:
    """Load a problem and work on it: what the user's code prints goes to standard error, its errors are UsageErrors.

    Args:
        target: FILE.py:NAME, NAME a function without arguments that returns (function, point, *data).
        returns: what the messages call that.

    Raises:
        UsageError: no such file or name, something else comes back, or the user's code raises (with its line).
    """
    name, path = _parse(target)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield _problem(_load(path), name, target, returns)
    except NonsmoothError:
        raise
    except (Exception, SystemExit) as error:
        place = _place(error, path)
        if place is None:
            raise
        message = error.msg if isinstance(error, SyntaxError) else error
        raise UsageError(f"{target} raised at {place}: {type(error).__name__}: {message}") from error
    finally:
        sys.path.remove(folder)


def _parse(target: str) -> tuple[str, Path]:
    """Split FILE.py:NAME."""
    file, colon, name = target.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"{target!r} is not FILE.py:NAME, for example model.py:problem.")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file!r}.")
    return name, path


def _load(path: Path) -> ModuleType:
    """Run a file as a module."""
    name = f"_nonsmooth_problem_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is no Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _problem(module: ModuleType, name: str, target: str, returns: str) -> Problem:
    """Call NAME, and check what it returns."""
    make = getattr(module, name, None)
    if make is None:
        near = difflib.get_close_matches(name, [n for n in vars(module) if not n.startswith("_")], 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"{target}: the file has no name {name!r}{hint}.")
    if not callable(make):
        raise UsageError(f"{target}: {name} is a {type(make).__name__}; it must be a function without arguments.")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise UsageError(f"{target}: {name} must be callable without arguments: {error}.") from error
    except ValueError:
        pass  # a builtin that shows no signature: calling it will tell
    found = make()
    if not isinstance(found, tuple | list) or len(found) < 2 or not callable(found[0]):
        what = f"a {type(found).__name__}"
        if isinstance(found, tuple | list):
            what += f" of {len(found)}: ({', '.join(type(item).__name__ for item in found[:6])})"
        raise UsageError(f"{target}: {name}() must return {returns}; it returned {what}.")
    return found[0], found[1], tuple(found[2:])


def _place(error: BaseException, path: Path) -> str | None:
    """Give the last line of the user's own code that an exception passed, or None where it passed none."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith(_LIBRARIES):
        return f"{error.filename}:{error.lineno}"
    own = str(path.resolve())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        library = frame.filename.startswith((_PACKAGE, *_LIBRARIES, "<"))
        if frame.filename == own or not library:
            return f"{frame.filename}:{frame.lineno}"
    return None
