"""`nonsmooth bounds`: sets, names of architectures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nonsmooth import cli

pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.ones(2, 3)

def deep():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(2, 3)

def no_tuple():
    return nn.Linear(3, 4)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write architectures."""
    path = tmp_path_factory.mktemp("bounds") / "nets.py"
    path.write_text(NETS)
    return path


def run(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli.app, ["bounds", *words])


def sets(*words: str) -> set[str]:
    """Run the command, and give the sets of the weights."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return {block["set"] for block in json.loads(result.stdout)["blocks"] if block["kind"] == "weights"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "||v|| <= 1"),
        (["--here"], "||v - v0|| <= 1"),
        (["--spectral"], "||v||_2 <= 1"),
        (["--weights", "2", "--here"], "||v - v0|| <= 2"),
    ],
)
def test_options_shape_the_balls_of_the_weights(nets: Path, words: list[str], expected: str) -> None:
    """The radius is 1 where none is given."""
    assert sets(f"{nets}:net", *words) == {expected}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "1", "--weights", "2"], "two radii for all weights"),
        (["--weights", "0=1", "--weights", "0=2"], "two radii for '0'"),
        (["--inputs", "1", "--here"], "--here says which balls"),
        (["--inputs", "1", "--spectral"], "--spectral says which balls"),
    ],
)
def test_sets_that_are_not_clear_are_refused(nets: Path, words: list[str], message: str) -> None:
    """Nothing is chosen silently."""
    result = run(f"{nets}:net", *words)
    assert result.exit_code == 2 and message in result.stderr and not result.stdout


def test_architectures_are_named_shortly(nets: Path, tmp_path: Path) -> None:
    """By the stem of the file and the name; by the path where that does not tell them apart."""
    result = run(f"{nets}:net", f"{nets}:deep", "--json")
    assert list(json.loads(result.stdout)["architectures"]) == ["nets:net", "nets:deep"]
    other = tmp_path / "nets.py"
    other.write_text(NETS)
    result = run(f"{nets}:net", f"{other}:net", "--json")
    assert list(json.loads(result.stdout)["architectures"]) == [f"{nets}:net", f"{other}:net"]


def test_a_target_is_given_once(nets: Path) -> None:
    """The same architecture twice is no comparison."""
    result = run(f"{nets}:net", f"{nets.parent}/../{nets.parent.name}/nets.py:net")
    assert result.exit_code == 2 and "given twice" in result.stderr


def test_what_is_no_architecture_is_refused_in_the_words_of_the_help(nets: Path) -> None:
    """The message and the help agree."""
    result = run(f"{nets}:no_tuple")
    assert result.exit_code == 2 and "must return (model or function, *arguments)" in result.stderr
