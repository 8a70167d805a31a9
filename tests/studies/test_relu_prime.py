"""The study of relu'(0): runs against a naive transcription, words against closed forms, the command as a user sees it."""

from __future__ import annotations

import json
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies import relu_prime
from nonsmooth.studies.data import held_out, training
from nonsmooth.studies.relu_prime import study_relu_prime
from nonsmooth.studies.relu_prime_bifurcation import outcome, run_bifurcation
from nonsmooth.studies.relu_prime_networks import PRECISIONS, Choice, build_network, choice_at
from nonsmooth.studies.relu_prime_protocol import (
    AUTHORS,
    BLOCK,
    FULL,
    SMALL,
    Protocol,
    read_protocol,
    settings,
    trainings,
)
from nonsmooth.studies.relu_prime_result import ReluPrimeStudy
from nonsmooth.studies.relu_prime_training import MOMENTUM, WEIGHT_DECAY, run_training
from tests.references.relu_prime import ChosenRelu, ErroneousRelu, WithSlope, differing, gradients, replaced

BASE: dict[str, Any] = {
    "data": "digits", "network": "mlp", "activation": "relu", "depth": 2, "width": 24, "batch_norm": False,
    "biases": "torch", "precision": "float16", "batch_size": 256, "operation": "relu", "choices": [0, 1],
    "start": 0, "stop": 9,
}  # fmt: skip

TRAINED: dict[str, Any] = {
    "data": "digits", "network": "mlp", "depth": 2, "width": 16, "batch_norm": False, "biases": "torch",
    "precision": "bfloat16", "alpha": 0.5, "rate": 0.05, "epochs": 1, "batch_size": 128, "seed": 0,
}  # fmt: skip

TINY = Protocol(
    precisions=("bfloat16", "float64"),
    initialisations=BLOCK + 5,
    cnn_initialisations=2,
    depths=(1,),
    widths=(16,),
    batch_sizes=(1024,),
    width=16,
    batch_size=1024,
    channels=2,
    alphas=(0.0, 10.0),
    seeds=2,
    epochs=1,
    training_width=8,
    training_batch=256,
)


def batches(configuration: dict[str, Any]) -> list[Any]:
    images, labels = training(configuration["data"])
    images = images.to(getattr(torch, configuration["precision"]))
    size = configuration["batch_size"]
    return list(zip(images.split(size), labels.split(size), strict=True))


def builder(configuration: dict[str, Any]) -> Any:
    names = ("network", "activation", "depth", "width", "batch_norm", "biases", "precision")
    return lambda: build_network(**{name: configuration[name] for name in names}, side=8)


NETS = [
    {},
    {"batch_norm": True, "depth": 1, "stop": 4},
    {"biases": "zero", "width": 4, "depth": 5, "stop": 5},
    {"network": "cnn", "width": 2, "biases": "zero", "stop": 3},
    {"network": "cnn", "width": 2, "stop": 4},
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("changed", NETS)
def test_two_full_backward_passes_differ_for_the_same_initialisations(changed: dict[str, Any], precision: str) -> None:
    configuration = {**BASE, **changed, "precision": precision}
    seeds = range(configuration["stop"])
    with torch.random.fork_rng(devices=[]):
        expected = differing(builder(configuration), seeds, batches(configuration), (0.0, 1.0))
    found = [run_bifurcation(**{**configuration, "start": k, "stop": k + 1}) for k in seeds]
    assert [bool(f["different"]) for f in found] == expected
    assert run_bifurcation(**configuration)["different"] == sum(expected)
    assert all(f["bifurcation"] <= f["different"] <= f["met"] for f in found)


def test_the_table_of_that_test_is_not_empty_of_either_kind() -> None:
    counts = [
        run_bifurcation(**{**BASE, **c, "precision": p})["different"] for c in NETS[:3] for p in ("bfloat16", "float64")
    ]
    assert max(counts) > 0 == min(counts)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 1.0, 10.0])
