"""cost(backprop(P)) <= w_b cost(P), on scalar sweeps that were executed and counted operation by operation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.cost import scalars
from nonsmooth.cost.bound import bound_of
from nonsmooth.cost.model import LATENCY, UNIT, CostModel
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.cost.tally import Whole
from nonsmooth.program import Program
from tests.programs.generator import random_program
from tests.references.scalar_sweep import NotExecutable, execute
from tests.zoo import HUGGING_FACE, ZOO, randn, weighed

WHOLE = "is elementary as a whole"
COMPLEX = "complex numbers"
OPEN = "does not say"

NOT_EXECUTED: dict[str, str] = {
    **dict.fromkeys(
        ("matrix norm nuc", "matrix norm 2", "matrix norm -2", "eigvalsh", "eigh", "svdvals", "svd"), WHOLE
    ),
    **dict.fromkeys(("solvers", "products", "least squares", "square svd", "eigenvalues", "fourier"), WHOLE),
    **dict.fromkeys(("fourier, inverse and hermitian", "fourier, in windows"), WHOLE),
    **dict.fromkeys(("complex", "complex spectra", "complex arithmetic"), OPEN),
    "conjugate of what was written": COMPLEX,
    "interpolate, aligned and antialiased": OPEN,
    **dict.fromkeys(("lstm, packed", "gru, packed", "rnn tanh, packed", "ctc"), OPEN),
}
"""Programs of the zoo that are counted and not executed, and why: eigenproblems and transforms of Fourier are elementary as
a whole, a complex number counts as one, and the sums over sequences of several lengths are stated."""


def models() -> Iterable[CostModel]:
    """Give the unit model, the named one, and random ones over four orders of magnitude."""
    yield UNIT
    yield LATENCY
    rng = random.Random(0)
    for _ in range(8):
        yield CostModel({name: 10 ** rng.uniform(-2, 2) for name in scalars.SCALARS})


def overhead(evaluation: Counter[str], pull: Counter[str], wholes: Iterable[Whole] = ()) -> float:
    """Hold counts against the theorem under every model; give the ratio under the unit model."""
    wholes = tuple(wholes)
    for model in models():
        cost, backprop = model.total(evaluation), model.total(evaluation + pull)
        bound = bound_of([name for name, n in evaluation.items() if n], wholes, model)
        assert backprop <= bound * cost * (1 + 1e-12), f"{backprop} is more than {bound} x {cost}"
    return (evaluation + pull).total() / max(evaluation.total(), 1)


def swept(program: Program, x: Any, data: tuple[Any, ...] = ()) -> tuple[float, list[np.ndarray]]:
    """Execute a program and its reverse sweep: the ratio of what was counted, and the gradient."""
    found = execute(program, x, data)
    gradient, pulled = found.gradient()
    assert {k: n for k, n in pulled.items() if n} == {k: n for k, n in found.stated.pull.items() if n}
    assert {k: n for k, n in found.tape.counts.items() if n} == {k: n for k, n in found.stated.evaluation.items() if n}
    return overhead(found.tape.counts, pulled), gradient


def native(f: Callable[..., torch.Tensor], program: Program, x: Any, data: tuple[Any, ...]) -> list[np.ndarray]:
    """Give torch's gradient."""
    leaves, structure = program.framework.flatten(x)
    points = [t.detach().clone().requires_grad_() for t in leaves]
    value = f(program.framework.unflatten(points, structure), *data)
    found = torch.autograd.grad(value, points, allow_unused=True)
    return [np.zeros(p.shape) if g is None else g.numpy() for p, g in zip(points, found, strict=True)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of operators that torch calls a prototype
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str) -> None:
    """The executed sweep of every program gives torch's gradient and satisfies the inequality."""
    f, x, data = ZOO[name]()
    program = ns.capture(f, x, *data)
    counted(program)
    if name in NOT_EXECUTED:
        with pytest.raises(NotExecutable, match=NOT_EXECUTED[name]):
            execute(program, x, data)
        return
    ratio, gradient = swept(program, x, data)
    assert 1 <= ratio <= 5
    for own, theirs in zip(gradient, native(f, program, x, data), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-6, atol=1e-8)


def counted(program: Program) -> float:
    """Count a program from shapes, and hold the counts against the theorem."""
    steps = count_steps(program)
    sweeps = [step.sweep for step in steps if step.sweep is not None]
    assert len(sweeps) == len(steps)
    evaluation, pull = Counter[str](), Counter[str]()
    for sweep in sweeps:
        evaluation.update(sweep.evaluation)
        pull.update(sweep.pull)
    return overhead(evaluation, pull, [w for step in steps if step.tally is not None for w in step.tally.wholes])


def blocks(count: int) -> list[Any]:
    """Give blocks of seeds, of which all but the first are slow."""
    return [pytest.param(k, marks=[pytest.mark.slow] if k else []) for k in range(count)]


