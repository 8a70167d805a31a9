"""Kernels below torch's differentiation: counts made by hand, and programs in which none is left uncounted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nonsmooth as ns
from nonsmooth.cost.definitions import tally_of
from nonsmooth.cost.own_backward import compare_backward
from nonsmooth.cost.scalars import counter
from nonsmooth.program.shaped import ShapedCall, ShapedOperand
from tests.zoo import ZOO

Shapes = tuple[tuple[int, ...], ...]

BY_HAND: dict[str, tuple[str, Shapes, Shapes, dict[str, Any], str]] = {
    "largest at places": ("scatter_reduce", ((5,), (3,), (3,)), ((5,),), {"reduce": "amax"}, "3 compare"),
    "means at places": ("index_reduce", ((5, 2), (3,), (3, 2)), ((5, 2),), {"reduce": "mean"}, "6 add 10 div"),
    "sums of segments": ("segment_reduce", ((7,), (2,)), ((2,),), {"reduce": "sum"}, "5 add"),
    "products back": ("_segment_reduce_backward", ((2,), (2,), (7,)), ((7,),), {"reduce": "prod"}, "2 mul 7 div"),
    "largest back": ("_segment_reduce_backward", ((2,), (2,), (7,)), ((7,),), {"reduce": "max"}, "7 compare"),
    "median of numbers": ("nanmedian", ((3, 8),), ((3,), (3,)), {"dim": 1}, "75 compare"),  # 3 (8 + 8 log2 8 - 7)
    "bags": ("_embedding_bag", ((9, 4), (6,), (2,)), ((2, 4),), {"mode": 1}, "16 add 8 div"),
    "weighed bags": ("_embedding_bag", ((9, 4), (6,), (2,), (6,)), ((2, 4),), {"mode": 0}, "24 mul 16 add"),
    "largest of bags": (
        "_embedding_bag",
        ((9, 4), (6,), (3,)),
        ((2, 4),),
        {"mode": 2, "include_last_offset": True},
        "16 compare",
    ),
    "bags back": ("_embedding_bag_backward", ((2, 4), (6,)), ((9, 4),), {"mode": 0}, "24 add"),
    "weights of bags back": (
        "_embedding_bag_per_sample_weights_backward",
        ((2, 4), (9, 4), (6,)),
        ((6,),),
        {},
        "24 mul 18 add",
    ),
    "bilinear": (  # x (b, i), W (o, i, j), z (b, j): b o i j + b o j products
        "_trilinear",
        ((5, 2), (4, 2, 3), (5, 3)),
        ((5, 4),),
        {"expand1": [1, 3], "expand2": [0], "expand3": [1, 2], "sumdim": [2, 3], "unroll_dim": 1},
        "180 mul 100 add",
    ),
    "weight norm back": (
        "_weight_norm_interface_backward",
        ((3, 4), (3, 4), (3, 1), (3, 1)),
        ((3, 4), (3, 1)),
        {"dim": 0},
        "36 mul 9 add 9 div 12 sub",
    ),
    "margins back": (
        "multi_margin_loss_backward",
        ((), (2, 3), (2,)),
        ((2, 3),),
        {"p": 2},
        "4 sub 8 add 4 select 14 mul",
    ),
    "nearest pixels back": (
        "grid_sampler_2d_backward",
        ((1, 2, 4, 4), (1, 2, 5, 5), (1, 4, 4, 2)),
        ((1, 2, 5, 5), (1, 4, 4, 2)),
        {"interpolation_mode": 1, "output_mask": [True, True]},
        "32 add 32 add 64 mul 32 sub 32 round",
    ),
    "half a transform": ("fft_fft", ((16,),), ((9,),), {"axes": (0,), "onesided": True}, "64 mul 96 add"),
    "a transform": ("fft_fft", ((16,),), ((16,),), {"axes": (0,), "forward": True}, "128 mul 192 add"),
    "L and U": ("linalg_lu", ((2, 2),), ((2, 2), (2, 2), (2, 2)), {}, "3 abs compare div mul sub"),
}
"""Kernel, shapes of operands and results, attributes, and the scalar operations, by hand."""


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(name: str) -> None:
    """What shapes give is what was counted by hand."""
    kernel, operands, results, attributes, expected = BY_HAND[name]
    tally = tally_of(ShapedCall(kernel, tuple(ShapedOperand(s) for s in operands), results, attributes))
    assert tally is not None
    assert +tally.sweep().evaluation == counter(expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of operators that torch calls a prototype
@pytest.mark.parametrize(
    "name",
    [
        *(
            "weight norm",
            "embedding bags",
            "bags",
            "order",
            "products",
            "segment_reduce",
            "lu",
            "ctc",
            "losses with options",
        ),
        *("scatter_reduce amax True", "index_reduce prod False", "fused attention, grouped queries"),
        *("grid_sample, moving", "grid_sample nearest zeros", "interpolate, aligned and antialiased"),
    ],
)
def test_no_kernel_is_left_out(name: str) -> None:
    """Everything that torch runs for the value and the gradient is counted."""
    f, x, data = ZOO[name]()
    own = compare_backward(ns.capture(f, x, *data), x, data)
    assert own.uncounted == ()
    assert own.ratio is not None and own.forward > 0


def test_a_fused_lstm_counts_what_its_steps_do() -> None:
    """In single precision torch runs a layer as one kernel: forward as the program; backward less than the scalar sweep."""
    lstm = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    f, x = ns.objective(lstm, step=lambda m, u: m(u)[0].square().sum())
    inputs = torch.rand(5, 2, 3)
    program = ns.capture(f, x, inputs)
    ran = {entry.call.operation for entry in program.framework.own_backward(program, x, (inputs,)).entries}
    own = compare_backward(program, x, (inputs,))
    assert own.uncounted == ()
    assert own.forward == own.evaluation
    assert 0 < own.backward < own.pull
    if "mkldnn_rnn_layer" not in ran:
        pytest.skip("this build of torch has no fused layer")


@pytest.mark.parametrize("operation", ["bilinear", "weight_norm"])
def test_kernels_count_what_the_program_counts(operation: str) -> None:
    """The forward pass below differentiation is the program's own count."""
    torch.manual_seed(0)
    if operation == "bilinear":
        weight, z = torch.rand(4, 3, 3), torch.rand(5, 3)  # either factor first
        f, x = (lambda u: torch.nn.functional.bilinear(u, z, weight).sum()), torch.rand(5, 3)
    else:
        scale = torch.rand(3, 1)
        f, x = (lambda u: torch._weight_norm(u, scale, 0).sum()), torch.rand(3, 4)
    own = compare_backward(ns.capture(f, x), x)
    assert own.forward == own.evaluation and not own.uncounted
