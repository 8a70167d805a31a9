"""A chapter imports only the chapters below it, and one folder per framework knows that framework."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = "nonsmooth"
SOURCE = Path(__file__).parents[2] / "src" / PACKAGE

ROOT = "__init__"
"""The public names, gathered from every chapter: only what stands above all of them may import it."""

TOP_TO_BOTTOM = (
    "__main__",
    "cli",
    "studies",
    ROOT,
    "audit",
    "implicit",
    "optim",
    "cost",
    "derivatives",
    "kinks",
    "bounds",
    "frameworks",
    "program",
    "sets",
    "report",
    "dictionary",
    "errors",
)

HOME = {
    "torch": ("frameworks/torch",),
    "lightning": ("frameworks/torch",),
    "pytorch_lightning": ("frameworks/torch",),
    "transformers": ("frameworks/torch",),
    "jax": ("frameworks/jax",),
    "jaxlib": ("frameworks/jax",),
    "optax": ("frameworks/jax",),
    "tensorflow": ("frameworks/tensorflow",),
    "keras": ("frameworks/tensorflow", "frameworks/torch"),
}
"""The folders in which a framework may be imported; beside each a chapter may have a folder of the same name."""

INSIDE_FUNCTIONS = ("studies",)
"""The chapters that may also import a framework, but only when one of their functions is called."""


@dataclass(frozen=True)
class Import:
    """One imported module or name, in full: `nonsmooth.sets.support`."""

    name: str
    line: int
    inside_function: bool
    for_types: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def find_imports(tree: ast.AST, package: str) -> Iterator[Import]:
    """Yield the imports of a file; `package` is the one that holds it, against which relative imports are resolved."""
    yield from _walk(tree, package, inside_function=False, for_types=False)


def _walk(node: ast.AST, package: str, inside_function: bool, for_types: bool) -> Iterator[Import]:
    for name in _imported(node, package):
        yield Import(name, node.lineno, inside_function, for_types)
    inside_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    typed = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, inside_function, for_types or child in typed)


def _imported(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(level=0):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        case ast.ImportFrom():
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            return [f"{base}.{alias.name}" for alias in node.names]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if ast.unparse(node.func).endswith("import_module"):
            return [name]
    return []


def chapter_of(imported: str) -> str | None:
    """Give the chapter of this package that an import reaches, or None for other packages and `__version__`."""
    package, _, rest = imported.partition(".")
    first = rest.partition(".")[0]
    if package != PACKAGE or first.startswith("__"):
        return None
    return first if first in TOP_TO_BOTTOM else ROOT


def find_violations(source: Path) -> list[str]:
    """Name every file and line of the package at `source` that breaks the layout."""
    found = []
    for path in sorted(source.rglob("*.py")):
        where = PurePosixPath(path.relative_to(source).as_posix())
        chapter = where.parts[0].removesuffix(".py")
        if chapter not in TOP_TO_BOTTOM:
            found.append(f"{where}: `{chapter}` has no place in the list of chapters")
            continue
        package = ".".join((PACKAGE, *where.parent.parts))
        for item in find_imports(ast.parse(path.read_text(encoding="utf-8"), str(path)), package):
            found += [f"{where}:{item.line}: {fault}" for fault in _faults(where, chapter, item)]
    return found


def _faults(where: PurePosixPath, chapter: str, item: Import) -> Iterator[str]:
    target = chapter_of(item.name)
    if target not in (None, chapter) and chapter != ROOT and _height(target) > _height(chapter):
        yield f"`{chapter}` imports `{item.name}`, which is above it"
    homes = HOME.get(item.package, ())
    folders = [folder for home in homes for folder in (home, PurePosixPath(chapter) / PurePosixPath(home).name)]
    if not homes or any(where.is_relative_to(folder) for folder in folders) or item.for_types:
        return
    if not (chapter in INSIDE_FUNCTIONS and item.inside_function):
        yield f"`{item.package}` is imported outside {' and '.join(homes)}"


def _height(chapter: str) -> int:
    return -TOP_TO_BOTTOM.index(chapter)


def test_every_chapter_imports_only_chapters_below_it() -> None:
    assert SOURCE.is_dir()
    assert find_violations(SOURCE) == []


LAWFUL = [
    ("__init__.py", "def __getattr__(name):\n    from nonsmooth import audit\n    return audit"),
    ("__init__.py", "from nonsmooth.errors import NonsmoothError"),
    ("cli/commands.py", "import nonsmooth as ns"),
    ("studies/digits.py", "import nonsmooth as ns\ndef run():\n    import torch"),
    ("derivatives/field.py", "from nonsmooth.sets import support\nfrom ..errors import NonsmoothError"),
    ("derivatives/__init__.py", "from .field import field\nfrom nonsmooth.derivatives.clarke import clarke"),
    ("report/text.py", "from nonsmooth import __version__\nimport rich"),
    ("frameworks/torch/capture.py", "import torch\nfrom torch.fx import Graph\nfrom ..framework import Framework"),
    ("optim/inna.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
    ("optim/torch/inna.py", "import torch\nfrom nonsmooth.optim.inna import step"),
    ("optim/jax/inna.py", "import optax"),
    ("audit/torch/keras.py", "import keras"),
    ("audit/torch/lightning.py", "from lightning.pytorch import Callback"),
    ("sets/polytope.py", "import torchlike"),
]

PLANTED = [
    ("sets/polytope.py", "from nonsmooth.program import Program", 1),
    ("sets/polytope.py", "from nonsmooth import kinks", 1),
    ("sets/polytope.py", "import nonsmooth.audit.watch as watch", 1),
    ("sets/polytope.py", "from ..program import Program", 1),
    ("sets/polytope.py", "from .. import program", 1),
    ("sets/polytope.py", "def f():\n    from nonsmooth.program import Program", 2),
    ("sets/polytope.py", "import importlib\nimportlib.import_module('nonsmooth.program')", 2),
    ("frameworks/torch/capture.py", "from ...kinks import kink", 1),
    ("derivatives/field.py", "import nonsmooth as ns", 1),
    ("derivatives/field.py", "from nonsmooth import backprop", 1),
    ("errors.py", "from nonsmooth.dictionary import operation", 1),
    ("kinks/kink.py", "import torch", 1),
    ("kinks/kink.py", "def f():\n    from torch import nn", 2),
    ("kinks/kink.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import torch", 5),
    ("frameworks/framework.py", "import torch.fx", 1),
    ("frameworks/jax/capture.py", "import torch", 1),
    ("studies/digits.py", "import torch", 1),
    ("optim/inna.py", "import torch", 1),
    ("optim/jax/inna.py", "import torch", 1),
    ("optim/torch/inna.py", "import optax", 1),
    ("audit/callbacks.py", "def f():\n    import keras", 2),
    ("audit/jax/keras.py", "import keras", 1),
    ("audit/callbacks.py", "import transformers", 1),
    ("__init__.py", "import torch", 1),
    ("elsewhere/thing.py", "import ast", None),
]


def _plant(root: Path, name: str, text: str) -> Path:
    path = root / PACKAGE / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return root / PACKAGE


@pytest.mark.parametrize(("name", "text"), LAWFUL)
def test_lawful_imports_pass(tmp_path: Path, name: str, text: str) -> None:
    assert find_violations(_plant(tmp_path, name, text)) == []


@pytest.mark.parametrize(("name", "text", "line"), PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str, line: int | None) -> None:
    (found,) = find_violations(_plant(tmp_path, name, text))
    assert found.startswith("elsewhere" if line is None else f"{name}:{line}: ")
