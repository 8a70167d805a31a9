"""The reports of an audit: text, HTML, JSON and pictures, also of hostile programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nonsmooth as ns

HOSTILE = "[red]evil[/red]\x1b[31m $\\frac{1}{0$ <script>"


def hostile_function() -> Any:
    """Make a function whose name, file, line and module are hostile."""
    text = "def f(p):\n    return p['a'].relu().sum()  # [bold]\x1b[31m<script>alert(1)</script>\n"
    space: dict[str, Any] = {}
    exec(compile(text, f"{HOSTILE}.py", "exec"), space)
    space["f"].__qualname__ = HOSTILE
    return space["f"]


@pytest.fixture(scope="module")
def hostile() -> ns.Audit:
    return ns.audit(hostile_function(), {"a": torch.zeros(2), HOSTILE: torch.ones(1)})


def test_hostile_names_are_printed_as_they_stand(hostile: ns.Audit) -> None:
    text = str(hostile)
    assert "[red]evil[/red]" in text and "<script>" in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_hostile_names_are_escaped_in_html(hostile: ns.Audit) -> None:
    page = hostile._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "\x1b" not in page and "<table>" in page


def test_saving(hostile: ns.Audit, tmp_path: Path) -> None:
    paths = hostile.save(tmp_path / "new" / "folder")
    assert {p.name for p in paths} == {
        "report.json",
        "report.txt",
        "report.html",
        "kinks.png",
        "margins.png",
        "effects.png",
    }
    assert all(p.stat().st_size > 1000 for p in paths)
    assert json.loads((tmp_path / "new/folder/report.json").read_text())["function"] == HOSTILE
    assert "Audit of [red]evil" in (tmp_path / "new/folder/report.txt").read_text()


def test_saving_an_audit_without_kinks(tmp_path: Path) -> None:
    paths = ns.audit(lambda x: (x * x).sum(), torch.ones(2)).save(tmp_path)
    assert {p.name for p in paths} == {"report.json", "report.txt", "report.html"}


def test_saving_an_audit_of_nan(tmp_path: Path) -> None:
    audit = ns.audit(lambda x: torch.where(x > 0, x.sqrt(), 2 * x).sum(), torch.tensor([0.0, 1.0]))
    audit.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["gradient_norm"] == "nan"


def test_the_text_is_readable_at_100_columns() -> None:
    names = {f"a.very.long.name.of.a.parameter.number.{k}.weight": torch.zeros(1) for k in range(21)}
    audit = ns.audit(lambda p: sum((k + 1) * torch.relu(t).sum() for k, t in enumerate(p.values())), names)
    text = str(audit)
    assert max(map(len, text.splitlines())) <= 100
    assert "The first 20 of 21 rows" in text and len(json.loads(audit.to_json())["kinks"]) == 21
