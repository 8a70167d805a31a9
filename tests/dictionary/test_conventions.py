"""The shipped conventions are what the frameworks do, and the checker of the tables sees a change."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from conventions.cases import CASES, FORMULAS, FRAMEWORKS, KINDS, WITHOUT, Case
from conventions.measure import FIELDS, RULES_OF_TIES, RUNNERS, TABLES, differences, main, measure, value_of

from nonsmooth.dictionary import OPERATIONS, Nonsmooth
from nonsmooth.dictionary.convention import load_convention

WITHOUT_RULE = {
    "torch": {"where", "eigvalsh", "svdvals", "sort", "topk", "kthvalue"},
    "jax": {"where", "eigvalsh", "svdvals", "cummax", "cummin"},
    "tensorflow": {"where", "eigvalsh", "svdvals"},
}
"""What was measured and is no rule: a branch that is kept, a basis or an index that a kernel returned, a tree of maxima."""

NONFINITE = {"nan", "inf", "-inf"}
SLOPED = [case for case in CASES + FORMULAS if case.torch and (case.left is not None or case.truth is not None)]


def shipped(framework: str) -> dict[str, Any]:
    """Read a shipped table as strict JSON: no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{framework}.json contains {constant}, which is not JSON")

    return json.loads((TABLES / f"{framework}.json").read_text(encoding="utf-8"), parse_constant=refuse)


def numbers(value: Any) -> list[Any]:
    """Return the entries of a nested list."""
    return [number for item in value for number in numbers(item)] if isinstance(value, list) else [value]


def rule(framework: str, operation: str, kink: str) -> Any:
    """Return the shipped rule of one row."""
    found = [r for r in shipped(framework)["rows"] if (r["operation"], r["kink"]) == (operation, kink)]
    assert len(found) == 1, f"{len(found)} rows for {operation} at {kink}"
    return found[0]["rule"]


def missing(framework: str) -> list[str]:
    """Name the libraries that measuring a framework needs and that are not installed."""
    return [name for name in (framework, *RUNNERS[framework].libraries) if importlib.util.find_spec(name) is None]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_shipped_table_is_what_the_framework_does(framework: str) -> None:
    """Measure everything again, in a process of its own, and compare exactly, the version included."""
    if missing(framework):
        reason = f"{framework}.json is not measured again: {', '.join(missing(framework))} is not installed"
        print(reason)
        pytest.skip(reason)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, str(TABLES.parents[3] / "tools/conventions/measure.py"), framework, "--check"]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        "measure again with tools/conventions/measure.py:\n" + done.stdout + done.stderr[-2000:]
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_record_has_a_row_or_no_function(framework: str) -> None:
    """Every record with kinks was measured, but for those that a framework has no function for; where one exists, a rule."""
    convention, without = load_convention(framework), set(WITHOUT[framework].split())
    records = {name: r for name, r in OPERATIONS.items() if isinstance(r, Nonsmooth)}
    assert {name for name in records if not convention.has(name)} == without
    silent = {
        name
        for name in set(records) - without
        if all(convention.rule(name, records[name].kinks, kink) is None for kink in records[name].kinks)
    }
    assert silent == WITHOUT_RULE[framework]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_shipped_table_has_all_rows_and_fields(framework: str) -> None:
    """Compare the rows with the cases, and the types of the fields with the format."""
    content = shipped(framework)
    assert (content["format"], content["framework"]) == (1, framework)
    for part, cases in (("rows", CASES), ("formulas", FORMULAS)):
        expected = [(c.operation, c.kink, c.kind, c.point) for c in cases if getattr(c, framework)]
        named = [(r["operation"], r["kink"], r["kind"], r["point"]) for r in content[part]]
        assert named == [(*names, list(point)) for *names, point in expected]
        assert len({row[:3] for row in named}) == len(named)
        for row in content[part]:
            assert set(row) == {*FIELDS, "truth"} if part == "formulas" else set(row) == set(FIELDS)
            assert row["kind"] in KINDS and isinstance(row["call"], str)
            assert (
                row["rule"] is None
                or isinstance(row["rule"], float)
                or row["rule"] in (*RULES_OF_TIES, "zero", "nan", "raw")
            )
            if row["gradient"] is not None:
                assert all(isinstance(n, float) or n in NONFINITE for n in numbers(row["gradient"]))
                assert len(numbers(row["gradient"])) == len(numbers(row["point"]))


