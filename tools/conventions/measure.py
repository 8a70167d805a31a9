"""Measure what PyTorch, JAX or TensorFlow returns at every kink of the table: `measure.py FRAMEWORK [--check]`.

A row has a `rule`, which algorithms can apply elsewhere. Of a switch in x: the weight of the right-hand slope, outside
[0, 1] for an artifact; `zero` where it is the derivative that is the same, 0, whatever the slopes. Of a switch between a
and b: the weight of a, if both weights sum to 1. Of ties: `first` (the stable order), `last`, `even`, `all` (each tied
entry gets the whole), or `native`: the index that the kernel returned, which may depend on the processor. Of a cone: the
sum of the entries where they are equal, `zero`, `nan`; of cones and spectra also `raw`, where only the gradient is known.
Otherwise null. A gradient is null where the framework has none. The file stands in one piece: three runners, the rules,
the table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conventions.cases import CASES, FORMULAS, FRAMEWORKS, Case

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TABLES = Path(__file__).resolve().parents[2] / "src" / "nonsmooth" / "dictionary" / "conventions"
FIELDS = ("operation", "kink", "kind", "call", "point", "gradient", "rule")
RULES_OF_TIES = ("even", "first", "last", "all", "native")  # in the order of preference
TOLERANCE = 1e-9
STEP = 1e-3  # separates tied entries; the values of the table differ by 0 or by at least 1


class Torch:
    """Reverse mode of PyTorch, on the CPU."""

    libraries: tuple[str, ...] = ()
    reading = "(w * {}).sum()"

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")
        self.names = {"torch": self.torch, "F": importlib.import_module("torch.nn.functional")}

    def array(self, values: Any) -> Any:
        """Return a tensor in float64."""
        return self.torch.tensor(values, dtype=self.torch.float64)

    def gradient(self, expression: str, point: Sequence[Any], weighted: bool) -> list[Any] | None:
        """Return one gradient for each argument, or None where the framework has no derivative."""
        leaves = [self.array(values).requires_grad_() for values in point]
        value = value_of(expression, self.names, leaves)
        if weighted:
            value = value * self.torch.arange(1, value.numel() + 1).reshape(value.shape)
        try:
            gradients = self.torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            return None
        return [gradient.tolist() for gradient in gradients]


class Jax:
    """Reverse mode of JAX in 64 bits, on the CPU."""

    libraries = ("jaxlib",)
    reading = "(w * {}).sum()"

    def __init__(self) -> None:
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)
        self.numpy = importlib.import_module("jax.numpy")
        importlib.import_module("jax.scipy.special")
        self.names = {"jax": self.jax, "jnp": self.numpy, "lax": self.jax.lax}

    def array(self, values: Any) -> Any:
        """Return an array in float64."""
        return self.numpy.asarray(values, dtype=self.numpy.float64)

    def gradient(self, expression: str, point: Sequence[Any], weighted: bool) -> list[Any] | None:
        """Return one gradient for each argument."""

        def total(*leaves: Any) -> Any:
            value = value_of(expression, self.names, leaves)
            return (value * self.numpy.arange(1, value.size + 1).reshape(value.shape) if weighted else value).sum()

        leaves = [self.array(values) for values in point]
        return [gradient.tolist() for gradient in self.jax.grad(total, argnums=tuple(range(len(leaves))))(*leaves)]


class TensorFlow:
    """Reverse mode of TensorFlow and of Keras on TensorFlow, eager, on the CPU."""

    libraries = ("keras",)
    reading = "tf.reduce_sum(w * {})"

    def __init__(self) -> None:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        self.tf = importlib.import_module("tensorflow")
        keras, numpy = importlib.import_module("keras"), importlib.import_module("numpy")
        if keras.config.backend() != "tensorflow":
            raise SystemExit("Keras runs on another framework in this process: set KERAS_BACKEND=tensorflow.")
        self.names = {"tf": self.tf, "keras": keras, "np": numpy}

    def array(self, values: Any) -> Any:
        """Return a tensor in float64."""
        return self.tf.constant(values, dtype=self.tf.float64)

    def gradient(self, expression: str, point: Sequence[Any], weighted: bool) -> list[Any] | None:
        """Return one gradient for each argument, or None where the framework has no derivative."""
        leaves = [self.array(values) for values in point]
        with self.tf.GradientTape() as tape:
            tape.watch(leaves)
            value = value_of(expression, self.names, leaves)
            if weighted:
                ramp = self.tf.range(1, math.prod(value.shape) + 1, dtype=value.dtype)
                value = value * self.tf.reshape(ramp, value.shape)
            total = self.tf.reduce_sum(value)
        gradients = tape.gradient(total, leaves)
        if all(gradient is None for gradient in gradients):
            return None
        dense = [self.tf.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
        return [self.tf.convert_to_tensor(gradient).numpy().tolist() for gradient in dense]


RUNNERS: dict[str, Any] = {"torch": Torch, "jax": Jax, "tensorflow": TensorFlow}


def value_of(expression: str, names: dict[str, Any], values: Sequence[Any]) -> Any:
    """Evaluate an expression of the table at its arguments: `x` alone, or `a` and `b`."""
    variables = zip("x" if len(values) == 1 else "ab", values, strict=True)
    return eval(expression, {**names, **dict(variables)})


def flat(values: Any) -> list[float]:
    """Return the numbers of a nested list in row-major order."""
    return [number for item in values for number in flat(item)] if isinstance(values, list) else [values]


def shaped(numbers: Iterable[Any], like: Any) -> Any:
    """Return numbers in the nesting of another list; the inverse of `flat`."""
    stream = iter(numbers)

    def fill(item: Any) -> Any:
        return [fill(inner) for inner in item] if isinstance(item, list) else next(stream)

    return fill(like)


def close(first: Sequence[float], second: Sequence[float]) -> bool:
    """Say whether two lists of numbers agree up to the tolerance."""
    return len(first) == len(second) and all(abs(p - q) <= TOLERANCE for p, q in zip(first, second, strict=True))


def separated(point: Any, shift: int, sign: int) -> Any:
    """Move tied entries apart: entry number j of m tied ones by sign * STEP * ((j + shift) mod m)."""
    numbers = flat(point)
    ranks = [numbers[:i].count(number) for i, number in enumerate(numbers)]
    moved = (v + sign * STEP * ((rank + shift) % numbers.count(v)) for v, rank in zip(numbers, ranks, strict=True))
    return shaped(moved, point)


def order_rules(case: Case, expression: str, index: str | None, runner: Any, gradient: list[float]) -> list[str]:
    """Return the rules of ties that give this gradient, among first, last, even, all and native.

    *first* and *last* are gradients at a nearby point where position breaks the tie; *even* is their mean over all the
    cyclic orders of every tied group, hence constant on each; *all* is their sum; *native* is the readout placed at the
    returned indices.
    """

    def at(shift: int, sign: int) -> list[float]:
        return flat(runner.gradient(expression, [separated(case.point, shift, sign)], True)[0])

    numbers = flat(case.point)
    stable = -1 if case.descending else 1
    expected = {"first": at(0, stable), "last": at(0, -stable)}
    pairs = list(zip(numbers, gradient, strict=True))
    if all(close([p], [q]) for u, p in pairs for v, q in pairs if u == v):
        orders = math.lcm(*(numbers.count(number) for number in numbers))
        gradients = [at(shift, 1) for shift in range(orders)]
        expected["even"] = [math.fsum(column) / orders for column in zip(*gradients, strict=True)]
        expected["all"] = [even * numbers.count(v) for even, v in zip(expected["even"], numbers, strict=True)]
    if index is not None:
        expected["native"] = [0.0] * len(numbers)
        returned = value_of(index, runner.names, [runner.array(case.point)])
        positions = np.asarray(returned).ravel()
        for weight, position in enumerate(positions, start=1):
            expected["native"][int(position)] += weight
    return [rule for rule, values in expected.items() if close(values, gradient)]


def rule_of(case: Case, gradients: list[Any] | None) -> float | str | None:
    """Return what an algorithm can apply elsewhere, for a kink that is no tie."""
    if gradients is None:
        return None
    numbers = flat(gradients)
    if case.kind in ("cone", "spectral"):
        word = "nan" if any(map(math.isnan, numbers)) else "raw" if any(numbers) else "zero"
        equal = word == "raw" and max(numbers) - min(numbers) <= TOLERANCE and abs(sum(numbers)) <= 1 + TOLERANCE
        return rounded(sum(numbers)) if equal and case.kind == "cone" else word
    if case.kind != "switch" or not all(map(math.isfinite, numbers)):
        return None
    if len(gradients) == 2:
        return rounded(numbers[0]) if abs(sum(numbers) - 1) <= TOLERANCE else None
    assert case.left is not None and case.right is not None, f"{case.operation} at {case.kink} has no slopes"
    return None if case.left == case.right else round((numbers[0] - case.left) / (case.right - case.left), 8) + 0.0


def rounded(number: float) -> float:
    """Return a number to 12 significant digits, without negative zero."""
    return float(f"{number:.12g}") + 0.0


def written(number: float) -> float | str:
    """Return a number as strict JSON can write it."""
    return rounded(number) if math.isfinite(number) else str(float(number))


def measured_row(case: Case, framework: str, runner: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the row of one case, and the rules of ties that explain it."""
    expression, weighted = getattr(case, framework), case.kind in ("order", "spectral")
    call = runner.reading.format(expression) if weighted else expression
    several = isinstance(case.point, tuple)
    gradients = runner.gradient(expression, list(case.point) if several else [case.point], weighted)
    shown = None if gradients is None else shaped(map(written, flat(gradients)), gradients)
    point = list(case.point) if several else case.point
    raw = shown if shown is None or several else shown[0]
    values = (case.operation, case.kink, case.kind, call, point, raw, rule_of(case, gradients))
    row = dict(zip(FIELDS, values, strict=True))
    if case.kind == "formula":
        row["truth"] = case.truth
    if case.kind != "order" or gradients is None:
        return row, []
    index = getattr(case, f"{framework}_index", None)
    return row, order_rules(case, expression, index, runner, flat(gradients))


