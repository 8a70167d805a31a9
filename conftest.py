"""What holds for every test: the frameworks it runs on.

`pytest --framework jax` runs what belongs to one framework. A test belongs to the one that it is parametrised by (`xp`, or a
name under `framework`), else to the last that its file imports; a test of no framework belongs to the first installed.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import FRAMEWORKS, LIBRARIES, Adapter, adapter, installed, is_installed, served, version

PARAMETERS = ("xp", "framework")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run be of one framework."""
    parser.addoption("--framework", choices=FRAMEWORKS, help="run what belongs to one framework; all of them without")


COMPILED_CODE = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).with_name(".pytest_cache") / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""JAX keeps what it has compiled, most of its time, for the other worker and for the next run."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose what the libraries read once, at their first import: the backend of Keras, where JAX keeps compiled code."""
    chosen = config.getoption("--framework")
    if chosen and not is_installed(chosen):
        raise pytest.UsageError(f"{chosen} is not installed; installed are: {', '.join(installed())}")
    os.environ.setdefault("KERAS_BACKEND", chosen or "torch")
    for name, value in COMPILED_CODE.items():
        os.environ.setdefault(name, value)
    import nonsmooth

    PUBLIC.update({name: getattr(nonsmooth, name) for name in nonsmooth.__all__})


PUBLIC: dict[str, object] = {}
"""The public names of the package: collecting a doctest puts a folder of the same name, a module, in the place of a function."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give the public names back to what they name."""
    import nonsmooth

    for name, value in PUBLIC.items():
        setattr(nonsmooth, name, value)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which frameworks this run is of, and which others are here."""
    chosen = config.getoption("--framework")
    runs = [f"{name} {version(name)}" for name in installed() if chosen in (None, name)]
    beside = [f"{name} {version(name)}" for name in LIBRARIES if is_installed(name)]
    missing = [name for name in FRAMEWORKS if not is_installed(name)]
    text = f"frameworks: {', '.join(runs)}; libraries: {', '.join(beside) or 'none'}"
    return text + (f"; not installed: {', '.join(missing)}" if missing else "")


@functools.cache
def imported(file: Path) -> tuple[str, ...]:
    """Give the frameworks that a file imports, at its top or in the examples of its docstrings."""
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = re.findall(r"^(?:\s*>>> )?(?:import|from) ([\w., ]+)", text, re.MULTILINE)
    words = {word.strip().partition(".")[0].partition(" ")[0] for line in lines for word in line.split(",")}
    return tuple(name for name in FRAMEWORKS if name in words)


def home_of(file: Path) -> str:
    """Give the framework to which what is not parametrised in a file belongs."""
    return (installed()[0], *imported(file))[-1]


@functools.cache
def of_several(file: Path) -> bool:
    """Tell whether the tests of a file may be parametrised by frameworks."""
    return re.search(r"\bxp\b|\bframework\b", file.read_text(encoding="utf-8", errors="replace")) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of frameworks that are not here, and those in which a run of one framework finds nothing."""
    if collection_path.suffix != ".py" or not collection_path.is_file():
        return None
    if any(not is_installed(name) for name in imported(collection_path)):
        return True
    chosen = config.getoption("--framework")
    return True if chosen and home_of(collection_path) != chosen and not of_several(collection_path) else None


