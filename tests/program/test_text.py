"""The text of a program reads like the Python of the computation, with the user's lines."""

from __future__ import annotations

import ast
import textwrap
import types
from pathlib import Path

import torch
from torch import nn

import nonsmooth as ns

SOURCE = """
import torch

def inner(v):
    return torch.relu(v)

def f(x, shift):
    a, b = x["0.weight"], x["class"]
    total = sum(inner(row) for row in [a, b])
    with torch.no_grad():
        scale = total.max()
    total[0] *= 2
    if total.sum() > shift:
        total = total - shift
    top, where = torch.max(total, 0)
    return (lambda t: t * scale)(top)
"""

GOLDEN = """
def program(x_0_weight, x_class, data):
    relu_1 = relu(x_0_weight)  # program_text.py:5, `return torch.relu(v)`
    add_1 = add(relu_1, 0)  # program_text.py:9, `total = sum(inner(row) for row in [a, b])`
    relu_2 = relu(x_class)  # program_text.py:5, `return torch.relu(v)`
    add_2 = add(add_1, relu_2)  # program_text.py:9, `total = sum(inner(row) for row in [a, b])`
    # gradients are not recorded (no_grad) from here
    max_1 = max(add_2)  # program_text.py:11, `scale = total.max()`
    # gradients are recorded from here
    select_1 = select(add_2, 0, 0)  # program_text.py:12, `total[0] *= 2`
    select_1 = mul_(select_1, 2)  # program_text.py:12
    select_2 = select(add_2, 0, 0)  # program_text.py:12
    select_2 = copy_(select_2, select_1)  # program_text.py:12
    sum_1 = sum(add_2)  # program_text.py:13, `if total.sum() > shift:`
    gt_1 = gt(sum_1, data)  # program_text.py:13
    assert is_nonzero(gt_1) == True  # program_text.py:13
    sub_1 = sub(add_2, data)  # program_text.py:14, `total = total - shift`
    max_2, max_3 = max(sub_1, 0)  # program_text.py:15, `top, where = torch.max(total, 0)`
    mul_1 = mul(max_2, max_1)  # program_text.py:16, `return (lambda t: t * scale)(top)`
    return mul_1
"""


def captured(folder: Path) -> ns.Program:
    """Capture the function of the source above, from a file."""
    path = folder / "program_text.py"
    path.write_text(SOURCE, encoding="utf-8")
    module = types.ModuleType("program_text")
    exec(compile(SOURCE, str(path), "exec"), module.__dict__)
    x = {"0.weight": torch.tensor([1.0, 2.0]), "class": torch.tensor([3.0, -1.0])}
    return ns.capture(module.f, x, torch.tensor(1.0))


def normal(text: str) -> list[str]:
    """Drop what only aligns."""
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def test_the_text_is_this_one(tmp_path: Path) -> None:
    assert normal(str(captured(tmp_path))) == normal(GOLDEN)


def test_the_text_is_python_with_unique_names(tmp_path: Path) -> None:
    program = captured(tmp_path)
    tree = ast.parse(str(program))
    assert isinstance(tree.body[0], ast.FunctionDef)
    names = [v.name for v in program.values]
    assert len(set(names)) == len(names) and all(n.isidentifier() for n in names)
    trap = {
        "relu": torch.ones(2),
        "x_0": torch.ones(2),
        "0": torch.ones(2),
        "relu_1": torch.ones(2),
        "a-b": torch.ones(2),
    }
    other = ns.capture(lambda x: sum(torch.relu(v).sum() for v in x.values()), trap)
    names = [v.name for v in other.values]
    assert len(set(names)) == len(names) and all(n.isidentifier() for n in names), names
    ast.parse(str(other))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """The place stays, the text of the line is empty."""
    path = tmp_path / "gone.py"
    module = types.ModuleType("gone")
    exec(compile("def f(x):\n    return x.abs().sum()\n", str(path), "exec"), module.__dict__)
    sources = [s.source for s in ns.capture(module.f, torch.ones(2)).steps]
    assert [str(s) for s in sources] == ["gone.py:2", "gone.py:2"]


class Block(nn.Module):
    """A module with a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.again = nn.ModuleList([nn.Linear(2, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use everything."""
        y = self.layers(x)
        return self.again[0](y) * 2


def test_lines_and_modules() -> None:
    """The user's own line, and the path of the innermost module that has one."""
    model = nn.Sequential(Block(), nn.Linear(2, 1))
    f, x = ns.objective(model, lambda out, y: ((out - y) ** 2).mean())
    steps = ns.capture(f, x, torch.ones(3, 2), torch.zeros(3, 1)).steps
    assert [(s.operation.name, s.module) for s in steps] == [
        ("linear", "0.layers.0"),
        ("relu", "0.layers.1"),
        ("linear", "0.again.0"),
        ("mul", "0"),
        ("linear", "1"),
        ("sub", ""),
        ("power", ""),
        ("mean", ""),
    ]
    texts = [s.source.text for s in steps if s.source is not None]
    assert texts[:4] == ["y = self.layers(x)"] * 2 + ["return self.again[0](y) * 2"] * 2
    assert all("lambda out, y" in t for t in texts[5:])


def test_long_values_are_shortened() -> None:
    text = str(ns.capture(lambda x: x[list(range(40))].sum(), torch.ones(50)))
    assert textwrap.shorten(text, 10_000) and all(len(line) < 200 for line in text.splitlines())