def test_at_kinks_is_the_right_backward_pass(precision: str, alpha: float) -> None:
    configuration = {**BASE, "precision": precision, "network": "cnn", "width": 2, "biases": "zero"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = builder(configuration)()
    images, labels = batches(configuration)[0]
    with ns.at_kinks(choice_at("relu", alpha)):
        found = gradients(model, images, labels)
    expected = gradients(replaced(model, ChosenRelu, alpha), images, labels)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_erroneous_backward_pass_gives_something_else() -> None:
    t = torch.zeros(1, requires_grad=True)
    for function, expected in ((ChosenRelu, 1e-3), (ErroneousRelu, 1.0)):
        (found,) = torch.autograd.grad(WithSlope(function, 1.0)(t), t, torch.tensor([1e-3]))
        assert float(found) == pytest.approx(expected)
    configuration = {**BASE, "precision": "float64", "network": "cnn", "width": 2, "biases": "zero"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = builder(configuration)()
    images, labels = batches(configuration)[0]
    right, wrong = (gradients(replaced(model, f, 1.0), images, labels) for f in (ChosenRelu, ErroneousRelu))
    norm = torch.cat([g.flatten() for g in right]).norm()
    assert torch.cat([(a - b).flatten() for a, b in zip(right, wrong, strict=True)]).norm() > 10 * norm


def test_the_erroneous_backward_pass_also_counts_units_that_cannot_matter() -> None:
    """A unit at its kink that max-pooling passes over has no cotangent; the erroneous code gives it alpha."""
    configuration = {**BASE, "network": "cnn", "width": 2, "stop": 6}
    with torch.random.fork_rng(devices=[]):
        wrong = differing(builder(configuration), range(6), batches(configuration), (0.0, 1.0), ErroneousRelu)
    found = run_bifurcation(**configuration)
    assert found["different"] < sum(wrong) == found["met"]


# A network of one unit, of which everything is known: t = w x + b, loss = log(1 + exp(-2 relu(t))) for the label 0.


def one_unit(weight: float, bias: float, *, pool: bool = False, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Give relu(w x + b), or its largest over two inputs, as the scores (r, -r)."""
    first = nn.Linear(1, 1, dtype=dtype) if not pool else nn.Conv1d(1, 1, 1, dtype=dtype)
    last = nn.Linear(1, 2, dtype=dtype)
    model = nn.Sequential(
        first, *([] if pool else [nn.ReLU()]), *([nn.MaxPool1d(2), nn.Flatten()] if pool else []), last
    )
    with torch.no_grad():
        first.weight.fill_(weight)
        first.bias.fill_(bias)  # type: ignore[union-attr]
        last.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        last.bias.fill_(0.0)
    return model


def batch(*values: float, dtype: torch.dtype = torch.float64) -> list[Any]:
    return [
        (
            torch.tensor([values], dtype=dtype).reshape(1, 1, -1)
            if len(values) > 1
            else torch.tensor([values], dtype=dtype),
            torch.tensor([0]),
        )
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_unit_at_its_kink_bifurcates(precision: str) -> None:
    dtype = getattr(torch, precision)
    at = outcome(one_unit(1.0, -2.0, dtype=dtype), batch(2.0, dtype=dtype), "relu", [0, 1])
    assert (at.met, at.different, at.first_weight, at.word) == (True, True, True, "bifurcation")
    # g_1 = (dw, db, dv, dc) = (-2, -1, 0, 0, -1/2, 1/2) and g_0 = (0, 0, 0, 0, -1/2, 1/2)
    assert at.change == pytest.approx((5 / 5.5) ** 0.5)
    off = outcome(one_unit(1.0, -2.0, dtype=dtype), batch(2.25, dtype=dtype), "relu", [0, 1])
    assert (off.met, off.different, off.word, off.change) == (False, False, "same", 0.0)


def test_a_dead_weight_is_seen_in_the_bias_alone() -> None:
    at = outcome(one_unit(1.0, 0.0), batch(0.0), "relu", [0, 1])
    assert (at.different, at.first_weight, at.word) == (True, False, "bifurcation")


def test_a_kink_without_cotangent_is_met_and_the_same() -> None:
    model = one_unit(1.0, 0.0)
    with torch.no_grad():
        model[-1].weight.zero_()
    at = outcome(model, batch(0.0), "relu", [0, 1])
    assert (at.met, at.different, at.word) == (True, False, "same")


def test_ties_of_different_inputs_bifurcate_and_of_equal_ones_are_the_same() -> None:
    # weight 0: the outputs tie, their derivatives 1 and 3 in the weight do not
    apart = outcome(one_unit(0.0, 1.0, pool=True), batch(1.0, 3.0), "max_pool", ["first", "last"])
    assert (apart.met, apart.word) == (True, "bifurcation")
    alike = outcome(one_unit(0.5, 1.0, pool=True), batch(3.0, 3.0), "max_pool", ["first", "last"])
    assert (alike.met, alike.different, alike.word) == (True, False, "same")


def test_what_rounding_alone_tells_apart_compensates() -> None:
    # three equal entries: 1/3 + 1/3 + 1/3 of a derivative, each product rounded, is not the derivative
    model = one_unit(0.7, 0.1, pool=True, dtype=torch.float32)
    model[1] = nn.MaxPool1d(3)
    found = {
        outcome(model, batch(x, x, x, dtype=torch.float32), "max_pool", ["native", "even"]).word
        for x in (k / 10 for k in range(1, 40))
    }
    assert found <= {"same", "compensation"} and "compensation" in found


def test_rounding_of_the_precision_is_no_bifurcation_of_the_reals() -> None:
    """The chain rules are compared at the values met: a tie of float16 is a tie, whatever float64 would have met."""
    dtype = torch.float16
    model = one_unit(1.0, 0.0, pool=True, dtype=dtype)
    with torch.no_grad():
        model[0].weight.fill_(2.0**-13)
        model[0].bias.fill_(1.0)
    at = outcome(model, batch(1.0, 3.0, dtype=dtype), "max_pool", ["first", "last"])
    assert (at.met, at.word) == (True, "bifurcation")
    assert outcome(model.double(), batch(1.0, 3.0), "max_pool", ["first", "last"]).met is False


@pytest.mark.parametrize(
    ("layer", "value", "met"), [(nn.Hardtanh(), 1.0, True), (nn.ReLU6(), 6.0, True), (nn.Hardtanh(), 0.5, False)]
)
def test_clamps(layer: nn.Module, value: float, met: bool) -> None:
    model = one_unit(1.0, 0.0)
    model[1] = layer
    at = outcome(model, batch(value), "clamp", [0, 1])
    assert (at.met, at.different) == (met, met) and at.word == ("bifurcation" if met else "same")
    t = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    for slope in (0, 1):
        with ns.at_kinks(choice_at("clamp", slope)):
            (found,) = torch.autograd.grad(layer(t), t)
        assert float(found) == (slope if met else 1)


def test_blocks_of_seeds_add_up_and_the_user_is_left_alone() -> None:
    state, default = torch.get_rng_state(), torch.get_default_dtype()
    whole = run_bifurcation(**BASE)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            parts = [run_bifurcation(**{**BASE, "start": a, "stop": b}) for a, b in ((0, 5), (5, 6), (6, 9))]
    finally:
        torch.set_default_dtype(default)
    for name in ("initialisations", "met", "different", "first_weight", "bifurcation", "compensation", "undecided"):
        assert sum(part[name] for part in parts) == whole[name]
    assert max(part["change"] for part in parts) == whole["change"]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": "float8"}, "precision='float8'"),
        ({"network": "rnn"}, "network='rnn'"),
        ({"data": "cifar"}, "data='cifar'"),
        ({"depth": 0}, "at least one layer"),
        ({"network": "cnn", "depth": 4}, "halves the images"),
        ({"choices": [0]}, "two choices"),
        ({"choices": [0, "one"]}, "a slope, a number"),
        ({"operation": "max_pool", "choices": ["native", "all"]}, "choices at a max-pool"),
        ({"operation": "sort"}, "operation='sort'"),
        ({"batch_norm": True, "batch_size": 1}, "two with batch norm"),
    ],
)
def test_wrong_runs(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_bifurcation(**{**BASE, **changed})


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 10.0])
def test_training_against_a_naive_loop(precision: str, alpha: float) -> None:
    configuration = {**TRAINED, "precision": precision, "alpha": alpha, "biases": "zero", "network": "cnn", "width": 2}
    found = run_training(**configuration)
    images, labels, tests, answers = held_out("digits")
    dtype = getattr(torch, precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = build_network(
            network="cnn", activation="relu", depth=2, width=2, batch_norm=False, biases="zero",
            precision=precision, side=8,
        )  # fmt: skip
        order = torch.randperm(len(images))
    model = replaced(plain, ChosenRelu, alpha)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    for step in range(len(images) // 128):
        chosen = order[128 * step : 128 * step + 128]
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[chosen].to(dtype)), labels[chosen])
        loss.backward()
        optimiser.step()
    assert found["loss"] == loss.item() and found["steps"] == len(images) // 128
    assert found["accuracy"] == float((model(tests.to(dtype)).argmax(1) == answers).double().mean())
    assert found["first"] == 0 and found["met"] >= 1


def test_training_depends_on_alpha_only_where_a_kink_is_met() -> None:
    runs = {
        (p, a): run_training(**{**TRAINED, "precision": p, "alpha": a})
        for p in ("float64", "bfloat16")
        for a in (0.0, 1.0)
    }
    assert runs["float64", 0.0] == runs["float64", 1.0] and runs["float64", 0.0]["first"] is None
    again = run_training(**{**TRAINED, "alpha": 1.0})
    assert again == runs["bfloat16", 1.0]
    assert again["met"] > 0 or runs["bfloat16", 0.0]["weights"] == again["weights"]
    often = {**TRAINED, "biases": "zero", "network": "cnn", "width": 2}  # blank pixels meet kinks at every step
    differing = [run_training(**{**often, "alpha": alpha}) for alpha in (0.0, 1.0)]
    assert differing[0]["weights"] != differing[1]["weights"] and differing[0]["met"] > 0


def test_a_run_that_breaks_says_so() -> None:
    found = run_training(**{**TRAINED, "precision": "float16", "rate": 1e4})
    assert found["loss"] is None and 0 <= found["accuracy"] <= 1
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("changed", [{"alpha": float("nan")}, {"rate": 0.0}, {"epochs": 0}, {"batch_size": 10**6}])
def test_training_refuses(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run_training(**{**TRAINED, **changed})


def test_a_choice_notices_its_operation_alone() -> None:
    choice, t = Choice("relu", 0.25), torch.zeros(3, requires_grad=True)
    with choice.around():
        torch.abs(t).sum()
        assert not choice.met
        torch.relu(t).sum().backward()
    assert choice.met and t.grad is not None and t.grad.tolist() == [0.25] * 3


def test_the_protocols_are_what_they_say() -> None:
    rows = settings(FULL)
    assert {r.initialisations for r in rows} == {1000}
    depth = [r.configuration for r in rows if r.table == "depth"]
    assert [c["depth"] for c in depth] == list(AUTHORS[0].values)
    assert {(c["width"], c["batch_size"], c["network"], c["data"]) for c in depth} == {(256, 256, "mlp", "mnist")}
    assert tuple(r.configuration["width"] for r in rows if r.table == "width") == AUTHORS[1].values
    blocks = rows[0].runs("float32", 7)
    assert [(b["start"], b["stop"]) for b in blocks][:2] == [(7, 7 + BLOCK), (7 + BLOCK, 7 + 2 * BLOCK)]
    assert blocks[-1]["stop"] == 1007 and len(blocks) == 1000 // BLOCK
    assert settings(replace(SMALL, initialisations=7))[0].runs("float32", 0)[0]["stop"] == 7
    assert {c["width"] for _, c in trainings(FULL) if c["network"] == "mlp"} == {2048}


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "cifar"}, {"depths": "1,x"}, {"depths": ""}, {"precisions": "float8"}, {"seeds": 0}, {"parts": "all"},
        {"initialisations": 0}, {"depths": "0"}, {"batch_sizes": "1"}, {"seed": -1},
    ],
)  # fmt: skip
def test_protocols_that_mean_nothing(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_protocol(**changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def study(folder: Path) -> ReluPrimeStudy:
    return study_relu_prime(TINY, store=folder, workers=1)


def test_the_study_adds_its_runs_up(study: ReluPrimeStudy) -> None:
    found = study.volume("depth", "1", "bfloat16")
    by_hand = run_bifurcation(**{**found.configuration, "start": 0, "stop": BLOCK + 5})
    assert (found.different.count, found.different.trials) == (by_hand["different"], BLOCK + 5)
    assert found.different.low < found.different.share < found.different.high or not found.different.count
    assert study.volume("network", "cnn, zero biases", "float64").bifurcation.count == 2
    assert study.volume("network", "mlp", "float64").different.count == 0
    same = [a for a in study.accuracies if a.alpha == 0.0]
    assert all(a.same == 2 and a.against.value == 0 for a in same)
    assert len(study.accuracies) == 2 * 2 * len(trainings(TINY))


def test_a_study_started_again_repeats_nothing(
    study: ReluPrimeStudy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int, int]] = []
    more = replace(TINY, initialisations=2 * BLOCK)
    study_relu_prime(more, store=folder, workers=1, progress=lambda *a: done.append(a))
    begun = next(d for d in done if d[0].startswith("runs"))
    assert 0 < begun[1] < begun[2]  # the blocks that were there are not run again
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", None)
    again = study_relu_prime(TINY, store=folder, workers=1)
    assert replace(again, seconds=0.0) == replace(study, seconds=0.0)


def test_the_report(study: ReluPrimeStudy, tmp_path: Path) -> None:
    text = str(study)
    assert max(map(len, text.splitlines())) <= 100
    assert "float64 is no cure for network cnn, zero biases: 2 of 2 bifurcate" in " ".join(text.split())
    assert "The authors' counts, by depth: another setting, not to be compared number by number" in text
    apart = sum(a.same < 2 for a in study.accuracies)
    assert f"Training: of 4 settings {4 - apart} end in the same bits as relu'(0) = 0" in text
    assert "871: 84.9 to 89.1" in text and "sampled" in text
    names = [p.name for p in study.save(tmp_path / "out")]
    assert names == ["report.json", "report.txt", "volumes.png", "choices.png", "accuracies.png"]
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["format_version"] == 1 and data["volumes"][0]["different"]["status"] == "sampled"
    assert data["authors"][0]["initialisations"] == 1000
    assert "<table>" in study._repr_html_()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["study", "relu-prime", *arguments], prog_name="nonsmooth")


def test_the_command(tmp_path: Path) -> None:
    few = "--initialisations 3 --cnn-initialisations 1 --depths 1 --widths 16 --batch-sizes 1024 --precisions float64"
    result = run(*few.split(), "--parts", "volume", "--workers", "1", "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("The influence of relu'(0), with the right backward pass")
    assert "0: 0 to 70.8" in result.stdout and "report.json" in result.stderr and "No training." in result.stdout
    again = run(
        *few.split(), "--parts", "volume", "--store", str(tmp_path / "out" / "runs"), "--workers", "1", "--json"
    )
    assert json.loads(again.stdout)["protocol"]["depths"] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depths", "one"), "write the values with commas"),
        (("--data", "cifar"), "the study has the data sets"),
        (("--workers", "0"), "workers"),
        (("--precisions", "float8"), "float16"),
    ],
)
def test_wrong_use_of_the_command(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "") and message in result.stderr
    assert "Traceback" not in result.stderr


def test_mnist_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no network")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.setattr(relu_prime, "run_grid", refuse)
    result = run("--full")
    assert result.exit_code == 2 and "MNIST could not be fetched" in result.stderr and "--data digits" in result.stderr
