"""The frameworks are extras: each works where the others are missing, none imports another, and a run says which it was of."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests import each_framework
from tests.adapters import FRAMEWORKS, LIBRARIES, SERVED, installed, is_installed, served, version

ROOT = Path(__file__).parents[2]

PROGRAMS = {
    "torch": "import torch\n"
    "f, zero, one = lambda t: torch.relu(t) - torch.relu(-t), torch.tensor(0.0), torch.tensor(1.0)\n",
    "jax": "import jax, jax.numpy as jnp\n"
    "f, zero, one = lambda t: jax.nn.relu(t) - jax.nn.relu(-t), jnp.float32(0.0), jnp.float32(1.0)\n",
}

CALLS = """
import nonsmooth as ns
_, gradient, certificate = ns.subgradient(f, zero)
assert float(gradient) == 1 and certificate.certified, certificate
assert [float(ns.backprop(f, zero, at_kinks=c)) for c in ("framework", 0.5, 1.0)] == [0, 1, 2]
assert float(ns.directional(f, zero, -one)) == -1
assert ns.clarke(f, zero).box() == ([1], [1]) and ns.field(f, zero).exact
assert ns.kinks(f, zero).count == 2
"""


def run(script: str) -> str:
    """Run a script in a fresh interpreter; give what it prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


MISSING = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def without(*names: str) -> str:
    """Give lines after which modules cannot be imported, as if they were not installed."""
    return MISSING.format(names=names)


@pytest.mark.parametrize("framework", served())
def test_a_framework_works_alone(framework: str) -> None:
    """Functions of one framework are captured and differentiated where no other can be imported."""
    others = (*(name for name in FRAMEWORKS if name != framework), *LIBRARIES)
    run(without(*others) + PROGRAMS[framework] + CALLS)


@pytest.mark.parametrize("framework", served())
def test_a_missing_framework_is_seen(framework: str) -> None:
    """The probe fails where the framework of the function is the one that is missing."""
    with pytest.raises(AssertionError, match=f"No module named '{framework}'"):
        run(without(framework) + PROGRAMS[framework])


@pytest.mark.parametrize("framework", served())
def test_no_framework_imports_another(framework: str) -> None:
    """After everything has been called on a function of one framework, no other is loaded, though all are installed."""
    others = [name for name in (*FRAMEWORKS, *LIBRARIES) if name != framework]
    probe = f"import sys\nprint(*[name for name in {others!r} if name in sys.modules])"
    assert run(PROGRAMS[framework] + CALLS + probe).split() == []


@pytest.mark.parametrize(("framework", "other"), list(itertools.permutations(served(), 2)))
def test_both_in_one_process(framework: str, other: str) -> None:
    """The framework is found from the type of the point, also where the other has been imported first."""
    run(f"import {other}\n" + PROGRAMS[framework] + CALLS)


def test_no_framework_at_all() -> None:
    """Without any, the package is imported, and a point that is no array is refused by its type."""
    said = run(
        without(*FRAMEWORKS)
        + "import nonsmooth as ns\ntry:\n    ns.backprop(abs, 0.0)\nexcept ns.errors.PointError as error:\n    print(error)"
    )
    assert "float" in said and all(name in said.lower() for name in ("pytorch", *SERVED[1:]))


# --- the runs of the suite --------------------------------------------------------------------------------------------


PART = ("tests/derivatives/test_directional.py", "tests/sets/test_hull.py", "tests/optim/test_inna_optax.py")


COLLECT = """
import sys, pytest
for framework in sys.argv[1].split(","):
    print("run", framework, flush=True)
    status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "--framework", framework, *sys.argv[2:]])
    assert status in (0, 5), status
"""


@functools.cache
def collected() -> dict[str, frozenset[str]]:
    """Give the tests that the run of each framework would select, of a part of the suite."""
    command = [sys.executable, "-c", COLLECT, ",".join(installed()), *PART]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("run "):
            found[line.removeprefix("run ")] = tests = []
        elif line.startswith("tests/"):
            tests.append(line)
    return {framework: frozenset(tests) for framework, tests in found.items()}


def test_the_runs_share_out_the_suite() -> None:
    """A test is in the run of one framework: its own, and what needs none is in the first."""
    runs = [collected()[name] for name in installed()]
    assert all(not (a & b) for a, b in itertools.combinations(runs, 2))
    assert any("test_hull.py" in test for test in runs[0])
    if "jax" in installed():
        assert any("test_inna_optax.py" in test for test in collected()["jax"])


@pytest.mark.parametrize("name", served())
def test_a_run_of_one_framework_has_its_cases(name: str) -> None:
    """The cases of the tables are in the run of each framework that is served, and in no other."""
    found = collected()[name]
    assert any(test.startswith(f"tests/derivatives/test_directional.py::test_closed_forms[{name}-") for test in found)
    assert not any(f"[{other}-" in test for test in found for other in FRAMEWORKS if other != name)


def test_an_unknown_framework_is_refused() -> None:
    """pytest lists those that there are."""
    command = [sys.executable, "-m", "pytest", "--framework", "theano", "tests/sets/test_hull.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 4 and "theano" in done.stderr and all(name in done.stderr for name in FRAMEWORKS)


STUB = [sys.executable, "-c", "import sys; sys.exit({'torch': 0, 'jax': 1}.get(sys.argv[-1], 5))"]


def test_every_framework_runs_and_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    """A failure does not end the others; the worst status is that of the whole, and each run is said with its version."""
    status = each_framework.main(STUB)
    said = capfd.readouterr().out
    for name in FRAMEWORKS:
        assert f"{name} {version(name)}: " in said if is_installed(name) else f"{name}: not installed" in said
    assert status == max({"torch": 0, "jax": 1}.get(name, each_framework.NOTHING_RAN) for name in installed())


def test_all_runs_pass(capfd: pytest.CaptureFixture[str]) -> None:
    """Then the status is 0; a run that selects no test is none, unless the command chooses tests itself."""
    assert each_framework.main([sys.executable, "-c", "pass"]) == 0
    assert "failed" not in capfd.readouterr().out
    nothing = "import sys; sys.exit(5)"
    assert each_framework.main([sys.executable, "-c", nothing]) == each_framework.NOTHING_RAN
    assert each_framework.main([sys.executable, "-c", nothing, "pytest", "-m", "slow"]) == 0
