"""Every function of torch.nn.functional, and more: captured, native gradients kept, also at points full of kinks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import nonsmooth as ns
from tests.cases import functional
from tests.cases.functional import CALLS

RANDOM = """
alpha_dropout dropout1d dropout2d dropout3d feature_alpha_dropout gumbel_softmax
""".split()
NOT_FUNCTIONS = """
assert_int_or_pair boolean_dispatch handle_torch_function has_torch_function has_torch_function_unary
has_torch_function_variadic
""".split()
SAME_UNDER_ANOTHER_NAME = """
upsample upsample_bilinear upsample_nearest native_channel_shuffle conv_tbc multi_head_attention_forward
conv2d conv3d conv_transpose2d conv_transpose3d
""".split()
LOW_PRECISION_ONLY = "grouped_mm scaled_grouped_mm scaled_mm linear_cross_entropy".split()


def weighed(f, x):  # type: ignore[no-untyped-def]
    """Read all entries of a result with different weights."""
    y = f(x)
    return (y * torch.linspace(1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)).sum()


@pytest.mark.parametrize("where", ["kinks", "random"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_native_gradients_are_kept(name: str, where: str) -> None:
    """The captured program differentiates exactly as torch does, and every selection can be applied to it."""
    f, point = CALLS[name]
    x = point if where == "kinks" else torch.randn(point.shape, generator=torch.Generator().manual_seed(1)).double()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(weighed(f, leaf), leaf)
    program = ns.capture(lambda u: weighed(f, u), x)
    assert torch.allclose(ns.backprop(program, x), expected, equal_nan=True, rtol=1e-12)
    for convention in (0.0, 0.5, 1.0, "jax", "tensorflow", "random", "minimum-norm"):
        assert ns.backprop(program, x, at_kinks=convention).shape == x.shape
    ns.kinks(program, x)


SMOOTH = "celu celu2 elu silu gelu softplus smooth_l1 huber mse_loss cross_entropy lse var layer_norm power".split()


@pytest.mark.parametrize("name", [n for n in SMOOTH if n in CALLS])
def test_smooth_for_its_arguments(name: str) -> None:
    """What is smooth for the given arguments has no kink, also at zeros and ties."""
    f, point = CALLS[name]
    assert ns.kinks(lambda u: weighed(f, u), point).count == 0


def test_none_is_forgotten() -> None:
    """Every function of torch.nn.functional stands in the table, or in a list that says why not."""
    source = Path(functional.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r"F\.(\w+)", source)) | {n.split()[0] for n in CALLS}
    used |= {f"{n}_" for n in used} | {f"{n}_with_indices" for n in used}
    public = {n for n in dir(F) if n[0].islower() and callable(getattr(F, n))}
    listed = {*RANDOM, *NOT_FUNCTIONS, *SAME_UNDER_ANOTHER_NAME, *LOW_PRECISION_ONLY}
    assert public - used - listed == set()


def test_the_list_of_missing_operators_is_computed() -> None:
    """It names what has neither row nor formula: nothing, until a row is taken away."""
    from nonsmooth.frameworks.torch import names

    assert names.missing() == []
    row = names.TABLE.pop("hardswish")
    try:
        assert names.missing() == ["hardswish"]
    finally:
        names.TABLE["hardswish"] = row
