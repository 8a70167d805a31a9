"""The verdict of an audit: certified, artifact, differs or undecided, in words that claim no more than is known, with the lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import nonsmooth as ns
from nonsmooth.audit.verdict import DIRECTIONS, verdict_document, verdict_tables
from nonsmooth.report.table import Document
from nonsmooth.report.text import render, render_html

ZERO = torch.tensor(0.0, dtype=torch.float64)


def relu2(t: torch.Tensor) -> torch.Tensor:
    return torch.relu(-t) + t


def zero(t: torch.Tensor) -> torch.Tensor:
    return relu2(t) - torch.relu(t)


def identity(t: torch.Tensor) -> torch.Tensor:
    return torch.relu(t) - torch.relu(-t)


def by_if(t: torch.Tensor) -> torch.Tensor:
    if t <= 0:
        return 3 * t
    return 3 * torch.relu(t)


@pytest.mark.parametrize(
    ("f", "point", "word"),
    [
        (lambda x: (x * x).sum(), [1.0, 2.0], "certified"),
        (lambda x: torch.relu(x).sum(), [1.0, -2.0], "certified"),
        (lambda x: torch.relu(x).sum(), [0.0, 1.0], "certified"),
        (lambda x: torch.relu(torch.relu(x)).sum(), [-1.0], "certified"),
        (lambda x: x.abs().max(), [1.0, 0.5], "certified"),
        (lambda x: identity(x).sum(), [0.0, 1.0], "artifact"),
        (lambda x: (zero(x) + x).sum(), [0.0, 0.0], "artifact"),
        (lambda x: x.abs().sum(), [0.0, 1.0], "certified"),
        (lambda x: torch.linalg.norm(x) - torch.linalg.norm(2 * x) / 2 + identity(x[0]), [0.0, 0.0], "differs"),
        (lambda x: x.sum() + torch.sign(x).sum(), [0.0, 1.0], "undecided"),
        (lambda x: x.clamp(min=0).sqrt().sum(), [0.0, 1.0], "undecided"),
        (lambda x: torch.where(x > 0, x + 1, x).sum(), [0.0, 1.0], "undecided"),
    ],
)
def test_the_word(f: Callable[..., Any], point: list[float], word: str) -> None:
    verdict = ns.audit(f, torch.tensor(point, dtype=torch.float64)).verdict
    assert verdict.word == word, verdict
    assert verdict.message.startswith({"differs": "not the certified one", "artifact": "an artifact"}.get(word, word))
    assert verdict.status == ("undecided" if word == "undecided" else "computed")
    assert (verdict.total is None) == (word == "undecided") and bool(verdict.reasons) == (word == "undecided")


@pytest.mark.parametrize("f", [lambda t: torch.relu(t), relu2, by_if], ids=["relu", "relu2", "if"])
def test_either_one_sided_slope_is_certified(f: Callable[..., Any]) -> None:
    verdict = ns.audit(f, ZERO).verdict
    assert verdict.word == "certified" and verdict.total is not None and verdict.total.absolute == 0
    assert verdict.kinks >= 1 and verdict.margin is not None and verdict.margin > 0
    assert "inf" not in verdict.message
    assert "a limit of gradients along one direction" in verdict.message


def test_the_difference_in_total_and_by_parameter() -> None:
    point = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.ones(3, dtype=torch.float64)}
    verdict = ns.audit(lambda p: identity(p["a"]).sum() + (p["b"] ** 2).sum(), point).verdict
    assert verdict.word == "artifact" and verdict.differing == ("a",)
    assert verdict.total is not None and verdict.total.absolute == pytest.approx(math.sqrt(2))
    assert verdict.total.relative == pytest.approx(math.sqrt(2 / 12))
    assert verdict.parameters["a"].absolute == pytest.approx(math.sqrt(2)) and verdict.parameters["a"].relative is None
    assert verdict.parameters["b"].relative == 0.0


def test_a_small_parameter_counts_beside_a_large_one() -> None:
    point = {name: torch.zeros((), dtype=torch.float64) for name in "ab"}
    verdict = ns.audit(lambda p: 1e18 * p["a"] + identity(p["b"]) + p["b"], point).verdict
    assert verdict.total is not None and verdict.total.size <= verdict.rounding
    assert verdict.word == "artifact" and verdict.differing == ("b",)
    assert verdict.parameters["b"].relative == pytest.approx(1.0)


def test_the_search_ends_where_backprop_is_met() -> None:
    f, point = torch.nn.functional.relu, torch.zeros((), dtype=torch.float64)
    verdicts = [ns.audit(lambda x, sign=sign: f(sign * x), point).verdict for sign in (1.0, -1.0)]
    assert {v.word for v in verdicts} == {"certified"}
    assert [v.seed for v in verdicts] == [v.directions - 1 for v in verdicts]
    assert min(v.directions for v in verdicts) == 1 < max(v.directions for v in verdicts) <= DIRECTIONS


def test_the_words_claim_no_more_than_is_known() -> None:
    f, point = lambda x: identity(x).sum() + x.sum(), torch.zeros(2, dtype=torch.float64)
    verdict = ns.audit(f, point, sets=False).verdict
    assert verdict.word == "differs" and verdict.sets is None
    assert verdict.message == (
        f"not the certified one: backprop's gradient differs from the certified subgradients along {DIRECTIONS} "
        "directions, by at least 100.0 % of its norm; those agree with each other; it may still be another subgradient, "
        "unless the function is smooth here"
    )
    assert (verdict.directions, verdict.agree) == (DIRECTIONS, True)
    many = torch.zeros(40, dtype=torch.float64)
    text = str(ns.audit(lambda x: x.abs().sum() + 0 * x.sum(), many, sets=False))
    flat = " ".join(text.split())
    assert "those differ from each other too; it may still be another subgradient" in flat
    assert "artifact" not in flat and "wrong" not in flat


def test_an_audit_without_active_kinks_says_so() -> None:
    verdict = ns.audit(lambda x: torch.relu(x).sum(), torch.tensor([1.0, -1.0])).verdict
    assert verdict.message == (
        "certified: no kink is active that can decide; backprop's gradient equals the certified subgradient"
    )
    assert (verdict.directions, verdict.agree, verdict.kinks, verdict.margin) == (1, None, 0, math.inf)


def test_the_lines_that_do_it() -> None:
    def f(p: dict[str, torch.Tensor]) -> torch.Tensor:
        wrong = torch.relu(p["a"]) - torch.relu(-p["a"])
        right = torch.relu(p["b"] + 1)
        also = torch.relu(p["c"]) - torch.relu(p["c"])
        return (wrong + right + also).sum() + p["c"].sum()

    point = {name: torch.zeros((), dtype=torch.float64) for name in "abc"}
    verdict = ns.audit(f, point).verdict
    assert verdict.word == "artifact" and verdict.differing == ("a",)
    assert [cause.text for cause in verdict.causes] == ['wrong = torch.relu(p["a"]) - torch.relu(-p["a"])']
    (cause,) = verdict.causes
    assert cause.name.startswith("test_verdict.py:") and len(cause.groups) == 2
    assert cause.alone.absolute == pytest.approx(1.0) and cause.without is not None
    assert cause.without.absolute == pytest.approx(1.0)
    assert cause.parameters["a"].absolute == pytest.approx(1.0) and cause.parameters["b"].absolute == 0.0


def test_each_line_is_measured_alone_and_left_out() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        outer = torch.relu(x[0] + x[1]) - torch.relu(-x[0] - x[1])
        inner = 2 * (torch.relu(x[0]) - torch.relu(-x[0]))
        return outer + inner + 3 * x[1]

    verdict = ns.audit(f, torch.zeros(2, dtype=torch.float64)).verdict
    inner, outer = verdict.causes  # backprop (0, 3), true derivative (3, 4)
    assert inner.text.startswith("inner") and outer.text.startswith("outer")
    assert verdict.total is not None and verdict.total.absolute == pytest.approx(math.sqrt(10))
    assert inner.alone.absolute == pytest.approx(2) and outer.alone.absolute == pytest.approx(math.sqrt(2))
    assert inner.alone.relative == pytest.approx(2 / 3) and inner.without == inner.alone


def test_a_where_and_the_rows_of_a_tie_follow_the_certificate() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        chosen = torch.where(x > 0, 3 * x, x)
        largest = torch.stack([x[0], x[1], x[0] + x[1]]).max()
        return chosen.sum() + largest

    verdict = ns.audit(f, torch.zeros(2, dtype=torch.float64), sets=False).verdict
    assert verdict.word == "differs"
    for cause in verdict.causes:
        assert cause.text.startswith(("chosen", "largest"))
    # the two lines are added up: together they make the whole difference
    parts = [cause.alone.absolute for cause in verdict.causes]
    assert verdict.total is not None and verdict.total.absolute <= sum(parts) + 1e-12
    assert [c.alone for c in verdict.causes] == [c.without for c in verdict.causes]


def test_the_other_branch_of_an_if_is_a_line_too() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        for k in range(4):
            if x[k] <= 0:
                total = total + 0 * x[k]
            else:
                total = total + x[k]
        return total + torch.relu(x[0])

    verdict = ns.audit(f, torch.zeros(4, dtype=torch.float64), sets=False).verdict
    assert verdict.word == "differs"
    turned = [cause for cause in verdict.causes if cause.groups == ("if",)]
    assert [cause.text for cause in turned] == ["if x[k] <= 0:"] and turned[0].without is None
    assert turned[0].alone.absolute > 0


def test_lines_that_write_in_place() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        up, down = x.clone(), -x
        up.relu_()
        down.relu_()
        return (up - down + x).sum()

    verdict = ns.audit(f, torch.zeros(3, dtype=torch.float64)).verdict
    assert verdict.word == "artifact"
    assert {cause.text for cause in verdict.causes} <= {"up.relu_()", "down.relu_()"} and verdict.causes
    assert verdict.total is not None and verdict.total.absolute == pytest.approx(math.sqrt(3))


def test_the_report_has_it() -> None:
    audit = ns.audit(lambda x: identity(x).sum(), torch.zeros(2, dtype=torch.float64))
    text, flat = str(audit), " ".join(str(audit).split())
    assert "verdict: an artifact: backprop's gradient is no subgradient: it is outside Clarke's subdifferential" in flat
    assert "The lines that part backprop's gradient from the certified subgradient" in text
    assert max(map(len, text.splitlines())) <= 100
    data = json.loads(audit.to_json())["verdict"]
    assert data["word"] == "artifact" and data["causes"][0]["alone"]["relative"] is None


def test_the_reasons_have_their_lines() -> None:
    audit = ns.audit(lambda x: x.sum() + torch.sign(x).sum(), torch.zeros(2))
    reason = audit.verdict.reasons[0]
    assert reason.source is not None and "torch.sign(x)" in reason.source.text
    assert "Why no subgradient was certified" in str(audit) and reason.source.place in str(audit)
    assert audit.verdict.differing == () and audit.verdict.causes == ()


def test_a_gradient_of_nan_is_no_subgradient() -> None:
    audit = ns.audit(lambda x: torch.where(x < 1, x, torch.sqrt(x)).sum(), torch.tensor([0.0, 0.5]))
    assert audit.bad_entries == 1 and audit.verdict.word == "differs"
    assert "holds nan or inf, and the certified subgradient does not" in audit.verdict.message
    assert audit.verdict.differing == ("x",) and audit.verdict.causes == ()
    source = audit.find("singular")[0].source
    assert source is not None and "torch.sqrt(x)" in source.text


def test_the_verdict_as_a_document() -> None:
    verdict = ns.audit(lambda x: identity(x).sum(), torch.zeros(2)).verdict
    document = verdict_document(verdict)
    assert isinstance(document, Document) and document.parts == (
        f"{verdict.message} (computed)",
        *verdict_tables(verdict),
    )
    assert render(document).startswith("Verdict") and "<table>" in render_html(document)


def test_long_lists_are_cut_in_the_text_and_not_in_the_json() -> None:
    point = {f"p{k}": torch.zeros((), dtype=torch.float64) for k in range(30)}
    audit = ns.audit(lambda p: identity(torch.stack(list(p.values()))).sum(), point)
    table = verdict_tables(audit.verdict)[0]
    assert len(table.rows) == 20 and "The first 20 of 30 rows" in table.note
    assert len(json.loads(audit.to_json())["verdict"]["parameters"]) == 30


def test_the_sets_settle_what_directions_leave_open() -> None:
    """Of 40 absolute values no direction gives the gradient 0; it is a subgradient all the same."""
    verdict = ns.audit(lambda x: x.abs().sum() + 0 * x.sum(), torch.zeros(40, dtype=torch.float64)).verdict
    assert verdict.word == "certified" and verdict.causes == () and verdict.sets is not None
    assert verdict.sets.equality == "regular" and verdict.sets.kinks == 40
    assert "it lies in Clarke's subdifferential (known exactly: regular)" in verdict.message


def test_an_artifact_has_a_direction_that_separates_it() -> None:
    point = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    audit = ns.audit(lambda p: identity(p["a"]).sum() + p["b"].abs().sum(), point)
    sets = audit.verdict.sets
    assert audit.verdict.word == "artifact" and sets is not None and sets.gap == pytest.approx(math.sqrt(2))
    assert set(sets.separating) == {"a"} and sets.separating["a"] == pytest.approx(1.0)
    assert audit.verdict.causes and all("torch.relu" in c.text for c in audit.verdict.causes)  # abs is none of them
    assert "Where the direction lies that separates the artifact" in " ".join(str(audit).split())
    assert json.loads(audit.to_json())["verdict"]["sets"]["word"] == "artifact"


def test_sets_that_are_not_known_settle_nothing() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.norm(x) - torch.linalg.norm(2 * x) / 2 + identity(x[0])

    verdict = ns.audit(f, torch.zeros(2, dtype=torch.float64)).verdict
    assert verdict.word == "differs" and verdict.sets is not None and verdict.sets.word == "undecided"
    assert "it may still be another subgradient" in verdict.message
