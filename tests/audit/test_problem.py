"""FILE.py:NAME: what is loaded, what is refused, and whose error it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nonsmooth.audit.problem import open_problem
from nonsmooth.errors import UsageError


def write(folder: Path, text: str, name: str = "model.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def refused(target: str) -> str:
    with pytest.raises(UsageError) as caught, open_problem(target):
        pass
    return str(caught.value)


def test_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "FACTOR = 2\n", "beside.py")
    file = write(
        tmp_path, "import torch, beside\ndef p():\n    return (lambda x, y: x * y * beside.FACTOR), torch.ones(1), 3\n"
    )
    with open_problem(f"{file}:p") as (function, x, data):
        assert function(x, *data) == torch.tensor([6.0])
    assert str(tmp_path) not in sys.path


def test_what_the_user_prints_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "print('loading')\ndef p():\n    return (lambda x: print('called')), 1\n")
    with open_problem(f"{file}:p") as (function, x, _):
        function(x)
    out, err = capsys.readouterr()
    assert out == "" and err == "loading\ncalled\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "has no name 'nothing'"),
        ("numbre", "did you mean 'number'"),
        ("number", "number is a int; it must be a function"),
        ("one", "it returned a Tensor"),
        ("short", r"it returned a tuple of 1: \(function\)"),
        ("swapped", r"it returned a tuple of 2: \(Tensor, function\)"),
        ("needs", "missing a required argument: 'a'"),
    ],
)
def test_what_is_no_problem(tmp_path: Path, name: str, message: str) -> None:
    file = write(
        tmp_path,
        "import torch\nnumber = 3\ndef one(): return torch.ones(1)\ndef short(): return (one,)\n"
        "def swapped(): return torch.ones(1), one\ndef needs(a): return one, a\n",
    )
    with pytest.raises(UsageError, match=message), open_problem(f"{file}:{name}"):
        pass


def test_what_is_no_target(tmp_path: Path) -> None:
    assert "not FILE.py:NAME" in refused("model.py")
    assert "there is no file" in refused(f"{tmp_path}/nothing.py:p")
    assert "there is no file" in refused(f"{tmp_path}:p")
    assert "no Python file" in refused(write(tmp_path, "", "model.txt") + ":p")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\nraise ValueError('mine')\n", 2, "ValueError: mine"),
        ("def p():\n    return 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name\n", 1, "ModuleNotFoundError"),
        ("def p(:\n", 1, "SyntaxError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("class Mine(Exception): pass\ndef p():\n    raise Mine('a\\nb')\n", 3, "Mine: a"),
    ],
)
def test_errors_of_the_user_name_their_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = write(tmp_path, text)
    found = refused(f"{file}:p")
    assert f"raised at {file}:{line}: " in found and message in found


def test_an_error_while_the_function_runs_is_the_users(tmp_path: Path) -> None:
    file = write(tmp_path, "def f(x):\n    return x.no_such_method()\ndef p():\n    return f, 1\n")
    with pytest.raises(UsageError, match=r"model.py:2: AttributeError"), open_problem(f"{file}:p") as (function, x, _):
        function(x)
