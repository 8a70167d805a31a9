"""The red figure: what a run counts, against a count by hand, and the study with its reports."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies.data import held_out
from nonsmooth.studies.red_figure import RedFigure, read_list, study_red_figure
from nonsmooth.studies.red_figure_picture import Panel, draw_red_figure
from nonsmooth.studies.red_figure_run import MOMENTUM, PARTS, RATE, run_network

SMALL: dict[str, Any] = {"data": "digits", "steps": 30, "batch_size": 32, "seed": 0}


def by_hand(depth: int, width: int, precision: str, biases: str, steps: int, batch_size: int, seed: int) -> Any:
    """The same training by a loop of its own: zeros at relus, and those with a nonzero derivative behind them."""
    images, labels, _, _ = held_out("digits")
    kind = getattr(torch, precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [64, *[width] * depth, 10]
        layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        for layer in layers:
            if biases == "zero":
                torch.nn.init.zeros_(layer.bias)
        for layer in layers:
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in layers:
            layer.to(kind)
        optimiser = torch.optim.SGD([p for layer in layers for p in layer.parameters()], lr=RATE, momentum=MOMENTUM)
        order, counts = torch.zeros(0, dtype=torch.int64), []
        for _ in range(steps):
            if len(order) < batch_size:
                order = torch.randperm(len(images))
            chosen, order = order[:batch_size], order[batch_size:]
            hidden, kept = images[chosen].to(kind).flatten(1), []
            for layer in layers[:-1]:
                before = layer(hidden)
                hidden = torch.relu(before)
                hidden.retain_grad()
                kept.append((before, hidden))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(layers[-1](hidden), labels[chosen]).backward()
            optimiser.step()
            counts.append([(int((b == 0).sum()), int(((b == 0) & (h.grad != 0)).sum())) for b, h in kept])
    return counts


@pytest.mark.parametrize(
    ("depth", "width", "precision", "biases"),
    [(16, 4, "float32", "zero"), (2, 32, "bfloat16", "zero"), (2, 8, "float32", "torch"), (3, 4, "float16", "zero")],
)
def test_a_run_counts_what_a_loop_by_hand_counts(depth: int, width: int, precision: str, biases: str) -> None:
    given = {"depth": depth, "width": width, "precision": precision, "biases": biases}
    found = run_network(**SMALL, **given)
    counts = by_hand(**given, steps=30, batch_size=32, seed=0)
    for row in range(depth):
        assert sum(found["active"][row]) == sum(step[row][0] for step in counts)
        assert sum(found["can_matter"][row]) == sum(step[row][1] for step in counts)
        assert sum(found["elements"][row]) == 30 * 32 * width
        parts = [sum(step[row][0] for k, step in enumerate(counts) if k * PARTS // 30 == part) for part in range(PARTS)]
        assert found["active"][row] == parts
    assert found["met"] == sum(any(matter for _, matter in step) for step in counts)


def test_the_counts_by_hand_are_not_all_zero() -> None:
    counts = by_hand(16, 4, "float32", "zero", 30, 32, 0)
    active, matter = (sum(pair[k] for step in counts for pair in step) for k in (0, 1))
    assert active > matter > 0


def test_a_run_depends_on_its_configuration_alone() -> None:
    given: dict[str, Any] = {**SMALL, "depth": 2, "width": 4, "precision": "float32", "biases": "zero"}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run_network(**given)
    assert torch.equal(torch.get_rng_state(), before)
    assert run_network(**given) == first == json.loads(json.dumps(first))
    assert run_network(**{**given, "seed": 1})["loss"] != first["loss"]


@pytest.fixture(scope="module")
def study() -> RedFigure:
    return study_red_figure(depths=[2, 3], widths=[4, 16], precisions=["float32"], steps=20, seeds=2, workers=1)


def test_the_study(study: RedFigure) -> None:
    assert [(n.biases, n.depth, n.width) for n in study.networks] == [
        (b, d, w) for b in ("torch", "zero") for d in (2, 3) for w in (4, 16)
    ]
    assert all(n.steps == 40 and sum(map(sum, n.elements)) == 40 * 64 * n.depth * n.width for n in study.networks)
    assert all(len(n.shares()) == n.depth and len(n.loss) == 2 for n in study.networks)
    runs = [run_network(data="digits", depth=2, width=4, precision="float32", biases="zero", steps=20, batch_size=64, seed=k)
            for k in range(2)]  # fmt: skip
    (one,) = (n for n in study.networks if (n.biases, n.depth, n.width) == ("zero", 2, 4))
    assert one.met == sum(r["met"] for r in runs) > 0
    assert sum(map(sum, one.can_matter)) == sum(sum(map(sum, r["can_matter"])) for r in runs)


def test_reports(study: RedFigure, tmp_path: Path) -> None:
    paths = study.save(tmp_path)
    assert [p.name for p in paths] == ["report.json", "report.txt", "red_figure.png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    text = paths[1].read_text()
    assert max(map(len, text.splitlines())) <= 100 and "float32, random biases: kinks that can matter at" in text
    data = json.loads(paths[0].read_text())
    assert data["format_version"] == 1 and len(data["networks"]) == 8
    assert "<table>" in study._repr_html_()


@pytest.mark.parametrize("shares", [((0.0, 0.0),), ((1.0, 1e-6),)])
def test_a_picture_of_one_network(tmp_path: Path, shares: Any) -> None:
    draw_red_figure(tmp_path / "red.png", "$x\nline", {"float32, $": [Panel(1, 8, shares, 1, 2)]})
    assert (tmp_path / "red.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": []}, "at least one"),
        ({"depths": [0]}, "at least one layer"),
        ({"widths": [4, 4]}, "different"),
        ({"precisions": "float32"}, "list"),
        ({"precisions": ["int8"]}, "the study knows"),
        ({"biases": ["one"]}, "the study knows"),
        ({"steps": 0}, "steps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seeds": True}, "seeds=True"),
        ({"data": "cifar"}, "data sets"),
        ({"batch_size": 10_000}, "batch_size=10000"),
    ],
)
def test_wrong_use(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        study_red_figure(**{"workers": 1, "depths": [1], "widths": [1], **arguments})


def test_lists() -> None:
    assert read_list("widths", "4, 16,", int) == (4, 16)
    with pytest.raises(UsageError, match="commas"):
        read_list("widths", "4;16", int)


def test_the_command(tmp_path: Path) -> None:
    given = ("study", "red-figure", "--depths", "1", "--widths", "4", "--precisions", "float32", "--biases", "zero",
             "--steps", "3", "--workers", "1", "-o", str(tmp_path), "--json")  # fmt: skip
    result = CliRunner().invoke(cli.app, [*given], prog_name="nonsmooth")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["networks"][0]["steps"] == 3 and (tmp_path / "runs").is_dir()
    result = CliRunner().invoke(cli.app, ["study", "red-figure", "--depths", "x"], prog_name="nonsmooth")
    assert (result.exit_code, result.stdout) == (2, "") and "commas" in result.stderr
