"""The study of the slides: every value against its closed form, and the functions against what they are said to be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.studies.slides import CONVENTIONS, OneSided, SlideFunction, SlidesStudy, _judge, study_slides
from nonsmooth.studies.slides_programs import formulas

ZERO = torch.tensor(0.0, dtype=torch.float64)

# name: torch, jax, tensorflow, weights 0, 1/2, 1; the limits of the derivative from the left and from the right.
# abs'(0) is 0 in torch and TensorFlow and 1 in JAX, leaky_relu'(0) is 1 in JAX, every relu'(0) is 0.
CLOSED_FORMS = {
    "relu": ((0, 0, 0, 0, 0.5, 1), (0, 1)),
    "abs": ((0, 1, 0, -1, 0, 1), (-1, 1)),
    "leaky_relu": ((0.01, 1, 0.01, 0.01, 0.505, 1), (0.01, 1)),
    "relu6": ((0, 0, 0, 0, 0.5, 1), (0, 1)),
    "relu2": ((1, 1, 1, 1, 0.5, 0), (0, 1)),
    "relu3": ((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), (0, 1)),
    "zero": ((1, 1, 1, 1, 0, -1), (0, 0)),
    "mysin": ((2, 2, 2, 2, 1, 0), (1, 1)),
    "mysin2": ((0, 0, 0, 0, 1, 2), (1, 1)),
    "mysin3": ((2, 1, 2, 3, 1, -1), (1, 1)),
    "oneThird": ((1, 1, 1, 1, 0, -1), (0, 0)),
    "myRelu": ((0, 0, 0, 0, 0, 0), (0, 1)),
}

FUNCTIONS = {
    "max(t, 0)": lambda t: max(t, 0.0),
    "|t|": abs,
    "max(t, t/100)": lambda t: max(t, t / 100),
    "min(max(t, 0), 6)": lambda t: min(max(t, 0.0), 6.0),
    "0": lambda t: 0.0,
    "sin t": math.sin,
    "1/3": lambda t: 1 / 3,
}


@pytest.fixture(scope="module")
def study() -> SlidesStudy:
    return study_slides()


def test_the_functions_are_those_of_the_slides(study: SlidesStudy) -> None:
    assert [f.name for f in study.functions] == list(CLOSED_FORMS)


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_the_table_of_derivatives(study: SlidesStudy, name: str) -> None:
    found, (conventions, sides) = study.find(name), CLOSED_FORMS[name]
    assert list(found.conventions) == list(CONVENTIONS)
    assert list(found.conventions.values()) == pytest.approx(conventions, abs=1e-14)
    assert found.backprop == found.conventions["torch"]
    assert found.clarke == pytest.approx(sides, abs=1e-14)
    assert [(one.side, one.status) for one in found.certified] == [("left", "computed"), ("right", "computed")]
    assert [one.value for one in found.certified] == pytest.approx(sides, abs=1e-14)
    assert all(one.margin > 0 for one in found.certified)


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_torch_itself_returns_it(study: SlidesStudy, name: str) -> None:
    (formula,) = (f for f in formulas() if f.name == name)
    t = ZERO.clone().requires_grad_()
    result = formula.program(t)
    if result.requires_grad:
        result.backward()
    assert study.find(name).backprop == (0.0 if t.grad is None else float(t.grad))


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_the_certified_values_are_the_one_sided_slopes(study: SlidesStudy, name: str) -> None:
    (formula,) = (f for f in formulas() if f.name == name)
    low, high = (s * float(ns.directional(formula.program, ZERO, torch.full_like(ZERO, s))) for s in (-1.0, 1.0))
    assert [one.value for one in study.find(name).certified] == pytest.approx([low, high], abs=1e-14)
    near = [float((formula.program(ZERO + h) - formula.program(ZERO)) / h) for h in (-1e-7, 1e-7)]
    assert near == pytest.approx([low, high], abs=1e-6)


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_the_program_is_the_function_that_it_is_said_to_be(study: SlidesStudy, name: str) -> None:
    found = study.find(name)
    assert 0.0 in found.grid and found.grid[0] <= -2 and found.grid[-1] >= 2
    true = FUNCTIONS[found.equals]
    assert found.values == pytest.approx([true(t) for t in found.grid], abs=4e-16)
    assert found.value == pytest.approx(true(0.0), abs=1e-16)


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_the_text_of_the_program_is_the_program(study: SlidesStudy, name: str) -> None:
    (formula,) = (f for f in formulas() if f.name == name)
    space: dict[str, Any] = {f.name: f.program for f in formulas()}
    space |= {"sin": torch.sin, "abs": torch.abs}
    for t in (torch.tensor(k / 8, dtype=torch.float64) for k in range(-16, 17)):
        assert float(eval(formula.text, space | {"t": t})) == float(formula.program(t))


def test_the_derivatives_away_from_the_kink_are_those_of_the_function(study: SlidesStudy) -> None:
    for found in study.functions:
        if found.equals == "sin t":
            at = zip(found.grid, found.derivatives, strict=True)
            assert all(g == pytest.approx(math.cos(t), abs=1e-14) for t, g in at if t != 0)
        assert found.derivatives[found.grid.index(0.0)] == found.backprop


def test_the_three_sines_are_three_programs(study: SlidesStudy) -> None:
    sines = [f for f in study.functions if f.equals == "sin t"]
    assert len(sines) == 3 and all(f.backprop != 1 for f in sines)
    assert len({tuple(f.conventions.values()) for f in sines}) == 3
    operations = {
        f.name: [s.operation.name for s in ns.capture(f.program, ZERO).steps] for f in formulas() if f.equals == "sin t"
    }
    assert len({tuple(names) for names in operations.values()}) == 3


def test_what_is_found(study: SlidesStudy) -> None:
    assert {f.name: f.finding for f in study.functions} == {
        "relu": "agrees",
        "abs": "between",
        "leaky_relu": "agrees",
        "relu6": "agrees",
        "relu2": "agrees",
        "relu3": "between",
        "zero": "differs",
        "mysin": "differs",
        "mysin2": "differs",
        "mysin3": "differs",
        "oneThird": "differs",
        "myRelu": "agrees",
    }
    assert study.find("zero").caption == "differs: 1 is off by 1 from the certified subgradient, 0 from both sides"


def sides(left: float, right: float, status: str = "computed") -> tuple[OneSided, ...]:
    return OneSided("left", left, status, 1.0, ("a jump",) * (status != "computed")), OneSided(
        "right", right, "computed", 1.0
    )


@pytest.mark.parametrize(
    ("gradient", "certified", "finding", "words"),
    [
        (0.0, sides(0.0, 1.0), "agrees", "from the left"),
        (1.0, sides(0.0, 1.0), "agrees", "from the right"),
        (1.0, sides(1.0, 1.0), "agrees", "from both sides"),
        (0.5, sides(0.0, 1.0), "between", "lies between 0 and 1"),
        (2.0, sides(0.0, 1.0), "differs", "off by 1 from the certified subgradients, 0 and 1"),
        (2.0, sides(1.5, 1.5), "differs", "off by 0.5 from the certified subgradient, 1.5 from both sides"),
        (2.0, sides(0.0, 1.0, "undecided"), "undecided", "no certificate for both sides: a jump"),
        (1.0, sides(0.0, 1.0, "undecided"), "agrees", "from the right"),
        (0.0, sides(0.0, 1.0, "undecided"), "undecided", "a jump"),
        (0.0, (OneSided("both", 0.0, "computed", math.inf),), "agrees", "from both sides"),
        (1.0, (), "undecided", "no certificate"),
    ],
)
def test_the_words_claim_no_more_than_is_known(
    gradient: float, certified: tuple[OneSided, ...], finding: str, words: str
) -> None:
    word, caption = _judge(gradient, certified)
    assert word == finding and words in caption and caption.startswith(finding)


def test_a_missing_certificate_is_shown_as_such(study: SlidesStudy, tmp_path: Path) -> None:
    import dataclasses

    open_one = dataclasses.replace(study.find("zero"), certified=sides(0.0, 0.0, "undecided"), finding="undecided")
    assert open_one.clarke is None
    other = dataclasses.replace(study, functions=(open_one,))
    assert "undecided, 0" in str(other) and "For 0 of 1 programs" in str(other)
    assert [p.name for p in other.save(tmp_path)] == ["report.json", "report.txt", "slides.png"]


def test_the_text_fits(study: SlidesStudy) -> None:
    text = str(study)
    assert max(map(len, text.splitlines())) <= 100
    assert "For 5 of 12 programs" in text and "zero, mysin, mysin2, mysin3, oneThird" in text
    assert all(f.caption in text for f in study.functions)
    assert "<table>" in study._repr_html_()


def test_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["study", "slides", "--json", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["format_version"] == 1 and len(data["functions"]) == 12
    assert data["functions"][6]["name"] == "zero" and data["functions"][6]["conventions"]["1"] == -1.0
    names = {p.name: p.stat().st_size for p in (tmp_path / "out").iterdir()}
    assert set(names) == {"report.json", "report.txt", "slides.png"} and names["slides.png"] > 50_000
    text = CliRunner().invoke(cli.app, ["study", "slides"])
    assert text.exit_code == 0 and text.stdout.startswith("What backpropagation returns at a kink")


def test_progress_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    study_slides(progress=lambda *at: seen.append(at))
    assert [name for name, _, _ in seen] == list(CLOSED_FORMS) and seen[-1][1:] == (11, 12)


def test_a_function_is_a_plain_result(study: SlidesStudy) -> None:
    assert isinstance(study.find("relu"), SlideFunction)
    assert all(f.status == "computed" for f in study.functions)
