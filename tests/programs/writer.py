"""A random program is Python text: whatever fails can be read, cut down and run."""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tests.adapters import Adapter
from tests.programs.jax_text import HEAD, in_jax

__all__ = ["LARGEST", "RandomProgram", "Writer"]

LARGEST = 12.0
"""No intermediate value of a program is larger at its point: smooth operations stay away from overflow."""

POINT_ENTRIES = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, -1.0, 2.0, -2.0, 0.5)


@dataclass(frozen=True)
class RandomProgram:
    """The text of constants and of a function `f(x)` of a vector, with the point at which it is to be differentiated."""

    name: str
    text: str
    point: tuple[float, ...]

    def on(self, xp: Adapter) -> tuple[Callable[..., Any], Any]:
        """Give `f` and the point in a framework, in double precision; `NotInJax` where JAX has no words for it."""
        if xp.name == "torch":
            return self.function(), self.x()
        text, file = in_jax(self.text), f"<{self.name} in {xp.name}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        scope: dict[str, Any] = {"__name__": "random_program"}
        exec(HEAD, scope)
        exec(compile(text, file, "exec"), scope)
        return scope["f"], xp.array(self.point)

    def script(self, xp: Adapter) -> str:
        """Print what reproduces the program in a framework."""
        return str(self) if xp.name == "torch" else f"{HEAD}{in_jax(self.text)}\nx = jnp.array({list(self.point)})\n"

    def x(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Give the point."""
        return torch.tensor(self.point, dtype=dtype)

    def function(self, dtype: torch.dtype = torch.float64) -> Callable[..., torch.Tensor]:
        """Run the text and give `f`; its lines can be read in tracebacks and reports."""
        file = f"<{self.name}>"
        linecache.cache[file] = (len(self.text), None, self.text.splitlines(keepends=True), file)
        scope = names(dtype)
        exec(compile(self.text, file, "exec"), scope)
        return scope["f"]

    def __str__(self) -> str:
        """Print what reproduces the program: a script as far as the call of `f`."""
        head = "import numpy as np\nimport torch\nfrom torch.nn import functional as F\n\nDTYPE = torch.float64\n"
        return f"{head}{self.text}\nx = torch.tensor({list(self.point)}, dtype=DTYPE)\n"


def names(dtype: torch.dtype) -> dict[str, Any]:
    """Give the names that the text of a program may use."""
    return {"torch": torch, "F": F, "np": np, "DTYPE": dtype, "__name__": "random_program"}


class Writer:
    """Writes a program line by line, running every line at the point; a line whose values are too large is dropped."""

    def __init__(self, rng: random.Random, point: tuple[float, ...]) -> None:
        self.rng = rng
        self.point = point
        self.constants: list[str] = []
        self.lines: list[str] = []
        self.sizes: dict[str, int] = {"x": len(point)}
        self.scope = names(torch.float64)
        self.scope["x"] = torch.tensor(point, dtype=torch.float64)

    # values

    def recent(self, candidates: list[str]) -> str:
        """Choose one name, late ones more often."""
        return candidates[-1 - min(int(self.rng.expovariate(0.35)), len(candidates) - 1)]

    def vector(self) -> str:
        """Give the name of a vector."""
        return self.recent([n for n, size in self.sizes.items() if size])

    def scalar(self) -> str:
        """Give a scalar: a name, or an entry of a vector."""
        scalars = [n for n, size in self.sizes.items() if not size]
        if scalars and self.rng.random() < 0.6:
            return self.recent(scalars)
        v = self.vector()
        return f"{v}[{self.rng.randrange(self.sizes[v])}]"

    def anything(self) -> str:
        """Give a vector or a scalar."""
        return self.vector() if self.rng.random() < 0.5 else self.scalar()

    def size(self, term: str) -> int:
        """Give the number of entries of a term, 0 for a scalar."""
        return self.sizes.get(term, 0)

    def like(self, term: str) -> str:
        """Give another term of the same size: a name, or a matrix times a vector."""
        size = self.size(term)
        if not size:
            return self.scalar()
        same = [n for n, s in self.sizes.items() if s == size and n != term]
        if same and self.rng.random() < 0.6:
            return self.recent(same)
        v = self.vector()
        return f"({self.matrix(size, self.sizes[v])} @ {v})"

    def integer(self, low: int = -2, high: int = 2) -> int:
        """Give a small integer that is not 0."""
        return self.rng.choice([k for k in range(low, high + 1) if k])

    def matrix(self, rows: int, columns: int) -> str:
        """Name a constant matrix of small integers, a third of them 0."""
        entry = lambda: float(self.rng.choice((0, 0, 1, 1, -1, 2)))  # noqa: E731
        return self.constant([[entry() for _ in range(columns)] for _ in range(rows)])

    def constant(self, value: object) -> str:
        """Name a constant."""
        name = f"K{len(self.constants)}"
        line = f"{name} = torch.tensor({value}, dtype=DTYPE)"
        self.constants.append(line)
        exec(line, self.scope)
        return name

    # lines

    def assign(self, expression: str) -> str | None:
        """Write `name = expression`; give the name, or None where its values are too large."""
        name = f"t{len(self.sizes)}"
        return self.block(name, f"{name} = {expression}")

    def block(self, name: str, text: str) -> str | None:
        """Write lines that define `name`."""
        with torch.no_grad():
            exec(text, self.scope)
        value = self.scope[name]
        if not (value.isfinite().all() and value.abs().max() <= LARGEST):
            return None
        self.lines += text.splitlines()
        self.sizes[name] = value.shape[0] if value.ndim else 0
        return name

    def program(self, name: str, result: str) -> RandomProgram:
        """Give the program that returns an expression."""
        body = "\n".join(f"    {line}" for line in [*self.lines, f"return {result}"])
        constants = "\n".join(self.constants)
        return RandomProgram(name, f"{constants}\n\n\ndef f(x):\n{body}\n", self.point)


def random_point(rng: random.Random, low: int = 1, high: int = 6) -> tuple[float, ...]:
    """Draw a point of small numbers, many of them 0 or equal."""
    return tuple(rng.choice(POINT_ENTRIES) for _ in range(rng.randint(low, high)))
