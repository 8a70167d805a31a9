"""Run a command of pytest once for every installed framework, then say which ran: what `make test` calls.

python -m tests.each_framework python -m pytest -n 2
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.adapters import FRAMEWORKS, LIBRARIES, installed, is_installed, version

__all__ = ["Ran", "main", "run_each", "summary"]

NOTHING_RAN = 5
"""The exit status of pytest that has selected no test."""


class Ran(NamedTuple):
    """The run of one framework: the exit status of pytest, and how long it took."""

    framework: str
    status: int
    seconds: float

    def __str__(self) -> str:
        said = {0: "passed", NOTHING_RAN: "selected no test"}.get(self.status, f"failed (exit status {self.status})")
        return f"{self.framework} {version(self.framework)}: {said} in {self.seconds:.0f} s"


def run_each(command: Sequence[str], frameworks: Sequence[str]) -> list[Ran]:
    """Run the command with `--framework` for each of them, also after one has failed."""
    runs = []
    for framework in frameworks:
        print(f"\n=== {framework} {version(framework)}", flush=True)
        start = time.monotonic()
        done = subprocess.run([*command, "--framework", framework], check=False)
        runs.append(Ran(framework, done.returncode, time.monotonic() - start))
    return runs


def summary(runs: Sequence[Ran]) -> str:
    """Say which frameworks ran, with their versions, and which are not installed."""
    lines = [*map(str, runs)]
    lines += [f"{name}: not installed, not run" for name in FRAMEWORKS if not is_installed(name)]
    beside = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if is_installed(name))
    return "\n".join([*lines, f"with {beside}" if beside else "with no library of layers"])


def main(command: Sequence[str]) -> int:
    """Give 0 if every run passed; a run that selected no test has not (but for a choice of tests, made in the command)."""
    if not installed():
        print(f"no framework is installed: pip install one of {', '.join(FRAMEWORKS)}", file=sys.stderr)
        return 1
    runs = run_each(command, installed())
    print(f"\n=== the frameworks that ran\n{summary(runs)}", flush=True)
    chosen = "-m" in command[command.index("pytest") + 1 :] if "pytest" in command else False
    return max((run.status for run in runs if not (chosen and run.status == NOTHING_RAN)), default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
