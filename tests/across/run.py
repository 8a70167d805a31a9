"""What a framework itself returns for all formulas: `python -m tests.across.run FRAMEWORK [more]` prints it as JSON.

It runs in a process of its own: TensorFlow beside torch would be harmless, but Keras has one framework a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.across.adapters import MISSING
from tests.across.formulas import FORMULAS, Formula
from tests.across.networks import network, program

__all__ = ["CASES", "MORE", "gradients_of", "names_of", "offered"]

CASES = [*FORMULAS, *(program(seed) for seed in range(12)), *(network(seed) for seed in range(4))]
"""What is compared at every run: every operation with kinks, alone and inside of programs."""

MORE = [*(program(seed) for seed in range(12, 240)), *(network(seed) for seed in range(4, 30))]
"""What is compared in the slow run."""


def offered(framework: str, case: Formula) -> bool:
    """Tell whether a framework has all the operations of a formula."""
    return not set(case.needs) & set(MISSING[framework])


def names_of(case: Formula) -> list[str]:
    """Name the formula at each of its points."""
    return [f"{case.name} at point {k}" for k in range(len(case.points))]


def measure(framework: str, cases: list[Formula]) -> dict[str, Any]:
    """Give the gradient of every case, by the reverse mode of a framework."""
    from tests.across.adapters import adapter

    fw, found = adapter(framework), {}
    with fw.default("double"):
        for case in cases:
            if offered(framework, case):
                for name, point in zip(names_of(case), case.points, strict=True):
                    gradient = fw.gradient(partial(case.function, fw), fw.array(point))
                    found[name] = fw.numpy(gradient).tolist()
    return found


@cache
def gradients_of(framework: str, more: bool = False) -> dict[str, Any]:
    """Give what `measure` gives in a process of the framework alone."""
    quiet = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "KERAS_BACKEND": "tensorflow",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is most of its time
    }
    command = [sys.executable, "-m", "tests.across.run", framework, *["more"] * more]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], MORE if sys.argv[2:] else CASES)))
