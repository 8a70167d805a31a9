"""Slices and the page of an audit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nonsmooth as ns
from nonsmooth.audit.page import audit_page
from nonsmooth.report.page import Curve, Heat, Listing, render_page


def cancelling(x: torch.Tensor) -> torch.Tensor:
    """Give |x_0| + the identity of x_1, which backprop does not see at 0."""
    return x[0].abs() + torch.relu(x[1]) - torch.relu(-x[1])


def test_the_slopes_are_those_of_the_curve() -> None:
    audit = ns.audit(cancelling, torch.zeros(2, dtype=torch.float64))
    assert len(audit.slices) == 2  # the framework's gradient is zero: there is no way down
    for cut in audit.slices:
        at = cut.steps.index(0.0)
        ahead = (cut.values[at + 1] - cut.values[at]) / cut.steps[at + 1]
        behind = (cut.values[at - 1] - cut.values[at]) / cut.steps[at - 1]
        assert cut.right == pytest.approx(ahead) and cut.left == pytest.approx(behind)
        assert cut.claimed == 0


def test_a_jump_has_a_curve_and_a_reason() -> None:
    audit = ns.audit(lambda x: torch.floor(x).sum() + x.sum(), torch.zeros(2, dtype=torch.float64))
    assert all(s.left is None and s.right is None and "floor" in s.note for s in audit.slices)


def test_nothing_of_the_users_changes() -> None:
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    state = torch.get_rng_state()
    ns.audit(lambda x: torch.relu(x).sum(), x)
    assert (
        x.grad is None
        and torch.equal(x, torch.zeros(3, dtype=torch.float64))
        and torch.equal(torch.get_rng_state(), state)
    )


def test_the_page_has_lines_maps_choices_and_curves(tmp_path: Path) -> None:
    audit = ns.audit(cancelling, torch.zeros(2, dtype=torch.float64))
    page = audit_page([audit], ["here"])
    parts = [p for s in page.sections for p in s.parts]
    (listing,) = (p for p in parts if isinstance(p, Listing))
    assert listing.title == "test_slices.py" and any("x[0].abs()" in line.text and line.note for line in listing.lines)
    maps = [p for p in parts if isinstance(p, Heat)]
    assert [m.title for m in maps] == ["modules x operations", "relative change of each parameter's gradient"]
    assert sum(isinstance(p, Curve) for p in parts) == 2
    assert page.badges[0].word == audit.verdict.word == "artifact" and page.badges[0].tone == "bad"
    paths = audit.save(tmp_path)
    assert tmp_path / "report.html" in paths
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_page(page)


def test_several_points_make_a_map_of_layers_by_steps() -> None:
    f = ns.capture(lambda x: torch.relu(x).sum(), torch.ones(2, dtype=torch.float64))
    audits = [ns.audit(f, torch.tensor(p, dtype=torch.float64)) for p in ([0.0, 1.0], [1.0, 1.0])]
    page = audit_page(audits, ["start", "end"])
    (heat,) = (p for s in page.sections for p in s.parts if isinstance(p, Heat) and p.title == "layers x steps")
    assert heat.columns == ("start", "end") and heat.values == ((0.5, 0.0),)
    assert [b.word for b in page.badges] == ["start: certified", "end: certified"]


def test_source_that_has_changed_is_not_shown(tmp_path: Path) -> None:
    source = tmp_path / "users.py"
    source.write_text("import torch\n\n\ndef f(x):\n    return torch.relu(x).sum()\n")
    names: dict[str, object] = {}
    exec(compile(source.read_text(), str(source), "exec"), names)
    audit = ns.audit(names["f"], torch.zeros(2))  # type: ignore[arg-type]
    source.write_text("# another file\n" * 9)
    (listing,) = (p for s in audit_page([audit], [""]).sections for p in s.parts if isinstance(p, Listing))
    assert len(listing.lines) == 1 and "another" not in listing.lines[0].text
