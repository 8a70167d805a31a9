"""Every operation of the dictionary has a scalar program, and the table refuses what would falsify it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nonsmooth.cost.definitions import DEFINITIONS, define, tally_of
from nonsmooth.dictionary import OPERATIONS
from nonsmooth.errors import RegistrationError
from nonsmooth.program.shaped import ShapedCall, ShapedOperand


def test_every_operation_has_a_scalar_program() -> None:
    """No record of the dictionary is without a definition."""
    assert sorted(set(OPERATIONS) - set(DEFINITIONS)) == []


def test_a_scalar_program_is_given_once() -> None:
    """A second definition of an operation is refused."""
    with pytest.raises(RegistrationError, match="has a scalar program already"):
        define("relu")(lambda call: call.x)


def test_a_scalar_program_of_another_shape_is_refused() -> None:
    """A definition whose result has another shape than the program's is no definition of the step."""
    with pytest.raises(RegistrationError, match="the program has"):
        tally_of(ShapedCall("relu", (ShapedOperand((3,), True),), ((2,),)))


def test_an_operation_without_a_scalar_program_is_not_counted() -> None:
    """The user's own operation has no tally, rather than an empty one."""
    assert tally_of(ShapedCall("unheard_of", (ShapedOperand((3,), True),), ((3,),))) is None


def test_integer_and_logical_work_is_free() -> None:
    """The same operation counts on real numbers, and on whole ones it does not."""
    for operation, result in (("add", (3,)), ("compare", (3,)), ("sum", ())):
        call = ShapedCall(operation, (ShapedOperand((3,)), ShapedOperand((3,))), (result,), {"axes": (0,)})
        real, whole = tally_of(call), tally_of(replace(call, discrete=True))
        assert real is not None and whole is not None
        assert real.sweep().evaluation.total() > 0 == whole.sweep().evaluation.total()


COUNTS = {
    "relu": (((3,),), (3,), {}, 3, 9),
    "add": (((3,), (3,)), (3,), {}, 3, 9),
    "sub, alpha": (((3,), (3,)), (3,), {"alpha": 2}, 6, 18),
    "mul": (((2, 1), (1, 3)), (2, 3), {}, 6, 30),
    "div": (((3,), (3,)), (3,), {}, 3, 15),
    "exp": (((4,),), (4,), {}, 4, 12),
    "sum": (((2, 3),), (2,), {"axes": (1,)}, 4, 12),
    "mean": (((2, 3),), (), {"axes": (0, 1)}, 6, 18),
    "cumsum": (((4, 2),), (4, 2), {"axes": (0,)}, 6, 18),
    "prod": (((5,),), (), {"axes": (0,)}, 4, 20),
    "reshape": (((2, 3),), (6,), {}, 0, 0),
    "compare": (((3,), (3,)), (3,), {}, 3, 3),
    "scatter_add": (((3,), (5,), (5,)), (3,), {}, 5, 15),
    "mse_loss": (((4,), (4,)), (), {"reduction": 1}, 12, 40),
    "clamp": (((3,),), (3,), {"min": 0.0, "max": 1.0}, 6, 18),
    "clamp, one bound": (((3,),), (3,), {"min": 0.0, "max": None}, 3, 9),
    "pow, square": (((3,),), (3,), {"exponent": 2}, 3, 12),
    "power, third": (((3,),), (3,), {"exponent": 3}, 6, 27),
    "nll_loss": (((4, 3), (4,)), (), {"reduction": 1}, 8, 20),
    "leaky_relu": (((3,),), (3,), {"negative_slope": 0.1}, 9, 27),
}
"""Shapes of operands and result, attributes, and by hand: cost(g) and cost(backprop(g)), every operand moving."""


@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_hand(name: str) -> None:
    """Counts from shapes are those made by hand."""
    operands, result, attributes, evaluation, backprop = COUNTS[name]
    operation = name.split(",")[0].replace("square", "pow")
    still = {"scatter_add": (1,), "nll_loss": (1,)}.get(operation, ())
    moving = tuple(ShapedOperand(s, k not in still) for k, s in enumerate(operands))
    tally = tally_of(ShapedCall(operation, moving, (result,), attributes))
    assert tally is not None
    sweep = tally.sweep()
    assert (sweep.evaluation.total(), sweep.backprop.total()) == (evaluation, backprop)
