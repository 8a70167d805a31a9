"""JSON is strict, whatever the result holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest

from nonsmooth.report.json_text import to_json


@dataclass(frozen=True)
class Result:
    value: Any
    hidden: Any = field(default=1, repr=False)


class Colour(Enum):
    RED = "red"


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (np.float64("nan"), "nan"),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.array([[1.0, np.inf]]), [[1.0, "inf"]]),
        (Colour.RED, "red"),
        ((1, {"a": {2}}), [1, {"a": [2]}]),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        (PurePosixPath("a/b"), "a/b"),
        ("\x1b[31m\udc80<script>", "\x1b[31m\udc80<script>"),
    ],
)
def test_values(value: Any, plain: Any) -> None:
    assert strict(to_json(Result(value))) == {"format_version": 1, "value": plain}


def test_a_result_that_is_no_object_is_wrapped() -> None:
    assert strict(to_json([1.0, float("nan")])) == {"format_version": 1, "result": [1.0, "nan"]}


def test_the_text_is_ascii() -> None:
    assert to_json(Result("é\u202e")).isascii()
