from __future__ import annotations

import copy
import pickle

import pytest

from nonsmooth.sets import Bounded


def test_a_known_number() -> None:
    b = Bounded(2.0)
    assert (b, b.lower, b.upper, b.exact, repr(b), str(b)) == (2.0, 2.0, 2.0, True, "2.0", "2.0")
    assert b + 1 == 3 and f"{b:.1f}" == "2.0"


@pytest.mark.parametrize(
    ("arguments", "value", "exact", "text"),
    [
        ((0.5, 1.0), 1.0, False, "between 0.5 and 1.0"),
        ((0.5, 1.0, 0.75), 0.75, False, "between 0.5 and 1.0"),
        ((0.5, 1.0, 0.75, True), 0.75, True, "0.75"),
        ((1.0, 1.0), 1.0, True, "1.0"),
        ((1.0, 1.0, None, False), 1.0, False, "between 1.0 and 1.0"),
    ],
)
def test_an_interval(arguments: tuple[float, ...], value: float, exact: bool, text: str) -> None:
    b = Bounded(*arguments)
    assert (float(b), b.lower, b.upper, b.exact, repr(b)) == (value, arguments[0], arguments[1], exact, text)


def test_copies_keep_the_interval() -> None:
    b = Bounded(0.5, 1.0, 0.75, True)
    for other in (copy.copy(b), copy.deepcopy(b), pickle.loads(pickle.dumps(b))):
        assert (other, other.lower, other.upper, other.exact) == (0.75, 0.5, 1.0, True)
