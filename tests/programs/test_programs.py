"""The random programs are what they claim to be, and the oracles find planted lies."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.adapters import Adapter, served
from tests.programs.generator import random_program
from tests.programs.jax_text import RULES, NotInJax, in_jax
from tests.programs.oracle import gradient_at, gradient_near, is_limit, one_sided
from tests.programs.statements import KINDS
from tests.programs.traps import TRAPS, trapped_program
from tests.shortened import shortened

ZERO = torch.zeros(2, dtype=torch.float64)
ALONG = torch.tensor([0.5, -0.25], dtype=torch.float64)


def total_abs(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sum()


def test_a_seed_is_a_program() -> None:
    """The same seed gives the same text, its print runs, and other seeds give other texts."""
    first, again, other = random_program(7), random_program(7), random_program(8)
    assert first == again and first.text != other.text
    scope: dict[str, object] = {}
    exec(str(first), scope)
    assert torch.equal(scope["f"](scope["x"]), first.function()(first.x()))  # type: ignore[operator]


@pytest.mark.parametrize("block", range(4))
def test_programs_are_continuous(block: int) -> None:
    """Next to its point a program moves no faster than its distance allows; it is finite, and scalar."""
    for seed in range(25 * block, 25 * (block + 1)):
        program = random_program(seed)
        f, x = program.function(), program.x()
        start = f(x)
        assert start.shape == () and start.isfinite()
        generator = torch.Generator().manual_seed(seed)
        for _ in range(5):
            step = 1e-9 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            assert (f(x + step) - start).abs() < 1e-5, program


def test_every_kind_of_statement_comes() -> None:
    """All kinds of switches, orders, norms, choices and branches occur among a few hundred programs."""
    texts = "\n".join(random_program(seed).text for seed in range(300))
    for word in (
        "relu",
        "abs",
        "clamp",
        "maximum",
        "prelu",
        "softshrink",
        "hardswish",
        "elu",
        "sort",
        "topk",
        "median",
    ):
        assert word in texts, word
    for word in ("kthvalue", "cummax", "max_pool1d", "vector_norm", "float('inf')", "where", "if ", "sorted", "while"):
        assert word in texts, word
    assert "eigvalsh" in texts and "nuc" in texts and len(KINDS) == 12


BLOCKS = [(name, block) for name in served() for block in range(4)]
"""Of the four blocks of JAX, which compiles every program anew, one is run by default."""


@pytest.mark.parametrize(
    ("xp", "block"),
    [*(run for run in BLOCKS if run[0] != "jax"), *shortened([run for run in BLOCKS if run[0] == "jax"], 1)],
    indirect=["xp"],
)
def test_a_program_is_the_same_in_every_framework(xp: Adapter, block: int) -> None:
    """Values at the point and beside it are those of the text for torch."""
    for seed in range(10 * block, 10 * (block + 1)):
        program = random_program(seed)
        (f, x), reference = program.on(xp), program.function()
        for step in np.random.default_rng(seed).standard_normal((3, len(x))) * np.array([[0], [1e-3], [0.3]]):
            expected = float(reference(program.x() + torch.from_numpy(step)))
            assert float(f(x + xp.array(step))) == pytest.approx(expected, rel=1e-9, abs=1e-9), program.script(xp)


NOT_IN_JAX = {
    *("custom function", "item", "float", "escaped maximum", "tolist", "numpy", "escaped index"),
    *("no grad", "boolean indexing"),
}
"""Traps of values that leave torch, of its modes, and of shapes that depend on data."""


def test_what_cannot_be_said_in_jax() -> None:
    """Every random program can be translated, and the traps but for those listed; torch's other words are refused."""
    for seed in range(200):
        in_jax(random_program(seed).text)
    refused = set()
    for name in TRAPS:
        try:
            in_jax(trapped_program(0, name).text)
        except NotInJax:
            refused.add(name)
    assert refused == NOT_IN_JAX
    for words in ("torch.frobnicate(x)", "x.max(0)", "x[x > 0]", "x.item()", "F.relu7(x)"):
        with pytest.raises(NotInJax):
            in_jax(f"y = {words}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = torch.relu(x.clamp(min=0.0))", "y = jax.nn.relu(jnp.clip(x, min=0.0))"),
        ("y = x.sort().values @ x.abs()", "y = jnp.sort(x) @ jnp.abs(x)"),
        ("y = x\nif x > 0:\n    y = 2 * x", "y = x\ny = jax.lax.cond(x > 0, lambda: 2 * x, lambda: y)"),
        ("y = max([a, b], key=lambda t: -t)", "y = largest_by(lambda t: -t, a, b)"),
    ],
)
def test_translations(text: str, expected: str) -> None:
    assert in_jax(text).endswith(f"\n{expected}\n")


def test_every_rule_is_of_use() -> None:
    """Each becomes another text, and no pattern stands twice."""
    patterns = [rule.split(" -> ")[0] for rule in RULES]
    assert len(set(patterns)) == len(patterns) and all(rule.count(" -> ") == 1 for rule in RULES)


@pytest.mark.parametrize("name", TRAPS)
def test_traps_run(name: str) -> None:
    """Every trap evaluates at its point to a finite number that depends on it."""
    for seed in range(3):
        program = trapped_program(seed, name)
        assert program.function()(program.x()).isfinite(), program
        assert re.search(r"return .*r\.sum\(\)", program.text)


def test_the_oracles_find_limits() -> None:
    """Gradients of |x1| + |x2| next to 0 and its one-sided derivative."""
    near, slope = gradient_near(total_abs, ZERO, ALONG), one_sided(total_abs, ZERO, ALONG)
    assert near is not None and near.agrees(torch.tensor([1.0, -1.0]).double())
    assert slope is not None and slope.agrees(torch.tensor(0.75).double())
    assert is_limit(total_abs, ZERO, ALONG, torch.tensor([1.0, -1.0]).double())


def test_the_oracles_find_planted_lies() -> None:
    """Values of backprop and of other cones, slopes of the other side, jumps and roots."""
    for lie in ([0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.001, -1.0]):
        assert not is_limit(total_abs, ZERO, ALONG, torch.tensor(lie).double())
    slope = one_sided(total_abs, ZERO, ALONG)
    assert slope is not None and not slope.agrees(torch.tensor(0.7501).double())
    assert one_sided(lambda x: (x[0] > 0).double(), ZERO, ALONG) is None
    assert one_sided(lambda x: x[0].abs().sqrt(), ZERO, ALONG) is None
    assert gradient_near(lambda x: x[0].abs().sqrt(), ZERO, ALONG) is None


def test_gradients_on_both_sides_of_the_ray_are_limits() -> None:
    """Along (1, 1) max(x1, x2) stays tied: either unit vector is a limit, their middle is none."""
    both = torch.ones(2, dtype=torch.float64)
    assert all(is_limit(torch.max, ZERO, both, e) for e in torch.eye(2).double())
    assert not is_limit(lambda x: torch.maximum(x[0], x[1]), ZERO, both, torch.tensor([0.25, 0.75]).double())


def test_a_gradient_that_is_no_number_is_measured() -> None:
    """torch gives nan for hypot(0, 0), also where both are constant."""
    found = gradient_at(lambda x: torch.hypot(x[0] * 0, x[1] * 0) + 3 * x[0], ZERO + 1)
    assert torch.allclose(found, torch.tensor([3.0, 0.0]).double(), atol=1e-6)
