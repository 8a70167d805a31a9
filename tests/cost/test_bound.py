"""The constant of the theorem, against its formula written out by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonsmooth.cost.bound import NAMED, bound_of, dictionary_bound, scalar_bound, whole_bound
from nonsmooth.cost.model import LATENCY, UNIT, CostModel, as_model, parse_model
from nonsmooth.cost.scalars import SCALARS, Style
from nonsmooth.cost.tally import Tally, Whole
from nonsmooth.errors import UsageError

BY_HAND = {
    # name: c_g + D_g + 2 p_g under unit prices, from the partial derivatives written out
    "add": 1 + 0 + 4,
    "mul": 1 + 0 + 4,
    "relu": 1 + 0 + 2,
    "abs": 1 + 0 + 2,
    "max": 1 + 0 + 4,
    "select": 1 + 0 + 4,
    "exp": 1 + 0 + 2,
    "sin": 1 + 1 + 2,  # cos
    "cos": 1 + 2 + 2,  # -sin
    "tanh": 1 + 2 + 2,  # 1 - v v
    "sigmoid": 1 + 2 + 2,  # v (1 - v)
    "log": 1 + 1 + 2,  # 1 / x
    "sqrt": 1 + 2 + 2,  # 1 / (v + v)
    "square": 1 + 1 + 2,  # x + x
    "div": 1 + 2 + 4,  # 1 / y, v (1 / y)
    "pow": 1 + 4 + 4,  # v / x y, v log x
    "compare": 1,
    "round": 1,
}

prices = st.dictionaries(
    st.sampled_from(sorted(SCALARS)), st.one_of(st.integers(1, 50), st.floats(0.01, 50)), max_size=8
).map(CostModel)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_bound_of_a_scalar_operation(name: str) -> None:
    """Under unit prices w_g is what the formula gives by hand."""
    assert scalar_bound(SCALARS[name], UNIT) == BY_HAND[name]


def test_the_named_dictionaries() -> None:
    """Baur and Strassen's 5, also with relu, with exp and log, with sorting."""
    for name in ("+, x, relu", "+, x, relu, exp, log", "+, x, relu, sort", "piecewise affine"):
        assert dictionary_bound(name) == 5
    assert dictionary_bound(["relu"]) == 3
    assert dictionary_bound("everything") == max(scalar_bound(s, UNIT) for s in SCALARS.values())
    assert all(set(names) <= set(SCALARS) for names in NAMED.values())


def test_prices_enter_the_bound() -> None:
    """A dear exp is dear once, its derivative is itself; a dear addition is paid twice for every argument."""
    assert dictionary_bound(["exp"], CostModel({"exp": 10})) == (10 + 2) / 10
    assert dictionary_bound(["mul"], CostModel({"add": 3})) == 1 + 2 * 3 * 2
    assert dictionary_bound(["sin"], CostModel({"cos": 7})) == 1 + 7 + 2


@settings(deadline=None, max_examples=40)
@given(prices)
def test_no_scalar_operation_exceeds_its_bound(model: CostModel) -> None:
    """What the sweep of one operation counts is at most w_g c_g, whatever moves and whatever the prices are."""
    for name, scalar in SCALARS.items():
        for moving in ("", *scalar.partials):
            tally = Tally()
            tally.add(name, moving, 3)
            sweep = tally.sweep()
            limit = scalar_bound(scalar, model) * model.total(sweep.evaluation)
            assert model.total(sweep.backprop) <= limit * (1 + 1e-12)


@settings(deadline=None, max_examples=40)
@given(prices, st.integers(1, 40))
def test_no_forward_sweep_exceeds_its_bound(model: CostModel, directions: int) -> None:
    """Theorem 3: p directions cost at most 1 + p (w_g - 1) times the value."""
    for name, scalar in SCALARS.items():
        for moving in scalar.partials:
            tally = Tally()
            tally.add(name, moving)
            sweep = tally.sweep()
            limit = (1 + directions * (scalar_bound(scalar, model) - 1)) * model.total(sweep.evaluation)
            assert model.total(sweep.forward(directions)) <= limit * (1 + 1e-12), (name, moving)


