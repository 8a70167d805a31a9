"""The text of a program, its lines, modules and names."""

from __future__ import annotations

import threading

import torch
from torch import nn

import nonsmooth as ns


def inner(u: torch.Tensor) -> torch.Tensor:
    """Stand one call deeper."""
    return torch.relu(u)


def outer(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Call, branch, write in place, leave the gradient out."""
    hidden = inner(x @ y)
    if hidden.sum() > 0:
        hidden = hidden.clone()
        hidden[0] *= 2
    with torch.no_grad():
        scale = hidden.max()
    return sum(h * scale for h in hidden)


def test_the_text_reads_like_python() -> None:
    """Names, calls, the guard, the regions and the innermost line of the user's own source."""
    program = ns.capture(outer, torch.ones(2, 2), torch.ones(2))
    lines = str(program).splitlines()
    code = [line.split("  #")[0].strip() for line in lines]
    assert code[0] == "def program(x, data):"
    assert "relu_1 = relu(matmul_1)" in code
    assert "assert is_nonzero(gt_1) == True" in code
    assert any("gradients are not recorded" in line for line in lines)
    assert any("`return torch.relu(u)`" in line for line in lines)
    assert code[-1].startswith("return add_")
    places = {step.source.function for step in program.steps if step.source}
    assert places == {"inner", "outer", "<genexpr>"}
    compile(
        "\n".join(
            c.replace("def program", "def program", 1) if i == 0 else f"    {c}" for i, c in enumerate(code) if c
        ),
        "text",
        "exec",
    )


def test_names_are_identifiers_and_unique() -> None:
    """Leaves called `0.weight` or like an operation get names that Python could use."""
    x = {"0.weight": torch.ones(2), "relu_1": torch.ones(2), "class": torch.ones(2), "a b": torch.ones(2)}
    program = ns.capture(lambda p: torch.relu(p["0.weight"] * p["relu_1"] * p["class"] * p["a b"]).sum(), x)
    names = [value.name for value in program.values]
    assert all(name.isidentifier() for name in names)
    assert len(set(names)) == len(names)


def test_source_of_a_function_without_a_file() -> None:
    """Code that was made by exec still has its line number."""
    space: dict[str, object] = {"torch": torch}
    exec(compile("def f(x):\n    return torch.relu(x).sum()\n", "<made>", "exec"), space)
    program = ns.capture(space["f"], torch.ones(2))  # type: ignore[arg-type]
    assert program.steps[0].source is not None and program.steps[0].source.place == "<made>:2"


def test_nested_modules() -> None:
    """Steps know the path of the module that ran them, in an objective and in a closure."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))
    f, x = ns.objective(model, nn.functional.mse_loss)
    paths = {s.operation.name: s.module for s in ns.capture(f, x, torch.ones(1, 2), torch.ones(1, 1)).steps}
    assert paths["relu"] == "0.1"
    closure = ns.capture(lambda u: model(u).sum(), torch.ones(1, 2))
    assert {s.operation.name: s.module for s in closure.steps}["relu"] == "0.1"


class Square(torch.autograd.Function):
    """x squared."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        """Square."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        """Differentiate."""
        return 2 * g * ctx.saved_tensors[0]


def test_two_threads_capture_at_once() -> None:
    """Each gets its own program, and a thread that trains meanwhile is not disturbed."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def capture(size: int) -> None:
        try:
            for _ in range(10):
                model = nn.Sequential(nn.Linear(size, size), nn.ReLU())
                f, x = ns.objective(model, step=lambda m, u: Square.apply(m(u)).sum())
                program = ns.capture(f, x, torch.ones(1, size))
                kinds = [s.operation.name for s in program.steps]
                assert kinds == ["linear", "relu", "Square", "sum"], kinds
                assert [s.module for s in program.steps][:2] == ["0", "1"]
        except BaseException as error:
            errors.append(error)

    def train() -> None:
        model = nn.Linear(3, 3)
        while not stop.is_set():
            try:
                Square.apply(model(torch.ones(3))).sum().backward()
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=capture, args=(n,)) for n in (2, 3)]
    trainer = threading.Thread(target=train)
    for thread in (*threads, trainer):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    trainer.join()
    assert not errors, errors
    assert "apply" not in torch.autograd.function._SingleLevelFunction.__dict__
