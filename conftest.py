"""What holds for every test."""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # it is chosen once, at the first import


@pytest.fixture(autouse=True)
def jax_in_single_precision() -> Iterator[None]:
    """Put JAX's switch for double precision back: measuring conventions turns it on for the whole process."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)
