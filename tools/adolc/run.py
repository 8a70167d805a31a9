"""Write tests/cases/adolc.json: random programs, with their abs-normal forms and active gradients by ADOL-C.

`python tools/adolc/run.py` builds the driver beside this file in a temporary folder and runs it; README.md says what
it needs and what the file holds. `--check` compares with the file that is there.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.references.abs_normal import abs_normal
from tests.references.field import OPERATIONS, Step, count_kinks, random_program

FILE = Path(__file__).resolve().parents[2] / "tests" / "cases" / "adolc.json"
HOMOGENEOUS, AFFINE = 220, 80
LARGEST = 2**16
"""Larger entries are left out: the arithmetic of the driver is to be exact."""

X, Y, ZERO = ("input", 0), ("input", 1), ("linear", 0)
BY_HAND: tuple[list[Step], ...] = (
    [X, ZERO, ("max", 0, 1), ("min", 0, 1), ("linear", 0, (1, 2), (1, 3))],
    [X, ("abs", 0), ("abs", 0), ("linear", 0, (1, 1), (-1, 2))],
    [X, ("abs", 0), ("linear", 0, (1, 1), (1, 0)), ("abs", 2)],
    [X, ("linear", 0, (-1, 0)), ("relu", 0), ("relu", 1), ("linear", 0, (1, 2), (-1, 3), (-1, 0))],
    [X, ("relu", 0), ("relu", 1)],
    [X, Y, ("abs", 0), ("abs", 1), ("linear", 0, (1, 2), (1, 3))],
    [X, Y, ("input", 2), ("max", 0, 1, 2)],
)

OUTSIDE: list[Step] = [
    *(X, Y, ("linear", 0, (1, 0), (1, 1)), ("abs", 2), ("linear", 0, (1, 3), (1, 0)), ("abs", 4), ("abs", 1)),
    ("linear", 0, (1, 5), (-1, 6)),
]
"""||x + y| + x| - |y|: along (-1, 0), which decides neither of the last two, ADOL-C returns no Clarke subgradient."""


def cases() -> Iterable[dict[str, Any]]:
    """Yield the programs, their points and three directions: generic, of few values, along a coordinate."""
    drawn = [(program, (0,) * len([s for s in program if s[0] == "input"])) for program in BY_HAND]
    switches = [operation for operation in OPERATIONS if operation != "where"]
    drawn += [random_program(seed, 6, 12, switches) for seed in range(HOMOGENEOUS)]
    drawn += [random_program(seed, 5, 10, switches, homogeneous=False) for seed in range(AFFINE)]
    yield {"program": OUTSIDE, "point": [0, 0], "directions": [[-1, 0.25], [-1, 0.125], [-1, 0]]}
    rng = random.Random(0)
    for program, point in drawn:
        if not count_kinks(program) or largest_entry(program, point) > LARGEST:
            continue
        n, scale = len(point), 1 if is_homogeneous(program) else 1024
        generic = [rng.choice((-1, 1)) * rng.randint(1, 255) / scale for _ in range(n)]
        small = [rng.choice((-2, -1, 0, 1, 2)) / scale for _ in range(n)]
        chosen = rng.randrange(n)
        unit = [rng.choice((-1, 1)) * (i == chosen) / scale for i in range(n)]
        yield {
            "program": program,
            "point": list(map(int, point)),
            "directions": [generic, small if any(small) else generic, unit],
        }


def is_homogeneous(program: Sequence[Step]) -> bool:
    """Tell whether a program is positively homogeneous: the length of a direction does not matter then."""
    return not any(step[0] in ("mul", "clamp") or (step[0] == "linear" and step[1]) for step in program)


def largest_entry(program: Sequence[Step], point: Sequence[Fraction | int]) -> Fraction:
    """Give the largest number of the abs-normal form."""
    form = abs_normal(program, point)
    rows = (*form.Z, *form.L, form.c, form.J, form.Y, (form.b,))
    return max(abs(entry) for row in rows for entry in row)


def as_input(case: dict[str, Any]) -> str:
    """Write a program in the text of the driver."""
    program, point, directions = case["program"], case["point"], case["directions"]
    lines = [f"program {len(point)} {len(program)} {len(directions)}", spaced(point)]
    return "\n".join([*lines, *(step_text(step) for step in program), *(spaced(d) for d in directions), ""])


def step_text(step: Step) -> str:
    """Write a step."""
    match step:
        case ("linear", c, *terms):
            return spaced(["linear", float(c), len(terms), *(number for term in terms for number in term)])
        case ("input" | "item" | "clamp", *_):
            return spaced(step)
        case (name, *arguments):
            return spaced([name, len(arguments), *arguments])
    raise TypeError(step)


def spaced(words: Iterable[Any]) -> str:
    """Join with blanks."""
    return " ".join(map(str, words))


def run_driver(text: str) -> list[dict[str, Any]]:
    """Build the driver and run it."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "driver"
        source = Path(__file__).with_name("driver.cpp")
        subprocess.run(["g++", "-std=c++14", "-O1", "-w", str(source), "-o", str(program), "-ladolc"], check=True)
        done = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


def version() -> str:
    """Give the version of ADOL-C."""
    command = ["dpkg-query", "-W", "-f", "${Version}", "libadolc-dev"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def plain(value: Any) -> Any:
    """Write whole numbers without a point, fractions of programs as numbers."""
    match value:
        case dict():
            return {name: plain(entry) for name, entry in value.items()}
        case list() | tuple():
            return [plain(entry) for entry in value]
        case float() | Fraction():  # the forms are dyadic, so that a float holds them
            return int(value) if value == int(value) else float(value)
    return value


def main() -> int:
    """Write or compare the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file that is there")
    arguments = parser.parse_args()
    programs = list(cases())
    found = run_driver("".join(as_input(case) for case in programs))
    rows = [
        plain({"program": case["program"], "point": case["point"]} | form)
        for case, form in zip(programs, found, strict=True)
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    text = f'{{"adolc": "{version()}", "cases": [\n{lines}\n]}}\n'
    if arguments.check:
        same = FILE.read_text(encoding="utf-8") == text
        print("the same" if same else f"{FILE.name} differs")
        return 0 if same else 1
    FILE.write_text(text, encoding="utf-8")
    print(f"{FILE.name}: {len(rows)} programs, {len(text) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
