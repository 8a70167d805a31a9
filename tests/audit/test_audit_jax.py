"""The audit of JAX programs: the report of the torch twin, in JAX's words, and messages for bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
import torch
from jax import numpy as jnp
from typer.testing import CliRunner, Result

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.audit.fixes import fix_jump, fix_kink, fix_singular


def torch_loss(p: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(x @ p["w"] + p["b"])
    return torch.abs(hidden - 1).sum() + torch.linalg.vector_norm(p["b"]) + torch.maximum(hidden, y).sum()


def jax_loss(p: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ p["w"] + p["b"])
    return jnp.abs(hidden - 1).sum() + jnp.linalg.norm(p["b"]) + jnp.maximum(hidden, y).sum()


WEIGHT, BIAS = [[1.0, -2.0], [0.0, 0.0]], [0.0, 0.0]
INPUTS, TARGET = [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]


@pytest.fixture(scope="module")
def twins() -> tuple[ns.Audit, ns.Audit]:
    found = []
    for loss, array in ((torch_loss, torch.tensor), (jax_loss, jnp.array)):
        make: Callable[[Any], Any] = array
        found.append(ns.audit(loss, {"w": make(WEIGHT), "b": make(BIAS)}, make(INPUTS), make(TARGET)))
    return found[0], found[1]


def test_the_kinks_are_those_of_the_twin(twins: tuple[ns.Audit, ns.Audit]) -> None:
    ours, theirs = (
        [(r.operation, r.kind, r.kink, r.active, r.elements, r.harmless, r.can_matter, r.margin) for r in audit.kinks]
        for audit in twins
    )
    assert ours == theirs and {row[0] for row in ours} == {"relu", "abs", "maximum", "vector_norm"}
    first, second = ([row.source.line for row in audit.kinks if row.source] for audit in twins)
    assert [line - first[0] for line in first] == [line - second[0] for line in second] == [0, 1, 1, 1]


def test_choices_and_verdict_are_those_of_the_twin(twins: tuple[ns.Audit, ns.Audit]) -> None:
    one, other = ({c.convention.partition(" ")[0]: c.norm for c in audit.conventions} for audit in twins)
    assert one == pytest.approx(other, nan_ok=True) and math.isnan(one["jax"]) and not math.isnan(one["torch"])
    assert sorted(e.weights for e in twins[0].effects) == sorted(e.weights for e in twins[1].effects)
    assert [c.bad_entries for c in twins[1].conventions[:2]] == [2, 0]  # jnp.linalg.norm has no gradient at 0
    assert twins[1].conventions[0].convention == "jax (framework)"


def test_the_report_speaks_jax(twins: tuple[ns.Audit, ns.Audit], tmp_path: Path) -> None:
    audit = twins[1]
    advice = " ".join(f.fix for f in audit.findings)
    assert "torch" not in advice and "jax.random.uniform" in advice and "b is all zero" in str(audit)
    assert "jnp" not in " ".join(f.fix for f in twins[0].findings)
    data = json.loads(audit.to_json())
    assert data["framework"] == "jax" and data["kinks"][0]["operation"] == "relu"
    assert {p.name for p in audit.save(tmp_path)} >= {"report.html", "report.json", "report.txt", "kinks.png"}


def test_every_fix_is_written_for_jax() -> None:
    operations = "sqrt rsqrt log log1p div acos erfinv logit pow xlogy binary_cross_entropy cosh".split()
    texts = [fix_singular(o, masked, "jax") for o in operations for masked in (True, False)]
    jumps = "sign heaviside copysign hardshrink threshold_jump where round".split()
    texts += [fix_jump(o, "jax") for o in jumps] + [fix_kink(k, "norm", (), "jax") for k in ("order", "cone", "switch")]
    assert not any("torch" in text or ".clamp" in text or "{" in text.replace("at_kinks={", "") for text in texts)
    assert "jax.scipy.special.erfinv" in fix_singular("erfinv", True, "jax")


PROBLEMS = """
import jax
from jax import numpy as jnp

def loss(x, y):
    return (jax.nn.relu(x) * y).sum()

def problem():
    return loss, jnp.array([0.0, 1.0, -0.05]), jnp.ones(3)

def branches():
    def f(x):
        if x.sum() > 0:
            return x.sum()
        return -x.sum()
    return f, jnp.ones(3)

def integers():
    return loss, jnp.arange(3), jnp.ones(3)

def several():
    return jax.nn.relu, jnp.zeros(3)

def broken():
    return (lambda x: x @ jnp.ones(7)), jnp.zeros(3)

def wrong():
    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)
    relu.defvjp(lambda x: (relu(x), x), lambda x, g: (1.1 * g * (x > 0),))
    return (lambda x: relu(x).sum()), jnp.array([1.0, -2.0])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("problems") / "model.py"
    path.write_text(PROBLEMS)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), prog_name="nonsmooth")


def test_the_command_audits(file: str) -> None:
    result = run("audit", f"{file}:problem", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["framework"], data["kinks"][0]["active"]) == ("jax", 1)
    assert data["kinks"][0]["source"]["text"] == "return (jax.nn.relu(x) * y).sum()"
    assert run("audit", f"{file}:problem", "--fail-on", "kink").exit_code == 1


def test_the_command_refutes_a_derivative(file: str) -> None:
    result = run("gradcheck", f"{file}:wrong", "--samples", "1")
    assert result.exit_code == 1 and "differ by" in result.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("branches", ("jax.lax.cond", "model.py:13", "if x.sum() > 0:")),
        ("integers", ("int32", "astype(float)")),
        ("several", ("scalar function", "(3,)")),
        ("broken", ("model.py:25", "TypeError")),
    ],
)
def test_the_command_says_what_is_wrong(file: str, name: str, words: tuple[str, ...]) -> None:
    result = run("audit", f"{file}:{name}")
    assert result.exit_code == 2 and not result.stdout
    assert all(word in result.stderr for word in words), result.stderr


def test_the_command_lists_missing_primitives() -> None:
    result = run("ops", "--missing", "--framework", "jax", "--json")
    assert result.exit_code == 0 and "of jax are not served" in json.loads(result.stdout)["title"]
    refused = run("ops", "--missing", "--framework", "numpy")
    assert refused.exit_code == 2 and "torch and jax" in refused.stderr