@pytest.mark.parametrize("case", SLOPED, ids=lambda case: f"{case.operation} {case.kink}")
def test_slopes_and_truths_are_one_sided_differences(case: Case) -> None:
    """Check the slopes of the table, on which every weight rests, against differences that use no derivative."""
    runner, step = RUNNERS["torch"](), 1e-6
    below, here, above = (
        float(value_of(case.torch, runner.names, [runner.array([case.point[0] + h])]).sum()) for h in (-step, 0, step)
    )
    left, right = (here - below) / step, (above - here) / step
    if case.kind == "formula":
        lower, upper = case.truth if isinstance(case.truth, list) else (case.truth, case.truth)
        assert (min(left, right), max(left, right)) == pytest.approx((lower, upper), abs=1e-5)
    else:
        assert (left, right) == pytest.approx((case.left, case.right), abs=1e-5)


@pytest.mark.parametrize(
    ("framework", "operation", "kink", "expected"),
    [
        ("torch", "abs", "0", 0.5),
        ("jax", "abs", "0", 1.0),
        ("jax", "leaky_relu", "0", 1.0),
        ("torch", "maximum", "tie", 0.5),
        ("tensorflow", "maximum", "tie", 1.0),
        ("torch", "max_dim", "33 tied", "first"),
        ("jax", "max_dim", "33 tied", "even"),
        ("torch", "sort", "33 tied", "native"),
        ("jax", "sort", "33 tied", "first"),
        ("torch", "norm", "zero vector, p = 2", "zero"),
        ("jax", "norm", "zero vector, p = 2", "nan"),
        ("jax", "norm", "zero vector, p = inf, 3 entries", 0.5),
        ("jax", "hypot", "(0, 0)", 1.0),
        ("tensorflow", "prelu", "0, weight 0.25", "zero"),
        ("tensorflow", "max_pool2d", "windows of 2 x 2, 4 or 3 tied", "first"),
        ("tensorflow", "max_pool3d", "one window of 2 x 2 x 2 tied", "all"),
    ],
)
def test_rules_known_by_hand(framework: str, operation: str, kink: str, expected: float | str) -> None:
    """Compare rules with what the sources of the frameworks say."""
    found = rule(framework, operation, kink)
    assert found == expected if isinstance(expected, str) else found == pytest.approx(expected, abs=1e-8)


def test_one_rule_must_explain_all_patterns_of_ties() -> None:
    """A sort of 3 tied entries looks stable; together with 33 tied entries it is not."""
    sorts = [case for case in CASES if case.operation == "sort"]
    assert measure("torch", sorts[:1])[0]["rule"] == "first"
    assert {row["rule"] for row in measure("torch", sorts)} == {"native"}


def test_check_accepts_a_copy_and_refuses_a_changed_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Change one number in a copy of the table: `--check` returns 1 and names the row."""
    path = tmp_path / "torch.json"
    content = shipped("torch")
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["torch", "--check", "--table", str(path)]) == 0
    content["rows"][0]["gradient"][0] += 1e-6
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["torch", "--check", "--table", str(path)]) == 1
    assert "rows, relu | 0 | switch, gradient" in capsys.readouterr().out


def test_differences_sees_every_kind_of_change() -> None:
    """Remove, add and change rows, formulas, fields and the version."""
    original = shipped("torch")
    assert differences(original, copy.deepcopy(original)) == []
    for change in (
        lambda t: t["rows"].pop(),
        lambda t: t["rows"].append({**t["rows"][0], "kink": "elsewhere"}),
        lambda t: t["rows"][0].pop("rule"),
        lambda t: t["rows"][0].update(rule=1.0),
        lambda t: t["formulas"][0].update(truth=0.0),
        lambda t: t.update(version="0"),
    ):
        changed = copy.deepcopy(original)
        change(changed)
        assert len(differences(original, changed)) == 1
        assert len(differences(changed, original)) == 1
