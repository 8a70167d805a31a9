"""The study of cost: counts below their bounds, the theory's slopes, a report of every number, and wrong use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.cost.measured import Timing
from nonsmooth.errors import UsageError
from nonsmooth.studies import cost as module
from nonsmooth.studies.cost import FULL, QUICK, CostStudy, Sizes, study_cost
from nonsmooth.studies.cost_programs import NETWORKS, Network, classifier, relu_network
from nonsmooth.studies.cost_result import WayCost, fit_slopes

TINY = Sizes(
    layers=(1, 2),
    neurons=(4,),
    channels=(2,),
    batch=(4,),
    directions=(4, 8, 16),
    exact_up_to=4,
    variables=(3,),
    widths=(2,),
    images=(("28x28", ("relu mlp", "max-pool cnn")), ("digits", ("tanh mlp",))),
    base=(1, 4, 2, 4),
    rounds=2,
    slow_rounds=1,
)


@pytest.fixture(scope="module")
def study() -> CostStudy:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = study_cost(sizes=TINY, frameworks=["torch"])
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    return found


def test_every_cell_is_counted_bounded_and_measured(study: CostStudy) -> None:
    assert [(n.images, n.network, n.layers) for n in study.networks] == [
        (images, kind, layers) for images, kinds in TINY.images for kind in kinds for layers in (1, 2)
    ]
    for n in study.networks:
        assert 1 < n.counted <= n.bound and not n.uncounted
        assert [row.what for row in n.measured.rows] == ["evaluation", "gradient by torch", "nonsmooth"]
        assert n.gradient.ratio > 0 and n.measured.rounds == 2
    assert {"counted", "bound", "measured"} <= {w for text in study.status for w in text.replace(",", "").split()} | {
        w for text in study.status.values() for w in text.split()
    }


def test_the_count_of_a_dense_network_is_its_formula() -> None:
    """Products of B x (n m) and sums B x (n (m - 1)) + B n for the bias: the rest is relu and the loss."""
    cell = module.cost_of_network("torch", "digits", Network("relu mlp", 1, 5, 3), rounds=1)
    dense = 3 * (5 * (2 * 64 - 1) + 5 + 10 * (2 * 5 - 1) + 10)
    assert cell.entries == 64 * 5 + 5 + 5 * 10 + 10
    assert dense + 3 * 5 <= cell.evaluation <= dense + 3 * 5 + 3 * 10 * 6


def test_the_slopes_of_the_counts_are_those_of_the_theory(study: CostStudy) -> None:
    slopes = {(s.way, s.kind, s.points): s for s in study.slopes}
    for way in ("gradient", "backprop", "subgradient"):
        assert abs(slopes[way, "counted", 3].slope) < 0.05
    for way in ("tangents", "coordinate derivatives", "lexicographic", "forward subgradient"):
        assert 0.75 < slopes[way, "counted", 3].slope < 1.05
    assert ("lexicographic", "measured", 3) not in slopes and ("tangents", "measured", 3) in slopes
    measured = {(w.way, w.p) for w in study.ways if w.measured is not None}
    assert ("lexicographic", 4) in measured and ("lexicographic", 8) not in measured


def test_a_power_of_p_is_found_and_its_error_with_it() -> None:
    """Against a least-squares fit written out, with noise; a side of slope 1 and one of slope 0."""
    rng, sizes = np.random.default_rng(0), (4, 8, 16, 32, 64)
    noise = dict(zip(sizes, rng.normal(size=5), strict=True))

    def way(name: str, p: int, power: float) -> WayCost:
        ratio = 3.0 * p**power * 2.0 ** noise[p]
        return WayCost("torch", p, name, 1.0, 3.0 * p**power, Timing(name, 1.0, ratio, (ratio, ratio)))

    found = fit_slopes([way(name, p, power) for name, power in (("up", 1.0), ("flat", 0.0)) for p in sizes])
    for name, power in (("up", 1.0), ("flat", 0.0)):
        counted, measured = (
            next(s for s in found if (s.way, s.kind, s.points) == (name, k, 5)) for k in ("counted", "measured")
        )
        assert (counted.slope, counted.error) == pytest.approx((power, 0.0), abs=1e-6)
        x = np.log2(sizes)
        y = power * x + np.array([noise[p] for p in sizes])
        design = np.stack([x, np.ones(5)], axis=1)
        solution, residual = np.linalg.lstsq(design, y, rcond=None)[:2]
        error = np.sqrt(residual[0] / 3 * np.linalg.inv(design.T @ design)[0, 0])
        assert (measured.slope, measured.error) == pytest.approx((solution[0], error), abs=1e-6)
    halves = {(s.least, s.most) for s in found}
    assert halves == {(4, 64), (16, 64)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_frameworks_run_the_same_network(kind: str) -> None:
    pytest.importorskip("jax")
    for images in ("28x28", "digits"):
        for layers in (1, 3):
            values = []
            for framework in ("torch", "jax"):
                problem = classifier(framework, Network(kind, layers, 4, 6), images, seed=3)
                values.append(float(problem.f(problem.x, *problem.data)))
            assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_both_frameworks_have_the_same_relu_network() -> None:
    pytest.importorskip("jax")
    from jax import numpy as jnp

    v = np.linspace(-1, 1, 6, dtype=np.float32)
    ours, theirs = relu_network("torch", 6), relu_network("jax", 6)
    assert float(ours.f(torch.as_tensor(v))) == pytest.approx(float(theirs.f(jnp.asarray(v))), rel=1e-5)
    assert float(ours.f(ours.x)) == 0.0


def test_jax_is_counted_as_torch_is() -> None:
    pytest.importorskip("jax")
    network = Network("relu mlp", 1, 4, 4)
    cells = [module.cost_of_network(f, "digits", network, rounds=1) for f in ("torch", "jax")]
    assert cells[1].measured.rows[1].compile_seconds is not None and cells[1].gradient.memory is not None
    assert cells[0].counted == pytest.approx(cells[1].counted, rel=0.1)


def test_the_report(study: CostStudy, tmp_path: Path) -> None:
    text = str(study)
    assert max(map(len, text.splitlines())) <= 100 and "EXCEED" not in text
    assert "Overhead of a gradient against layers" in text and "slope of log(overhead)" in text
    assert [p.name for p in study.save(tmp_path)] == ["report.json", "report.txt", "overhead.png", "directions.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["networks"]) == 6 and data["status"]["bound"] == "proved"
    assert len(data["theory"]) == 2 and data["setting"]["rounds"] == 2
    assert "<table>" in study._repr_html_()
    broken = replace(study, networks=(replace(study.networks[0], bound=1.0), *study.networks[1:]))
    assert "1 COUNTS EXCEED THEIR BOUND" in str(broken)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(TINY, layers=(1,), images=(("digits", ("relu mlp",)),), directions=(4,))
    monkeypatch.setattr(module, "QUICK", one)
    arguments = ["study", "cost", "--quick", "--framework", "torch", "--images", "28x28", "--json"]
    found = CliRunner().invoke(cli.app, arguments, prog_name="nonsmooth")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert list(data["versions"]) == ["torch"] and {n["images"] for n in data["networks"]} == {"28x28"}


def test_no_cell_is_run_twice() -> None:
    for sizes in (QUICK, FULL):
        cells = list(sizes.networks())
        assert len(cells) == len(set(cells)) and {n.kind for _, n in cells} == set(NETWORKS)


def test_wrong_use() -> None:
    for wrong, words in (
        ({"frameworks": ["numpy"]}, "framework='numpy'"),
        ({"images": "cats"}, "images='cats'"),
        ({"threads": 0}, "threads=0"),
    ):
        with pytest.raises(UsageError, match=words):
            study_cost(sizes=TINY, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch=100000"):
        classifier("torch", Network("relu mlp", 1, 4, 100_000), "digits")
    with pytest.raises(UsageError, match="network='lstm'"):
        classifier("torch", Network("lstm", 1, 4, 4), "digits")
