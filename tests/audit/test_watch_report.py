"""The report of a watched run: what it says of made-up and of real runs, its files, and its log read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.audit.watch_log import read_run
from nonsmooth.audit.watch_picture import place_names, run_map
from nonsmooth.audit.watch_report import RunReport, run_report
from nonsmooth.audit.watch_summary import places
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Change, Met, Observation
from tests.report.test_browser import needs_browser, opened

HOSTILE = "[red]evil[/red]\x1b[31m $\\frac{1}{0$ <script>alert(1)</script>\u202e" + "x" * 300


def met(module: str = "a", share: float | None = 0.1, operation: str = "relu", **changed: Any) -> Met:
    """100 elements, some of them at the kink."""
    count = round(100 * (share or 0.0))
    row = Met(module, operation, "switch", "0", "net.py:1, `x`", 100, count, None if share is None else count, 0.5)
    return replace(row, **changed)


def seen(step: int, *rows: Met, change: float | None = None, **changed: Any) -> Observation:
    moved = None if change is None else Change(change, change, {"w": 2 * change})
    why = "" if moved else "not due"
    return replace(Observation(step, rows, moved, why, 1.0, (), 1), **changed)


def report(*records: Observation, steps: int | None = None, **changed: Any) -> RunReport:
    count = records[-1].step + 1 if steps is None else steps
    made = run_report("Net", {"every": 10, "other choice": "1.0"}, count, records, rounding=1e-6)
    return replace(made, **changed)


def flat(text: object) -> str:
    return " ".join(str(text).split())


SINGULAR = met("norm", 0.03, "sqrt", kind="singular", line="net.py:7, `x.sqrt()`", margin=math.inf)


def test_what_is_not_finite_comes_first() -> None:
    broken = seen(30, met(), SINGULAR, not_finite=("w", "b"), gradient_norm=math.nan)
    text = flat(report(seen(0, met()), seen(10, met(), SINGULAR), broken))
    first = text.index(
        "NOT FINITE: the gradient had a nan or an infinity at 1 step of those observed, first at step 30: w, b."
    )
    second = text.index("INFINITE DERIVATIVE of norm · sqrt (net.py:7): 3 elements at step 10, and at 1 more")
    assert (
        first
        < second
        < text.index("31 steps, 3 of them observed (every 10 steps)")
        < text.index("Not finite (computed)")
    )
    assert "NOT FINITE" not in flat(report(seen(0, met())))
    assert report(broken).summary.with_kinks == 1  # the singular point is no kink


def test_a_norm_that_is_not_finite_is_seen() -> None:
    assert "NOT FINITE" in str(report(seen(0, met(), gradient_norm=math.inf)))


def test_when_the_kinks_were_met() -> None:
    records = [seen(10 * k, met(share=0.1 if k in (1, 3) else 0.0)) for k in range(10)]
    text = flat(report(*records))
    assert "met at 2 of them, first at step 10, last at step 30; none at the 6 observed after it." in text
    assert "Most: 10.0 % of the elements of a · relu (net.py:1), at step 10." in text
    assert "nothing is said of the others" in text
    assert "all observed" in flat(report(seen(0, met()), seen(1, met())))
    assert "No kink was met." in str(report(seen(0, met(share=0.0))))
    assert "No operation with kinks ran." in str(report(seen(0)))
    assert "none of which can matter" in str(report(seen(0, met(share=0.1, can_matter=0))))
    assert "no backward pass came" in flat(report(seen(0, met(share=None, active=5), backwards=0)))
    assert "Counts are added up over 2 processes." in flat(report(seen(0, met(), ranks=2)))
    assert "Not looked at, since the dictionary does not list them: aten::foo." in flat(
        report(seen(0, met(), unseen=("aten::foo",)))
    )


def test_kinks_that_cannot_matter_beside_others() -> None:
    text = flat(report(seen(0, met()), seen(10, met(share=0.1, can_matter=0)), seen(20, met(share=0.0))))
    assert "At 1 other step the kinks met cannot matter" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([0.3, None, 0.1, 0.2], "(1.0) moved the gradient by 30.0 % at most, at step 0; median 20.0 % over the 3 steps"),
        ([0.3, 1e-9], "by 30.0 % at most, at step 0; median 15.0 % over the 2 steps with kinks where it was measured, beyond "
                      "rounding at 1, last at step 0."),
        ([1e-9, 1e-8], "moved the gradient by no more than rounding wherever it was measured: 2 steps with kinks."),
        ([0.3], "by 30.0 % at most, at step 0, the only one with kinks where it was measured."),
        ([math.inf], "moved the gradient away from 0 at step 0"),
        ([math.nan], "At 1 step the change was no number."),
        ([None, None], "The change was not measured at 2 steps with kinks: not due."),
    ],
)  # fmt: skip
def test_the_change(changes: list[float | None], words: str) -> None:
    records = [seen(10 * k, met(), change=c) for k, c in enumerate(changes)]
    for record in records:
        if record.change is not None and math.isinf(record.change.norm):
            object.__setattr__(record.change, "relative", None)
    assert words in flat(report(*records))


def test_steps_without_kinks_are_no_measurements() -> None:
    made = report(seen(0, met(), change=0.5), *(seen(k, met(share=0.0), change=0.0) for k in range(10, 100, 10)))
    assert (made.summary.measured, made.summary.median_change) == (1, 0.5)


def test_parameters_that_moved() -> None:
    made = report(seen(0, met(), change=0.1), seen(10, met(), change=0.3), seen(20, met(), change=1e-9))
    (moved,) = made.summary.parameters
    assert (moved.parameter, moved.largest, moved.step, moved.steps) == ("w", 0.6, 10, 2)


def test_places_keep_the_order_of_the_program() -> None:
    a, b, c = met("a"), met("b"), met("c")
    found = places([seen(0, a, c), seen(1, a, b, c), seen(2, b)])
    assert [p.module for p in found] == ["a", "b", "c"] and [p.at for p in found] == [(0, 1), (1, 2), (0, 1)]


def test_names_of_places_tell_them_apart() -> None:
    rows = met("a"), met("b", kink="lower"), met("b", kink="upper"), met("c"), met("c", line="net.py:2"), met("")
    assert place_names(places([seen(0, *rows)])) == [
        "a · relu", "b · relu · lower", "b · relu · upper", "c · relu · 0 · net.py:1", "c · relu · 0 · net.py:2",
        "outside the model · relu",
    ]  # fmt: skip


def test_the_map() -> None:
    drawn = run_map(
        report(seen(0, met("a"), change=0.2), seen(10, met("a"), met("b", 0.3), SINGULAR, not_finite=("w",)))
    )
    assert (drawn.rows, drawn.steps) == (("a · relu", "b · relu"), (0, 10))
    assert drawn.shares == ((0.1, 0.1), (None, 0.3)) and drawn.changes == (0.2, None)
    assert dict(drawn.marks) == {"gradient not finite": (1,), "infinite derivative": (1,)}


def test_many_records_and_modules_stay_readable() -> None:
    rows = [met(f"encoder.layers.{k}.feed_forward.activation", (k % 90) / 100) for k in range(300)]
    text = str(report(*(seen(10 * k, *rows) for k in range(50))))
    assert max(map(len, text.splitlines())) <= 100 and len(text.splitlines()) < 80
    assert "The first 20 of 300 rows; 296 met kinks that can matter." in flat(text)
    assert "e.l.89.f.activation · relu" in text  # the number that tells layers apart is kept


def test_hostile_names(tmp_path: Path) -> None:
    record = seen(0, met(HOSTILE, line=f"{HOSTILE}.py:1, `{HOSTILE}`"), not_finite=(HOSTILE,), unseen=(HOSTILE,),
                  change=0.5)  # fmt: skip
    object.__setattr__(record.change, "parameters", {HOSTILE: 0.5})
    made = report(record, model=HOSTILE, notes=(HOSTILE,))
    text, page = str(made), made._repr_html_()
    assert max(map(len, text.splitlines())) <= 100 and "\x1b" not in text and "\u202e" not in text
    assert "[red]evil" in text and "<script" not in page
    made.save(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html and "\x1b" not in html and "default-src 'none'" in html
    assert json.loads((tmp_path / "report.json").read_text())["model"] == HOSTILE


@pytest.mark.parametrize("records", [(), (seen(0),), (seen(0, met()),)])
def test_saving(tmp_path: Path, records: tuple[Observation, ...]) -> None:
    made = report(*records, steps=len(records))
    paths = made.save(tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["report.json", "report.txt", "report.html", "map.png"]
    assert (tmp_path / "new/folder/map.png").read_bytes().startswith(b"\x89PNG")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    data = json.loads(made.to_json(), parse_constant=refuse)
    assert data["format_version"] == 1 and len(data["records"]) == data["summary"]["observed"] == len(records)
    assert "data:image/png;base64," in (tmp_path / "new/folder/report.html").read_text()


def train(path: Path | None, steps: int, every: int = 1, **options: Any) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    torch.nn.init.zeros_(model[0].bias)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=every, log=path, progress=False, **options) as log:
        for _ in range(steps):
            optimiser.zero_grad()
            model(torch.zeros(16, 4)).sum().backward()
            optimiser.step()
    return log


def test_a_real_run(tmp_path: Path) -> None:
    log = train(tmp_path / "run.jsonl", 5, every=2)
    text = flat(log)
    assert "5 steps, 3 of them observed (every 2 steps); counts are computed for these" in text
    assert "1 · relu" in text and "100.0 %" in text and "torch.nn.modules.container.Sequential" in text
    assert log.report().rounding == 2.0**-19
    found = read_run(tmp_path / "run.jsonl")
    assert found.records == log.records and found.model == log.report().model and found.rounding == 2.0**-19
    assert found.setting == log.report().setting and found.steps == 5
    assert "tells of observed steps alone: the last of them was step 4" in flat(found)


def test_infinities_come_back(tmp_path: Path) -> None:
    row = {"module": "", "operation": "relu", "kind": "switch", "kink": "0", "line": "", "elements": 2, "active": 2,
           "can_matter": None, "margin": "inf"}  # fmt: skip
    change = {"norm": 1, "relative": None, "parameters": {"w": "inf"}}
    line = {"format_version": 1, "step": 3, "rows": [row], "change": change, "why": "", "gradient_norm": "nan",
            "not_finite": ["w"], "backwards": 1, "of_a_later_version": 7}  # fmt: skip
    (tmp_path / "run.jsonl").write_text(json.dumps(line) + "\n")
    (record,) = read_run(tmp_path / "run.jsonl").records
    assert record.rows[0].margin == math.inf and record.change is not None and record.gradient_norm is not None
    assert record.change.parameters == {"w": math.inf} and math.isnan(record.gradient_norm) and record.ranks == 1


def test_runs_of_one_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first, second = train(path, 3), train(path, 2)
    assert read_run(path).records == second.records == read_run(path, 2).records == read_run(path, -1).records
    assert read_run(path, 1).records == first.records and read_run(path, 1).steps == 3
    assert "The file holds 2 runs, of which this is number 2." in flat(read_run(path))
    for run in (0, 3, -3):
        with pytest.raises(UsageError, match="has 2 run"):
            read_run(path, run)
    lines = path.read_text().splitlines()
    mixed = [lines[k] for k in (0, 3, 1, 4, 2)]  # two processes that write into one file
    path.write_text("\n".join(mixed) + "\n")
    assert (read_run(path, 1).records, read_run(path, 2).records) == (first.records, second.records)
    plain = [json.dumps({k: v for k, v in json.loads(line).items() if k != "run"}) for line in lines]
    path.write_text("\n".join(plain) + "\n")  # lines that do not say whose they are: by their steps
    assert read_run(path, 1).records == first.records and read_run(path).records == second.records
    assert read_run(path).model == "" and "A training watched" in str(read_run(path))


def test_lines_that_were_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    log = train(path, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines)[:-40])
    assert read_run(path).records == log.records[:2]
    assert "Line 3, the last, is not complete" in flat(read_run(path))
    path.write_text(lines[0] + lines[1][:50] + lines[2])  # killed while it wrote, and another went on
    assert read_run(path).records == (log.records[0], log.records[2])
    assert "1 damaged line(s), cut off when a process ended: 2." in flat(read_run(path))
    path.write_bytes(lines[0].encode() + b"\x00\xff\xfe\n" + lines[1].encode())
    assert read_run(path).records == log.records[:2] and "damaged" in str(read_run(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no observation yet"),
        ("\n\n", "holds no observation yet"),
        ("hello\n", "no line of it can be read"),
        ("[1, 2]\n", "line 1 .* is no observation"),
        ('{"a": 1}\n', "is no observation"),
        ('{"format_version": 99}\n', "format version 99"),
        ('{"format_version": 1, "step": 1}\n', "is no observation"),
        ('{"format_version": 1, "step": "x", "rows": []}\n', "is no observation"),
        ('{"format_version": 1, "rows": 3}\n', "is no observation"),
        ('{"format_version": 1, "run": 3, "rows": []}\n', "is no observation"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_run(path)
    assert path.read_text() == text


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_run(path)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    train(path, 2)
    train(path, 3)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli.app, ["watch", *arguments], prog_name="nonsmooth")

    result = run(str(path), "-o", str(tmp_path / "out"))
    assert result.exit_code == 0 and result.stdout.startswith(
        "Training of torch.nn.modules.container.Sequential watched"
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.json", "report.txt", "report.html", "map.png"}
    data = json.loads(run(str(path), "--run", "1", "--json").stdout)
    assert data["format_version"] == 1 and data["steps"] == 2
    for arguments, message in (((str(path), "--run", "7"), "has 2 run"), (("nothing.jsonl",), "cannot be read")):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "") and message in result.stderr


@needs_browser
def test_the_page_opens_without_a_network(tmp_path: Path) -> None:
    made = report(
        seen(0, met("<img src=x onerror=alert(1)>"), change=0.2), seen(10, met(), SINGULAR), notes=("a note",)
    )
    made.save(tmp_path / "report")
    document, log = opened(tmp_path / "report" / "report.html", tmp_path / "profile")
    assert document.count("<img") == 1 and "data:image/png;base64," in document and "<script" not in document
    assert "infinite derivative" in document and "the choice matters" in document and "a note" in document
    assert "CONSOLE" not in log and "Content Security Policy" not in log