@pytest.mark.parametrize("block", blocks(5))
def test_random_programs(block: int) -> None:
    """Random programs with many kinks, branches and loops: 200 of them in all, executed."""
    ratios = []
    for seed in range(40 * block, 40 * (block + 1)):
        written = random_program(seed)
        f, x = written.function(), written.x()
        program = ns.capture(f, x)
        try:
            ratios.append(swept(program, x)[0])
        except NotExecutable as reason:  # eigenvalues and nuclear norms
            assert WHOLE in str(reason)
            counted(program)
    assert len(ratios) > 25 and all(1 <= r <= 5 for r in ratios)


UNARY = "relu abs exp sin cos tanh sigmoid square neg erf erfc expm1 atan asinh cosh sinh".split()
BINARY: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: a - 2 * b,
    lambda a, b: a * b,
    lambda a, b: a / (b.square() + 1),
    torch.maximum,
    torch.minimum,
    torch.hypot,
    torch.atan2,
    torch.logaddexp,
    lambda a, b: torch.where(a > b, a, b * b),
    lambda a, b: a @ b.T @ b,
    lambda a, b: (a.square() + 0.5).log() + (b.square() + 1).sqrt(),
    lambda a, b: (a.square() + 0.5) ** b.tanh(),
]
SHAPING: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda a: a.softmax(1),
    lambda a: a.cumsum(0),
    lambda a: a - a.mean(0),
    lambda a: a / (a.std() + 1),
    lambda a: a.sort(1).values,
    lambda a: a.flip(0) + a.amax(1, True),
    lambda a: torch.nn.functional.layer_norm(a, (3,)),
    lambda a: a.clamp(-1, 1),
    lambda a: a * a.logsumexp(0),
    lambda a: torch.cat([a, a.relu()], 1)[:, 1:4],
    lambda a: a.index_add(0, torch.tensor([1]), a[:1]),
    lambda a: a.clone().mul_(a.sigmoid()),
]


def composed(seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compose random operations on matrices."""
    plan = random.Random(seed)
    steps = [(plan.randrange(3), plan.random(), plan.random(), plan.random()) for _ in range(plan.randint(1, 8))]

    def f(x: torch.Tensor) -> torch.Tensor:
        known = [x]
        for kind, which, one, two in steps:
            a, b = known[int(one * len(known))], known[int(two * len(known))]
            if kind == 0:
                found = getattr(torch, UNARY[int(which * len(UNARY))])(a.clamp(-3, 3))
            else:
                found = BINARY[int(which * len(BINARY))](a, b) if kind == 1 else SHAPING[int(which * len(SHAPING))](a)
            known.append(found)
        return weighed(known[-1])

    return f


@pytest.mark.parametrize("block", blocks(4))
def test_random_compositions(block: int) -> None:
    """Random compositions of many operations: value, gradient, counts and the inequality."""
    for seed in range(25 * block, 25 * (block + 1)):
        f, x = composed(seed), randn(2, 3, seed=seed)
        program = ns.capture(f, x)
        ratio, gradient = swept(program, x)
        assert 1 <= ratio <= 5
        (expected,) = native(f, program, x, ())
        np.testing.assert_allclose(gradient[0], expected, rtol=1e-6, atol=1e-8)


def test_the_constant_is_attained() -> None:
    """A program of one product has the ratio 5, of one relu or one sum 3."""
    x = torch.tensor([2.0, 3.0], dtype=torch.float64)
    for f, ratio in (
        (lambda x: x[0] * x[1], 5),
        (lambda x: x[0].relu(), 3),
        (lambda x: x.sum(), 3),
    ):
        assert swept(ns.capture(f, x), x)[0] == ratio


def test_large_programs_are_counted() -> None:
    """Counts from shapes satisfy the inequality where nobody would execute them."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(7200, 100)
    )
    f, x = ns.objective(model, nn.functional.cross_entropy)
    images, labels = torch.zeros(4, 3, 32, 32), torch.arange(4)
    assert 2 < counted(ns.capture(f, x, images, labels)) < 5


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_models_of_others_are_counted(name: str) -> None:
    """Transformers satisfy the inequality."""
    f, x, data = HUGGING_FACE[name]()
    assert 2 < counted(ns.capture(f, x, *data)) < 5


def test_a_wrong_table_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial derivative that is priced as free, and costs two operations, breaks the inequality."""
    x = torch.tensor(0.3, dtype=torch.float64)
    found = execute(ns.capture(lambda x: x.tanh().tanh(), x), x)
    pulled = found.gradient()[1]
    assert overhead(found.tape.counts, pulled) == 5
    wrong = scalars.Scalar("tanh", scalars.Style.PRODUCT, {"x": Counter()})
    monkeypatch.setitem(scalars.SCALARS, "tanh", wrong)
    with pytest.raises(AssertionError, match="is more than"):
        overhead(found.tape.counts, pulled)