def measure(framework: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return one row for each case that the framework has; one rule must explain all the ties of an operation."""
    runner = RUNNERS[framework]()
    pairs = [measured_row(case, framework, runner) for case in cases if getattr(case, framework) is not None]
    ties: dict[str, set[str]] = {}
    for row, rules in pairs:
        if row["kind"] == "order":
            ties[row["operation"]] = ties.get(row["operation"], set(RULES_OF_TIES)) & set(rules)
    for row, _ in pairs:
        if row["kind"] == "order":
            row["rule"] = next((rule for rule in RULES_OF_TIES if rule in ties[row["operation"]]), None)
    rows = [row for row, _ in pairs]
    for row in rows:
        alike = [r for r in rows if same_kink(r, row) and isinstance(r["rule"], float)]
        if len({r["rule"] for r in alike}) > 1 and not any(any(flat(r["gradient"])) for r in alike):
            for other in alike:
                other["rule"] = "zero"
    return rows


def same_kink(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Say whether two rows are of the same kink of a switch, with other parameters."""
    keys = [(row["operation"], row["kind"], row["kink"].partition(",")[0]) for row in (first, second)]
    return keys[0] == keys[1] and first["kind"] == "switch"


def version(name: str) -> str:
    """Return the version of an installed library, without its build tag."""
    return str(importlib.import_module(name).__version__).split("+")[0]


def table(framework: str) -> dict[str, Any]:
    """Measure the whole table of one framework."""
    rows, formulas = measure(framework, CASES), measure(framework, FORMULAS)
    libraries = {name: version(name) for name in RUNNERS[framework].libraries}
    return {
        "format": 1,
        "framework": framework,
        "version": version(framework),
        "libraries": libraries,
        "rows": rows,
        "formulas": formulas,
    }


def text_of(measured: dict[str, Any]) -> str:
    """Write a table as strict JSON, one row a line."""
    lines = []
    for key, value in measured.items():
        body = json.dumps(value, allow_nan=False)
        if isinstance(value, list):
            body = "[\n" + ",\n".join("  " + json.dumps(row, allow_nan=False) for row in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def differences(shipped: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """Return one sentence for everything in which two tables differ."""
    found = [
        f"{key}: shipped {shipped.get(key)!r}, measured {measured.get(key)!r}"
        for key in ("format", "framework", "version", "libraries")
        if shipped.get(key) != measured.get(key)
    ]
    for part in ("rows", "formulas"):
        keyed = [{(r["operation"], r["kink"], r["kind"]): r for r in t[part]} for t in (shipped, measured)]
        for key in dict.fromkeys([*keyed[0], *keyed[1]]):
            old, new = keyed[0].get(key), keyed[1].get(key)
            if old is None or new is None:
                found.append(f"{part}, {' | '.join(key)}: {'only measured' if old is None else 'only shipped'}")
                continue
            found += [
                f"{part}, {' | '.join(key)}, {field}: shipped {old.get(field)!r}, measured {new.get(field)!r}"
                for field in dict.fromkeys([*old, *new])
                if old.get(field) != new.get(field)
            ]
    return found


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Write the table of one framework, or compare with it and return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--table", type=Path, help="the file (default: the one that the library ships)")
    given = parser.parse_args(arguments_given)
    path = given.table or TABLES / f"{given.framework}.json"
    measured = table(given.framework)
    if not given.check:
        path.write_text(text_of(measured), encoding="utf-8")
        print(f"{path.name}: {len(measured['rows'])} rows, {len(measured['formulas'])} formulas")
        return 0
    found = differences(json.loads(path.read_text(encoding="utf-8")), measured)
    print("\n".join(found) or f"{path.name}: {len(measured['rows'])} rows agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
