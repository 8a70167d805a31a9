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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.adapters import FRAMEWORKS, LIBRARIES, SERVED, Adapter, adapter, installed, is_installed, served, version

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


WITHOUT_TENSORFLOW = "tensorboard.compat.notf"
"""The module by which TensorBoard is told to do without TensorFlow, as it does where that is missing: importing it takes long."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose what the libraries read once, at their first import: the backend of Keras, where JAX keeps compiled code."""
    chosen = config.getoption("--framework")
    if chosen and not is_installed(chosen):
        raise pytest.UsageError(f"{chosen} is not installed; installed are: {', '.join(installed())}")
    os.environ.setdefault("KERAS_BACKEND", chosen or "torch")
    for name, value in COMPILED_CODE.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault(WITHOUT_TENSORFLOW, ModuleType(WITHOUT_TENSORFLOW))
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


@functools.cache
def home_of(file: Path) -> str:
    """Give the framework to which what is not parametrised in a file belongs."""
    return (installed()[0], *imported(file))[-1]


@functools.cache
def holds_tests(file: Path) -> bool:
    """Tell whether a file may hold tests, or examples: importing what does not is most of the time of collecting."""
    return file.name.startswith("test_") or ">>>" in file.read_text(encoding="utf-8", errors="replace")


@functools.cache
def of_several(file: Path, framework: str) -> bool:
    """Tell whether tests of a file may be parametrised by a framework: by `xp`, where it is served, or by its name."""
    if not file.name.startswith("test_"):
        return False
    words = r"\bxp\b|[\"']framework[\"']" if framework in SERVED else r"[\"']framework[\"']"
    return re.search(words, file.read_text(encoding="utf-8", errors="replace")) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of frameworks that are not here, and those in which a run, of one framework or all, finds nothing."""
    if collection_path.suffix != ".py" or not collection_path.is_file():
        return None
    if not holds_tests(collection_path) or any(not is_installed(name) for name in imported(collection_path)):
        return True
    chosen = config.getoption("--framework")
    return True if chosen and home_of(collection_path) != chosen and not of_several(collection_path, chosen) else None


def belongs_to(item: pytest.Item) -> str:
    """Give the framework in whose run a test is."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    named = [parameters[key] for key in PARAMETERS if parameters.get(key) in FRAMEWORKS]
    return named[0] if named else home_of(item.path)


LATER = pytest.mark.slow
"""What a run without `-m` leaves to the slow one. In JAX every shape and type is traced and compiled anew: it has less."""

SINGLE_IN_JAX = "tests/derivatives/test_subgradient.py::test_closed_forms_in_single_precision[jax-"
"""The table that runs in JAX in single precision as well: by default every sixth case of it."""

SHARED = {
    "tests/derivatives/test_every_statement.py": (2, 3),
    "tests/derivatives/test_every_statement.py::test_sets[jax": (2, 6),
    "tests/derivatives/test_every_statement.py::test_verdicts[jax": (5, 6),
    "tests/derivatives/test_directional.py": (0, 3),
    "tests/derivatives/test_subgradient.py": (1, 3),
    "tests/derivatives/test_directional.py::test_cones": (1, 2),
    "tests/derivatives/test_subgradient.py::test_cones": (0, 2),
    "tests/derivatives/test_directional_random.py": (1, 2),
    "tests/derivatives/test_subgradient_random.py": (0, 2),
}
"""The files, or tests, that share out a table, and which part of how many is whose: each case is met at every run."""

DEAR_IN_JAX = ("tests/derivatives/test_every_statement.py::test_verdicts[jax-middle of sorted]",)
"""What takes half a minute to compile: by default its other tests run there."""

ONE_OF = {
    "tests/audit/test_callbacks.py::test_transformers_train": 2,
    "tests/bounds/constants/": 3,
    "tests/bounds/test_ellipsoid.py": 2,
    "tests/bounds/test_objectives.py": 3,
    "tests/bounds/test_operators.py": 4,
    "tests/bounds/test_recursion.py": 2,
    "tests/cost/test_definitions_arrays.py": 2,
    "tests/cost/test_scalar_sweep.py": 2,
    "tests/cost/test_theorem.py": 2,
    "tests/derivatives/test_abs_normal.py::test_increments": 4,
    "tests/derivatives/test_abs_normal.py": 2,
    "tests/derivatives/test_arrangement.py::test_the_parts": 2,
    "tests/derivatives/test_gradcheck.py::test_torchs_own_derivative_is_accepted[": 3,
    "tests/derivatives/test_gradcheck.py::test_wrong_use": 1,
    "tests/derivatives/test_gradcheck.py": 2,
    "tests/derivatives/test_verdict.py::test_every_value": 2,
    "tests/dictionary/test_functional.py::test_native_gradients": 3,
    "tests/dictionary/test_jax_records.py::test_records_on_jax": 2,
    "tests/frameworks/jax/test_certificates.py": 2,
    "tests/frameworks/jax/test_transform.py::test_it_can_be_mapped": 3,
    "tests/frameworks/jax/test_transform.py::test_the_transform_is_backprop": 5,
    "tests/frameworks/jax/test_transform.py::test_what_is_piecewise_constant": 3,
    "tests/frameworks/test_zoo.py": 2,
    "tests/optim/test_conditions.py::test_samples_never_contradict": 5,
    "tests/optim/test_inna_formula.py::test_inna": 5,
    "tests/optim/test_inna_nonsmooth.py": 3,
    "tests/optim/test_inna_optax.py::test_dtypes": 5,
    "tests/optim/test_inna_optax.py::test_the_same_steps": 5,
    "tests/optim/test_inna_torch.py::test_a_compiled_step_is_the_step": 3,
    "tests/references/test_adolc.py": 2,
    "tests/references/test_field_reference.py": 2,
    "tests/studies/test_batchnorm.py": 2,
    "tests/studies/test_relu_prime.py::test_two_full_backward_passes": 3,
}
"""Long tables, by the beginning of their names: one of how many cases of each test runs by default, the slow run has the others."""

DYNAMIC_INDEX = pytest.mark.xfail(
    reason="an index that jax computes is no guard: where the largest entries tie, nothing is certified", strict=True
)

UNAFFECTED = "tests/derivatives/test_every_statement.py::test_lexicographic_derivatives"
"""The test that accepts that there is no derivative."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what the slow run alone has, and what JAX does otherwise, and keep the tests of the framework that was asked for."""
    for place, item in enumerate(item for item in items if item.nodeid.startswith(SINGLE_IN_JAX)):
        if place % 6:
            item.add_marker(LATER)
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        parts = next((n for start, n in ONE_OF.items() if item.nodeid.startswith(start)), 1)
        if parts > 1 and parameters and item.get_closest_marker("slow") is None:
            test = (item.nodeid.partition("[")[0], belongs_to(item))
            if seen[test] % parts:
                item.add_marker(LATER)
            seen[test] += 1
        if belongs_to_another_part(item) or item.nodeid in DEAR_IN_JAX:
            item.add_marker(LATER)
        if parameters.get("xp") == "jax" and parameters.get("precision") == "single":
            item.add_marker(LATER)
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


def belongs_to_another_part(item: pytest.Item) -> bool:
    """Tell a case that another file of a shared table has: by its name, so that all of them have other cases."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    test, name = item.nodeid.partition("[")[0], parameters.get("name")
    places = (f"{test}[{parameters.get('xp')}", test, item.nodeid.partition("::")[0])
    part = next((SHARED[place] for place in places if place in SHARED), None)
    if part is None or name is None or item.nodeid.startswith(SINGLE_IN_JAX):
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
