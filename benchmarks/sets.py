"""What the sets of gradients cost: `python benchmarks/sets.py [--rounds N] [--parts ...] [-o FILE.json]`.

Part `sweeps`: forward and reverse sweeps of `ns.field` and `ns.clarke` against the 2^k selections of k kinks that interact
in a chain, in pairs, and not at all. Part `size`: construction, support value, minimum norm and membership from 10 to 10^5
kinks, and how wide the bracket of one large group is. Part `clarke`: the same cases, and random programs against the naive
exact reference of `tests/references/clarke.py`. Part `peers`: ours at 20, 100 and 1000 kinks; ADOL-C's abs-normal form,
where `libadolc-dev` and `g++` are installed.

Every case runs in a process of its own, forked from one that has imported torch and nothing more, on one thread, so that its
peak memory is its own (that of the imports included); a ratio is one of medians, both sides in turn in one process. A case
is stopped after its seconds (`--limit` for those of `size`), and what it had measured by then is kept.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.frameworks.torch.linearise import LinearisedTorch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.references and tools.adolc

ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, Any]
Setup = tuple[Callable[..., torch.Tensor], Any, tuple[Any, ...]]

SIZES: dict[str, tuple[int, ...]] = {
    "losses": (10, 1_000, 10_000, 100_000),
    "penalty": (100, 1_000, 10_000),
    "network": (1, 10, 100, 1_000, 12_500),
    "digits": (8, 64, 256),
    "dense": (5, 12, 13, 16, 50, 200, 1_000),
}
"""Part `size`: losses, coordinates, samples, images, and units of each layer."""

CLARKE: dict[str, tuple[int, ...]] = {
    "losses": (100_000,),
    "penalty": (1_000,),
    "network": (1, 2, 10, 1_000),
    "digits": (8, 256),
    "dense": (5, 10, 50),
}
"""Part `clarke`: some of the same."""

CHAINED = (2, 4, 6, 8, 10, 13, 14, 20)
"""Part `sweeps`: the numbers of kinks; selections are enumerated up to 10."""

DIRECTIONS = 10
"""Along how many directions the bracket of a large group is looked at."""


# the cases


def losses(count: int) -> Setup:
    """Build the mean of |<a_i, x> - b_i| over whole numbers, where every one of them is 0; 100 coordinates."""
    draw = torch.Generator().manual_seed(0)
    A = torch.randint(-4, 5, (count, 100), generator=draw).double()
    x = torch.randint(-4, 5, (100,), generator=draw).double()
    return lambda x, A, b: (A @ x - b).abs().mean(), x, (A, A @ x)


def penalty(count: int) -> Setup:
    """Build |x - c|^2 / 2 + |x|_1 / 10 at 0: as many kinks as coordinates."""
    c = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lambda x, c: (x - c).square().sum() / 2 + x.abs().sum() / 10, torch.zeros_like(c), (c,)


def network(batch: int) -> Setup:
    """Build an MLP 10-40-40-1 with 4 units of each hidden layer at their kink, those of the second fed by those of the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    with torch.no_grad():
        for layer, columns in ((model[0], slice(0, None)), (model[2], slice(4, None))):
            layer.weight[:4, columns] = 0.0
            layer.bias[:4] = 0.0
    f, x = ns.objective(model, nn.functional.mse_loss)
    return f, x, (torch.randn(batch, 10), torch.randn(batch, 1))


def digits(batch: int) -> Setup:
    """Build the network of studies/digits at its initialisation (zero biases), on the first of its training images."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 10)),
    )
    nn.init.zeros_(model[0].bias), nn.init.zeros_(model[3].bias)
    data = load_digits()
    first = np.random.default_rng(0).permutation(len(data.images))[:batch]
    images = torch.as_tensor(data.images[first] / 16.0, dtype=torch.float32)[:, None]
    f, x = ns.objective(model, nn.functional.cross_entropy)
    return f, x, (images, torch.as_tensor(data.target[first]))


def dense(width: int) -> Setup:
    """Build v' relu(W relu(U x)) at 0 in R^16: 2 * width kinks in one group."""
    draw = torch.Generator().manual_seed(0)
    U, W, v = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((width, 16), (width, width), (width,)))
    x = torch.zeros(16, dtype=torch.float64)
    return lambda x, U, W, v: torch.relu(W @ torch.relu(U @ x)) @ v, x, (U, W / width**0.5, v / width**0.5)


