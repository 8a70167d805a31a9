"""`import nonsmooth` is light: no framework and no plotting is loaded by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "jax", "tensorflow", "keras", "optax", "lightning", "distributed", "matplotlib")


def loaded_by(statement: str, names: tuple[str, ...]) -> list[str]:
    """Give those of the modules `names` that a fresh interpreter has loaded after `statement`."""
    probe = f"import sys; {statement}; print(*[name for name in {names!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_import_loads_no_framework() -> None:
    assert loaded_by("import nonsmooth", HEAVY) == []


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import wave, colorsys", ("wave", "antigravity", "colorsys")) == ["wave", "colorsys"]


def test_the_probe_reports_a_failing_import() -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        loaded_by("import nonsmooth_that_does_not_exist", HEAVY)