def test_a_dear_change_of_sign_is_pushed_as_a_product() -> None:
    """However dear `neg` and `sub` are, a tangent costs a product by -1 at most."""
    for name, moving in (("neg", "x"), ("sub", "y")):
        assert SCALARS[name].push(moving) == Counter(mul=1, add=0)


def test_a_whole_operation() -> None:
    """Theorem 2: the pullback and one addition for each number that moves."""
    whole = Whole("eig", Counter(mul=100), Counter(), Counter(mul=30, add=20), Counter(mul=40), 10)
    assert whole_bound(whole, UNIT) == (100 + 50 + 10) / 100
    tally = Tally(wholes=[whole])
    assert UNIT.total(tally.sweep().backprop) == whole_bound(whole, UNIT) * 100
    assert bound_of([], [whole], UNIT) == 1.6
    assert UNIT.total(tally.still().sweep().backprop) == 100


def test_what_does_not_move_is_evaluated_only() -> None:
    """A tally that is still has the same evaluation and no derivative."""
    tally = Tally()
    tally.add("mul", "xy", 5)
    tally.add("compare", "x", 2)
    assert tally.still().sweep().evaluation == tally.sweep().evaluation
    assert not tally.still().sweep().pull.total()
    assert tally.scalars["compare", ""] == 2


@pytest.mark.parametrize(
    ("given_model", "words"),
    [
        ({"expo": 2}, "no scalar operation"),
        ({"exp": 0}, "positive"),
        ({"exp": -1}, "positive"),
        ({"exp": float("inf")}, "positive"),
        ({"exp": True}, "positive"),
        ({"exp": "2"}, "positive"),
        ("fast", "no model is called"),
        (3, "a model is a name or a mapping"),
    ],
)
def test_models_that_bound_nothing_are_refused(given_model: object, words: str) -> None:
    """The message says what was found."""
    with pytest.raises(UsageError, match=words):
        as_model(given_model)  # type: ignore[arg-type]


def test_models_from_a_line() -> None:
    """The command reads names and prices."""
    assert parse_model("exp=2.5,mul=3").prices == {"exp": 2.5, "mul": 3}
    assert parse_model("unit") is UNIT
    assert parse_model("latency") is LATENCY
    for text in ("exp", "exp=", "exp=a"):
        with pytest.raises(UsageError):
            parse_model(text)


def test_prices_are_added_up_exactly() -> None:
    """Whole prices give whole numbers of any size; others are rounded once."""
    assert UNIT.total({"mul": 10**30, "add": 1}) == 10**30 + 1
    assert CostModel({"mul": 0.1}).total({"mul": 10}) == 1.0


def test_models_by_name_and_by_prices() -> None:
    """The bound of a dictionary takes what `ns.cost` takes."""
    assert dictionary_bound(["exp"], "latency") == 1.2 and dictionary_bound(["exp"], {"exp": 2}) == 2
    assert CostModel({"exp": 1.5e308, "mul": 0.3}).total({"exp": 10, "mul": 1}) == float("inf")


def test_unknown_dictionaries_are_refused() -> None:
    """A name that is none, an operation that is none."""
    with pytest.raises(UsageError, match="no dictionary"):
        dictionary_bound("relus")
    with pytest.raises(UsageError, match="no scalar operation"):
        dictionary_bound(["relus"])


def test_every_scalar_operation_says_how_it_is_swept() -> None:
    """The operations of the partial derivatives are themselves in the table, or known to cost."""
    for scalar in SCALARS.values():
        assert (scalar.style is Style.NONE) == (not scalar.partials)
        for partials in scalar.partials.values():
            assert set(partials) <= set(SCALARS), scalar.name
