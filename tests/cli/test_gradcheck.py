"""`nonsmooth gradcheck`: exit statuses, what goes to which stream, and JSON that parses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nonsmooth import cli

PROBLEMS = """
import torch
print("loading")

def absolute(x):
    return x.abs().sum()

def right():
    return absolute, torch.tensor([0.0, 1.0], dtype=torch.float64)

def weighed():
    return (lambda x, w: (w * torch.relu(x)).sum()), torch.zeros(2, dtype=torch.float64), torch.tensor([2.0, -1.0])

def given():
    return (*right(), torch.sign)

def with_data():
    return (lambda x, w: (w * x.abs()).sum()), torch.ones(2), lambda x, w: w * torch.sign(x), torch.tensor([2.0, 3.0])

def wrong():
    return (*right(), lambda x: torch.sign(x) + 17 * (x == 0))

def random():
    return (lambda x: (x * torch.rand(2)).sum()), torch.ones(2)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("problems") / "[red]model.py"
    path.write_text(PROBLEMS)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["gradcheck", *arguments], prog_name="nonsmooth")


@pytest.mark.parametrize("name", ["right", "weighed", "given", "with_data"])
def test_not_refuted(file: str, name: str) -> None:
    result = run(f"{file}:{name}", "--samples", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("The derivative is not refuted by") and "segment through x" in result.stdout
    assert "loading" not in result.stdout and "loading" in result.stderr


def test_refuted(file: str) -> None:
    result = run(f"{file}:wrong", "--samples", "1", "--seed", "3")
    assert result.exit_code == 1
    assert "refuted by" in result.stdout and "17" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(("name", "status", "refuted"), [("right", 0, False), ("wrong", 1, True)])
def test_json(file: str, name: str, status: int, refuted: bool) -> None:
    result = run(f"{file}:{name}", "--json", "--samples", "1", "--seed", "5")
    assert result.exit_code == status
    data = json.loads(result.stdout)
    assert (data["format_version"], data["refuted"], data["seed"], data["status"]) == (1, refuted, 5, "sampled")
    assert {"rule", "what", "discrepancy", "tolerance", "outcome", "note"} == set(data["checks"][0])


@pytest.mark.parametrize(
    ("name", "message"),
    [("random", "draws random numbers"), ("nothing", "has no name"), ("right --samples 0", "samples=0")],
)
def test_wrong_use(file: str, name: str, message: str) -> None:
    first, *rest = name.split()
    result = run(f"{file}:{first}", *rest)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_no_file(tmp_path: Path) -> None:
    assert run(str(tmp_path / "none.py:f")).exit_code == 2