def belongs_to(item: pytest.Item) -> str:
    """Give the framework in whose run a test is."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    named = [parameters[key] for key in PARAMETERS if parameters.get(key) in FRAMEWORKS]
    return named[0] if named else home_of(item.path)


COMPILED = pytest.mark.slow
"""In JAX every shape and type is traced and compiled anew: by default the tables run there in double precision."""

SINGLE_IN_JAX = "tests/derivatives/test_subgradient.py::test_closed_forms_in_single_precision[jax-"
"""The table that runs in JAX in single precision as well: by default every third case of it."""

TABLES_IN_JAX = {
    "tests/derivatives/test_every_statement.py": (2, 3),
    "tests/derivatives/test_every_statement.py::test_sets": (2, 6),
    "tests/derivatives/test_every_statement.py::test_verdicts": (5, 6),
    "tests/derivatives/test_directional.py": (0, 3),
    "tests/derivatives/test_subgradient.py": (1, 3),
    "tests/derivatives/test_directional.py::test_cones": (1, 2),
    "tests/derivatives/test_subgradient.py::test_cones": (0, 2),
    "tests/derivatives/test_directional_random.py": (1, 2),
    "tests/derivatives/test_subgradient_random.py": (0, 2),
}
"""The files, or tests, that share out a table in JAX, and which part of how many is whose: each case is met at every run."""

DEAR_IN_JAX = ("tests/derivatives/test_every_statement.py::test_verdicts[jax-middle of sorted]",)
"""What takes half a minute to compile: by default its other tests run there."""

ONE_OF = {
    "tests/bounds/constants/": 3,
    "tests/bounds/test_ellipsoid.py": 2,
    "tests/bounds/test_operators.py": 2,
    "tests/bounds/test_recursion.py": 2,
    "tests/cost/test_definitions_arrays.py": 2,
    "tests/cost/test_scalar_sweep.py": 2,
    "tests/cost/test_theorem.py": 2,
    "tests/derivatives/test_abs_normal.py": 2,
    "tests/frameworks/jax/test_certificates.py": 2,
    "tests/references/test_adolc.py": 2,
    "tests/references/test_field_reference.py": 2,
    "tests/studies/test_batchnorm.py": 2,
}
"""Long tables, one of how many cases of each test runs by default, the first among them; all of them in the slow run."""

DYNAMIC_INDEX = pytest.mark.xfail(
    reason="an index that jax computes is no guard: where the largest entries tie, nothing is certified", strict=True
)

UNAFFECTED = "tests/derivatives/test_every_statement.py::test_lexicographic_derivatives"
"""The test that accepts that there is no derivative."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what JAX takes long for, or does otherwise, and keep the tests of the framework that was asked for."""
    for place, item in enumerate(item for item in items if item.nodeid.startswith(SINGLE_IN_JAX)):
        if place % 3:
            item.add_marker(COMPILED)
    seen: dict[str, int] = {}
    for item in items:
        parts = next((n for start, n in ONE_OF.items() if item.nodeid.startswith(start)), 1)
        if parts > 1 and hasattr(item, "callspec"):
            test = item.nodeid.partition("[")[0]
            seen[test] = seen.get(test, -1) + 1
            if seen[test] % parts:
                item.add_marker(COMPILED)
        if waits_in_jax(item) or item.nodeid in DEAR_IN_JAX:
            item.add_marker(COMPILED)
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("xp") == "jax" and parameters.get("precision") == "single":
            item.add_marker(COMPILED)
        if (
            parameters.get("xp") == "jax"
            and parameters.get("name") == "index of the largest"
            and not item.nodeid.startswith(UNAFFECTED)
        ):
            item.add_marker(DYNAMIC_INDEX)
    chosen = config.getoption("--framework")
    if not chosen:
        return
    kept = [item for item in items if belongs_to(item) == chosen]
    config.hook.pytest_deselected(items=[item for item in items if belongs_to(item) != chosen])
    items[:] = kept


def waits_in_jax(item: pytest.Item) -> bool:
    """Tell a case of a table that JAX leaves to the slow run: by its name, so that files which share a table share cases."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    places = (item.nodeid.partition("[")[0], item.nodeid.partition("::")[0])
    part, name = next((TABLES_IN_JAX[p] for p in places if p in TABLES_IN_JAX), None), parameters.get("name")
    if part is None or name is None or parameters.get("xp") != "jax" or item.nodeid.startswith(SINGLE_IN_JAX):
        return False
    return zlib.crc32(name.encode(), 1) % part[1] != part[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of `xp` on every framework that is served, unless it says on which."""
    told = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "xp" in metafunc.fixturenames and not any("xp" in re.findall(r"\w+", names) for names in told):
        metafunc.parametrize("xp", served(), indirect=True)


@pytest.fixture
def xp(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """Give the adapter of a framework, which makes arrays of double precision."""
    found = adapter(request.param)
    with found.default("double"):
        yield found


@pytest.fixture(autouse=True)
def jax_in_single_precision() -> Iterator[None]:
    """Put JAX's switch for double precision back: measuring conventions turns it on for the whole process."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)