CASES: dict[str, Callable[[int], Setup]] = {
    "losses": losses,
    "penalty": penalty,
    "network": network,
    "digits": digits,
    "dense": dense,
}
"""The cases of the parts `size` and `clarke`."""


def joined(shape: str, kinks: int) -> Setup:
    """Build a program of k relus at 0 in R^4: in a chain, in pairs (the first of each acts on the second), or alone."""
    draw = torch.Generator().manual_seed(kinks)
    A, c, w = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((kinks, 4), (kinks,), (kinks,)))
    half = kinks // 2

    def chain(x: torch.Tensor, A: torch.Tensor, c: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        total, before = torch.zeros((), dtype=x.dtype), torch.zeros((), dtype=x.dtype)
        for i in range(kinks):
            before = torch.relu(A[i] @ x + c[i] * before) if i else torch.relu(A[i] @ x)
            total = total + w[i] * before
        return total

    def pairs(x: torch.Tensor, A: torch.Tensor, c: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        first = torch.relu(A[:half] @ x)
        return w[:half] @ first + w[half:] @ torch.relu(A[half:] @ x + c[half:] * first)

    def alone(x: torch.Tensor, A: torch.Tensor, c: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return w @ torch.relu(A @ x)

    f = {"chain": chain, "pairs": pairs, "none": alone}[shape]
    return f, torch.zeros(4, dtype=torch.float64), (A, c, w)


# what is measured


class Counted:
    """Counts the sweeps of linearisations while it is entered: forward (`push`) and reverse (all others)."""

    def __enter__(self) -> Counted:
        """Put counting methods in place."""
        self.forward = self.reverse = 0
        self.own = {name: getattr(LinearisedTorch, name) for name in ("push", "start", "pull", "interactions", "rows")}
        for name, method in self.own.items():
            setattr(LinearisedTorch, name, self._counting(name, method))
        return self

    def __exit__(self, *_: object) -> None:
        """Put the methods back."""
        for name, method in self.own.items():
            setattr(LinearisedTorch, name, method)

    def _counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def counting(sweeps: Any, *args: Any, **options: Any) -> Any:
            if name == "push":
                self.forward += 1
            else:
                self.reverse += int(args[0].numel()) if name == "rows" else 1
            return method(sweeps, *args, **options)

        return counting


def seconds(call: Callable[[], Any], rounds: int, most: float = 4.0) -> tuple[float, Any]:
    """Time a call: the median of so many rounds, fewer where they would take long; give a result too."""
    times: list[float] = []
    while len(times) < rounds and (not times or sum(times) + times[0] < most):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, most: float = 4.0) -> Row:
    """Time two calls in turn, after one of each: both medians and their ratio; fewer rounds where they take long."""
    a: list[float] = []
    b: list[float] = []
    ours()
    while len(b) < rounds and (not b or sum(b) + b[0] < most):
        for times, call in ((a, ours), (b, theirs)):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    x, y = statistics.median(a), statistics.median(b)
    return {"field_s": brief(x), "enumeration_s": brief(y), "ratio": brief(x / y)}


def gibibytes() -> float:
    """Give the largest memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def brief(number: float) -> float:
    """Keep four digits."""
    return float(f"{number:.4g}")


def measure_sweeps(case: Row, rounds: int) -> Iterator[Row]:
    """Count the sweeps of a field with one support value, and of a Clarke set; time both, and all selections."""
    f, x, data = joined(case["shape"], case["kinks"])
    program, rng = ns.capture(f, x, *data), np.random.default_rng(0)
    d = rng.standard_normal(x.numel())

    def supported() -> float:
        return float(ns.field(program, x, *data).support(d))

    with Counted() as count:
        found = ns.field(program, x, *data)
        construction = {"forward": count.forward, "reverse": count.reverse}
        value = found.support(d)
        with_support = {"forward": count.forward, "reverse": count.reverse}
    yield {"selections": 2 ** case["kinks"], "exact": found.exact, "construction": construction, **with_support}
    yield {"ratio_of_bounds": brief(float(value.upper) / float(value.lower)) if not found.exact else 1.0}
    with Counted() as count:
        start = time.perf_counter()
        clarke = ns.clarke(program, x, *data)
        own = time.perf_counter() - start
    yield {"clarke_forward": count.forward, "clarke_reverse": count.reverse, "clarke_s": brief(own)}
    yield {"equality": clarke.equality, "cells": clarke.cells}
    if case["kinks"] > 10:
        yield {"field_s": brief(seconds(supported, rounds)[0])}
    else:

        def enumerated() -> None:
            largest = max(float(d @ g) for g in every_selection(program, x, data))
            assert abs(largest - float(value)) <= 1e-9 * abs(largest), (largest, value)

        yield in_turn(supported, enumerated, rounds)
    if own < 1:
        yield {"clarke_s": brief(seconds(lambda: ns.clarke(program, x, *data), rounds)[0])}


def every_selection(program: Any, x: torch.Tensor, data: tuple[Any, ...]) -> Iterator[np.ndarray]:
    """Give the gradients of all 2^k selections of relus, one backprop each."""
    relus = [s for s in program.steps if s.operation.name == "relu"]
    sizes: dict[int, tuple[int, ...]] = {}

    def look(step: Any, kink: str, call: Any) -> float:
        sizes[step.index] = tuple(call.result.shape)
        return 0.0

    ns.backprop(program, x, *data, at_kinks=look)
    counts = [math.prod(sizes[s.index]) for s in relus]
    starts = dict(zip((s.index for s in relus), itertools.accumulate([0, *counts]), strict=False))
    for bits in itertools.product((0.0, 1.0), repeat=sum(counts)):
        weights = torch.tensor(bits, dtype=x.dtype)

        def rule(step: Any, kink: str, call: Any, weights: torch.Tensor = weights) -> torch.Tensor:
            start = starts[step.index]
            return weights[start : start + call.result.numel()].reshape(call.result.shape)

        yield ns.backprop(program, x, *data, at_kinks=rule).numpy()


def measure_size(case: Row, rounds: int) -> Iterator[Row]:
    """Time what a field is asked."""
    f, x, data = CASES[case["case"]](case["size"])
    program, rng = ns.capture(f, x, *data), np.random.default_rng(0)
    own, found = seconds(lambda: ns.field(program, x, *data), rounds)
    yield {"kinks": found.kinks, "groups": len(found.groups), "largest": max(found.groups), "space": found.space}
    yield {"exact": found.exact, "construction_s": brief(own), "peak_gib": gibibytes()}
    directions = rng.standard_normal((DIRECTIONS, found.space))
    d = directions[0]
    own, value = seconds(lambda: found.support(d), rounds)
    yield {"support_s": brief(own), "lower": float(value.lower), "upper": float(value.upper)}
    if not found.exact:
        yield bracket(found, directions, program, x, data)
    inside, outside = (found.support_point(s * d) for s in (1.0, -1.0))
    own, there = seconds(lambda: found.contains((inside + outside) / 2), rounds)
    yield {"contains_s": brief(own), "contains": there, "peak_gib": gibibytes()}
    own, there = seconds(lambda: found.contains(2 * inside - outside), rounds)
    yield {"outside_s": brief(own), "outside": there, "peak_gib": gibibytes()}
    own, nearest = seconds(found.minimum_norm, rounds)
    yield {"minimum_norm_s": brief(own), "norm": [nearest.norm.lower, nearest.norm.upper], "peak_gib": gibibytes()}
    yield {"status": nearest.status, "iterations": nearest.iterations}


def bracket(found: Any, directions: np.ndarray, program: Any, x: Any, data: tuple[Any, ...]) -> Row:
    """Compare the bounds of support values, with the values themselves where a larger limit gives them."""
    values = [found.support(d) for d in directions]
    row: Row = {"upper_over_lower": brief(statistics.median(float(v.upper) / float(v.lower) for v in values))}
    if found.groups[0] > 32:
        return row
    start = time.perf_counter()
    full = ns.field(program, x, *data, limit=2**16)
    exact = [float(full.support(d)) for d in directions]
    row["each_exact_support_s"] = brief((time.perf_counter() - start) / len(directions))
    row["lower_over_exact"] = brief(min(float(v.lower) / e for v, e in zip(values, exact, strict=True)))
    row["upper_over_exact"] = brief(statistics.median(float(v.upper) / e for v, e in zip(values, exact, strict=True)))
    return row


def measure_clarke(case: Row, rounds: int) -> Iterator[Row]:
    """Time a Clarke set and what it answers, and the field beside it."""
    f, x, data = CASES[case["case"]](case["size"])
    program = ns.capture(f, x, *data)
    own, found = seconds(lambda: ns.clarke(program, x, *data), rounds)
    yield {"kinks": found.kinks, "space": found.space, "exact": found.exact, "equality": found.equality}
    yield {"cells": found.cells, "clarke_s": brief(own), "peak_gib": gibibytes(), "status": found.status}
    d = np.random.default_rng(0).standard_normal(found.space)
    own, value = seconds(lambda: found.support(d), rounds)
    yield {"support_s": brief(own), "lower": float(value.lower), "upper": float(value.upper)}
    yield {"field_upper": float(found.outer.support(d).upper)}
    yield {"field_s": brief(seconds(lambda: ns.field(program, x, *data), rounds)[0])}


def measure_random(case: Row, rounds: int) -> Iterator[Row]:
    """Compare with the exact reference on random piecewise linear programs of k comparisons."""
    from tests.references.clarke import cells
    from tests.references.field import count_kinks, random_program, to_torch

    ours: list[float] = []
    theirs: list[float] = []
    alike, exact, sides, both, seed = 0, 0, [], [], 0
    while len(ours) < case["programs"]:
        steps, point = random_program(seed, 6, case["kinks"])
        seed += 1
        if count_kinks(steps) != case["kinks"] or len(point) < 3:
            continue
        x = torch.zeros(len(point), dtype=torch.float64)
        program = ns.capture(to_torch(steps), x)
        if not ours:
            ns.clarke(program, x)  # to warm up
        start = time.perf_counter()
        found = ns.clarke(program, x)
        own = time.perf_counter() - start
        start = time.perf_counter()
        reference = cells(steps, point)
        theirs.append(time.perf_counter() - start)
        ours.append(own)
        d = np.random.default_rng(seed).standard_normal(len(point))
        largest = max(float(d @ np.array(c.gradient, dtype=float)) for c in reference)
        value = found.support(d)
        alike += bool(value.lower - 1e-9 <= largest <= value.upper + 1e-9)
        exact += found.exact
        sides.append(len(reference))
        both.append(found.cells)
    a, b = statistics.median(ours), statistics.median(theirs)
    yield {"programs": len(ours), "exact": exact, "agree": alike, "reference_cells": statistics.median(sides)}
    yield {"cells": statistics.median(both), "clarke_s": brief(a), "reference_s": brief(b), "ratio": brief(a / b)}
    yield {"slowest_s": brief(max(ours)), "slowest_reference_s": brief(max(theirs))}


def measure_peers(case: Row, rounds: int) -> Iterator[Row]:
    """Time a field with one support value, and a Clarke set."""
    f, x, data = joined(case["shape"], case["kinks"])
    program, d = ns.capture(f, x, *data), np.random.default_rng(0).standard_normal(x.numel())
    found = ns.field(program, x, *data)
    value = found.support(d)
    yield {"exact": found.exact, "ratio_of_bounds": 1.0 if found.exact else brief(value.upper / value.lower)}
    yield {"field_s": brief(seconds(lambda: ns.field(program, x, *data).support(d), rounds)[0])}
    yield {"peak_gib": gibibytes()}
    own, clarke = seconds(lambda: ns.clarke(program, x, *data), rounds)
    yield {"clarke_s": brief(own), "equality": clarke.equality, "cells": clarke.cells, "clarke_exact": clarke.exact}
    yield {"clarke_peak_gib": gibibytes()}


TIMER = r"""
#define main driver_main
#include "DRIVER"
#undef main
#include <algorithm>
#include <chrono>

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int main() {
    std::string word;
    int n = 0, length = 0, rounds = 0;
    enableMinMaxUsingAbs();
    while (std::cin >> word >> n >> length >> rounds) {
        std::vector<double> x(n);
        for (double &entry : x) std::cin >> entry;
        std::vector<Step> steps;
        for (int k = 0; k < length; k++) steps.push_back(read_step());
        double start = now();
        trace_on(TAG);
        {
            std::vector<adouble> inputs(n);
            for (int i = 0; i < n; i++) inputs[i] <<= x[i];
            std::vector<std::vector<adouble>> results;
            for (const Step &step : steps) results.push_back(run(step, results, inputs));
            double value = 0;
            results.back()[0] >>= value;
        }
        trace_off();
        double recorded = now() - start;
        int s = get_num_switches(TAG);
        std::vector<double> y(1), z(s + 1), cz(s + 1), cy(1), times;
        Matrix Y(1, n), J(1, s), Z(s, n), L(s, s);
        for (int i = 0; i < rounds; i++) {
            start = now();
            abs_normal(TAG, 1, n, s, x.data(), y.data(), z.data(), cz.data(), cy.data(), Y.pointers.data(),
                       J.pointers.data(), Z.pointers.data(), L.pointers.data());
            times.push_back(now() - start);
        }
        std::sort(times.begin(), times.end());
        std::printf("%d %.9g %.9g\n", s, recorded, times[times.size() / 2]);
        removeTape(TAG, ADOLC_REMOVE_COMPLETELY);
    }
    return 0;
}
"""
"""The driver of tools/adolc with another main: it times the recording of a tape and `abs_normal` on it."""


def measure_adolc(case: Row, rounds: int) -> Iterator[Row]:
    """Time `ns.abs_normal` and that of ADOL-C on one program, one after the other."""
    from tests.references.field import to_torch

    n, steps, f = switches(case["program"], case["size"])
    x = torch.zeros(n, dtype=torch.float64)
    capture, program = seconds(lambda: ns.capture(f or to_torch(steps), x), 3)
    yield {"capture_s": brief(capture)}
    own, form = seconds(lambda: ns.abs_normal(program, x), rounds)
    yield {
        "switches": form.switches,
        "space": n,
        "ours_s": brief(own),
        "ours_us_a_switch": brief(own / form.switches * 1e6),
    }
    s, recorded, theirs = run_timer(n, steps, max(rounds, 3))
    yield {"adolc_switches": s, "adolc_record_s": brief(recorded), "adolc_s": brief(theirs)}
    yield {"adolc_us_a_switch": brief(theirs / s * 1e6), "ratio": brief(own / form.switches / (theirs / s))}
    yield {"ratio_with_capture_and_tape": brief((own + capture) / (theirs + recorded))}


def switches(kind: str, size: int) -> tuple[int, list[Any], Callable[..., torch.Tensor] | None]:
    """Give a program of switches for ADOL-C as steps of the references, and for torch if it is not those step by step."""
    if kind == "chain":
        steps: list[Any] = [("input", i) for i in range(4)]
        rng, last = random.Random(0), 0
        for _ in range(size):
            terms = [(rng.choice((-2, -1, 1, 2)), i) for i in range(4)]
            steps += [("linear", 0, *terms, (1, last)), ("relu", len(steps))]
            last = len(steps) - 1
        return 4, steps, None
    rng, n, h = random.Random(0), 16, size // 2
    U = [[rng.choice((-2, -1, 1, 2)) for _ in range(n)] for _ in range(h)]
    W = [[rng.choice((-2, -1, 1, 2)) for _ in range(h)] for _ in range(h)]
    steps = [("input", i) for i in range(n)]
    first = []
    for row in U:
        steps += [("linear", 0, *((c, i) for i, c in enumerate(row))), ("relu", len(steps))]
        first.append(len(steps) - 1)
    second = []
    for row in W:
        steps += [("linear", 0, *zip(row, first, strict=True)), ("relu", len(steps))]
        second.append(len(steps) - 1)
    steps.append(("linear", 0, *((1, a) for a in second)))
    A, B = (torch.tensor(M, dtype=torch.float64) for M in (U, W))
    return n, steps, lambda x: torch.relu(B @ torch.relu(A @ x)).sum()


def run_timer(n: int, steps: Iterable[Any], rounds: int) -> tuple[int, float, float]:
    """Build and run the timer: the number of switches, the seconds to record a tape and to evaluate the form."""
    from tools.adolc.run import spaced, step_text

    driver = ROOT / "tools" / "adolc" / "driver.cpp"
    lines = [step_text(step) for step in steps]
    text = "\n".join([f"program {n} {len(lines)} {rounds}", spaced([0] * n), *lines, ""])
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "timer.cpp", Path(folder) / "timer"
        source.write_text(TIMER.replace("DRIVER", str(driver)), encoding="utf-8")
        build = ["g++", "-std=c++14", "-O2", "-w", str(source), "-o", str(binary), "-ladolc"]
        subprocess.run(build, check=True)
        done = subprocess.run([str(binary)], input=text, capture_output=True, text=True, check=True, cwd=folder)
    s, recorded, theirs = done.stdout.split()
    return int(s), float(recorded), float(theirs)


# the parts


MEASURES: dict[str, Callable[[Row, int], Iterator[Row]]] = {
    "sweeps": measure_sweeps,
    "size": measure_size,
    "clarke": measure_clarke,
    "random": measure_random,
    "peers": measure_peers,
    "adolc": measure_adolc,
}
"""What a process of its own can be asked."""


def cases(parts: Iterable[str]) -> Iterator[Row]:
    """List the cases of some parts; what runs in a few milliseconds shares a process."""
    if "sweeps" in parts:
        for shape in ("chain", "pairs", "none"):
            counts = [k for k in CHAINED if shape == "chain" or k % 2 == 0]
            yield {"part": "sweeps", "measure": "sweeps", "limit": 60.0, "shape": shape, "several": ["kinks", counts]}
    for part, sizes in (("size", SIZES), ("clarke", CLARKE)):
        if part in parts:
            for name, counts in sizes.items():
                for size in counts:
                    yield {"part": part, "measure": part, "case": name, "size": size}
    if "clarke" in parts:
        yield {
            "part": "clarke",
            "measure": "random",
            "limit": 75.0,
            "programs": 5,
            "several": ["kinks", [4, 6, 8, 10, 12]],
        }
    if "peers" in parts:
        for shape in ("none", "pairs", "chain"):
            for kinks in (20, 100) if shape == "chain" else (20, 100, 1000):
                yield {"part": "peers", "measure": "peers", "limit": 20.0, "shape": shape, "kinks": kinks}
        if shutil.which("g++") and Path("/usr/include/adolc/adolc.h").exists():
            yield {"part": "peers", "measure": "adolc", "program": "chain", "several": ["size", [12, 100]]}
            yield {"part": "peers", "measure": "adolc", "program": "dense", "several": ["size", [12, 100, 400]]}
        else:
            print("ADOL-C is left out: apt-get install -y --no-install-recommends libadolc-dev g++", flush=True)


def run_case(case: Row, options: argparse.Namespace) -> list[Row]:
    """Run a case in a process of its own and gather what it sends."""
    limit = case.pop("limit", options.limit)
    context, start = multiprocessing.get_context("fork"), time.perf_counter()
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(dict(case), options.rounds, send))
    child.start()
    send.close()
    name, _ = case.pop("several", ["", []])
    rows: dict[int, Row] = {}
    stopped = ""
    while receive.poll(max(0.0, limit - (time.perf_counter() - start))) or not (stopped := f"after {limit:g} s"):
        try:
            value, found = receive.recv()
        except EOFError:
            break
        rows.setdefault(value, {**case, **({name: value} if name else {})}).update(found)
    if stopped:
        child.kill()
    child.join()
    found_rows = list(rows.values()) or [dict(case)]
    if stopped or child.exitcode:
        found_rows[-1]["stopped"] = stopped or f"exit status {child.exitcode}"
    for row in found_rows:
        show(row)
    print(f"  ({time.perf_counter() - start:.1f} s)", flush=True)
    return found_rows


def show(row: Row) -> None:
    """Print a row."""
    print("  ".join(f"{key} {value}" for key, value in row.items() if key not in ("part", "measure")), flush=True)


def work(case: Row, rounds: int, send: Any) -> None:
    """Measure a case in this process; send what is known as soon as it is."""
    name, values = case.pop("several", ["", [0]])
    for value in values:
        send.send((value, {}))
        for found in MEASURES[case["measure"]]({**case, name: value} if name else case, rounds):
            send.send((value, found))


def main() -> None:
    """Run the parts asked for and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=25.0, help="seconds that one case may take")
    parser.add_argument("--parts", nargs="*", default=["sweeps", "size", "clarke", "peers"])
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows = [row for case in cases(options.parts) for row in run_case(case, options)]
    took = round(time.perf_counter() - start)
    print(f"{took} s in all")
    if options.output:
        result = {
            "format_version": 1,
            "torch": torch.__version__.split("+")[0],
            "device": platform.machine(),
            "threads": 1,
            "rounds": options.rounds,
            "limit_s": options.limit,
            "seconds": took,
            "rows": rows,
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
