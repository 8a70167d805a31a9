"""The store of a grid: a folder with one file per finished run, named by the run and its configuration.

A file is written whole or not at all, and says in clear what was run; one that is damaged is named and run again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nonsmooth import __version__
from nonsmooth.errors import UsageError
from nonsmooth.report.table import FORMAT_VERSION

__all__ = ["Store", "code_version", "plain_text", "read_text", "run_version"]

NOT_FINITE = ("nan", "inf", "-inf")
"""How JSON keeps the numbers that it has not; as texts they would come back as numbers."""


def plain_text(value: Any, what: str, *, ordered: bool = False) -> str:
    """Write a mapping of plain values as strict JSON that `read_text` gives back: what has no such text is refused.

    >>> plain_text({"loss": float("inf"), "shape": (2, 3)}, "the result")
    '{"loss": "inf", "shape": [2, 3]}'
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is {_short(value)}: it must be a mapping of plain values, such as {{'loss': 0.5}}.")
    return json.dumps(_plain(value, what), sort_keys=ordered, allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    """Turn tuples into lists and what is not finite into text; refuse what would come back as something else."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case str() if value not in NOT_FINITE:
            return value
        case str():
            raise UsageError(f"{where} is the text {value!r}, which would come back as a number: write another word.")
        case Mapping():
            odd = [key for key in value if not isinstance(key, str)]
            if odd:
                raise UsageError(f"{where} has the key {_short(odd[0])}, which would come back as text: write a text.")
            return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    raise UsageError(
        f"{where} is {_short(value)}, which JSON has not: give None, bool, int, float, text, lists or mappings of these; "
        "a number of an array by float(...) or int(...), an array by .tolist()."
    )


def _short(value: Any) -> str:
    """Show a value in a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def read_text(text: str) -> dict[str, Any]:
    """Read a mapping that `plain_text` wrote.

    >>> read_text('{"loss": "inf", "shape": [2, 3]}')
    {'loss': inf, 'shape': [2, 3]}
    """
    found: dict[str, Any] = _numbers(json.loads(text))
    return found


def _numbers(value: Any) -> Any:
    """Turn "nan", "inf" and "-inf" back into numbers."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and value in NOT_FINITE else value


@dataclass(frozen=True)
class Store:
    """The results of one run's configurations in a folder, which other runs may share.

    Attributes:
        folder: made when it is not there.
        run: the name of the function, with its module.
        version: of the run, by `run_version`.
        code: the version of this library, by `code_version`: results of different code are kept apart.
    """

    folder: Path
    run: str
    version: str
    code: str

    def __post_init__(self) -> None:
        """Make the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"results cannot be kept in {str(self.folder)!r}: {error.strerror or error}.") from error

    def path(self, configuration: str) -> Path:
        """Name the file of a configuration, which is given as canonical JSON."""
        key = _digest([self.run, self.version, self.code, configuration])
        return self.folder / f"{self.run}-{key[:24]}.json"

    def read(self, configuration: str) -> str | None:
        """Give the result of a configuration as JSON, or None; of a damaged file it warns."""
        path = self.path(configuration)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
        try:
            kept = json.loads(text)
            whole = kept.pop("sha256") == _digest(kept) and kept["configuration"] == json.loads(configuration)
        except (ValueError, TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            warnings.warn(f"{path} is damaged: its run is done again.", stacklevel=4)
            return None
        return json.dumps(kept["result"])

    def write(self, configuration: str, result: str, seconds: float) -> None:
        """Keep a result: in a file of another name first, so that the file is whole or not there."""
        kept = {
            "format_version": FORMAT_VERSION,
            "run": self.run,
            "version": self.version,
            "nonsmooth": self.code,
            "configuration": json.loads(configuration),
            "result": json.loads(result),
            "seconds": round(seconds, 3),
        }
        path = self.path(configuration)
        text = json.dumps({**kept, "sha256": _digest(kept)}, indent=2, allow_nan=False)
        try:
            descriptor, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


@cache
def code_version() -> str:
    """Give the version of this library and a hash of its code, which tells two states of a checkout apart."""
    folder, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".json")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"


def run_version(run: Callable[..., Any]) -> str:
    """Give the VERSION of a run, the function's or its module's, and a hash of the text of the function."""
    version = getattr(run, "VERSION", getattr(sys.modules.get(run.__module__), "VERSION", 1))
    try:
        return f"{version}+{_digest(inspect.getsource(run))[:12]}"
    except (OSError, TypeError):  # a function without text, such as one written in C
        return str(version)


def _digest(value: Any) -> str:
    """Hash plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
