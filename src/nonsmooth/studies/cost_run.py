"""One cell of the study of cost: a program counted, and measured in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nonsmooth.cost.cost import Cost, count_cost
from nonsmooth.cost.measured import measure_sides, measuring, native_sides
from nonsmooth.derivatives.backprop import capture, value_and_backprop, value_and_grad
from nonsmooth.derivatives.directional import coordinate_derivatives
from nonsmooth.derivatives.lexicographic import forward_subgradient, lexicographic
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.frameworks.stopwatch import Run, Stopwatch
from nonsmooth.program import Program
from nonsmooth.studies.cost_programs import Network, Problem, classifier, relu_network
from nonsmooth.studies.cost_result import NetworkCost, WayCost

__all__ = ["compare_ways", "cost_of_network"]


def cost_of_network(framework: str, images: str, network: Network, rounds: int | None, seed: int = 0) -> NetworkCost:
    """Count and measure the cross-entropy of one network and its gradient."""
    problem = classifier(framework, network, images, seed)
    program = capture(problem.f, problem.x, *problem.data)
    counted = count_cost(program, problem.x, *problem.data, own=False)
    with measuring(program.framework, problem.f, program, problem.x, problem.data) as watch:
        sides = native_sides(watch, program.framework) | {"nonsmooth": _ours(watch, program, problem)}
        measured = measure_sides(watch, sides, rounds)
    return NetworkCost(
        framework=framework,
        images=images,
        network=network.kind,
        layers=network.layers,
        neurons=network.neurons,
        batch=network.batch,
        entries=counted.entries,
        evaluation=counted.evaluation,
        backprop=counted.backprop,
        bound=counted.bound,
        uncounted=counted.uncounted,
        measured=measured,
    )


def _ours(watch: Stopwatch, program: Program, problem: Problem) -> Run:
    """Give backprop with at_kinks=0.5 by the library: compiled where the framework compiles."""
    compiled = watch.compiled(value_and_grad(problem.f, at_kinks=0.5))
    return compiled or Run(lambda: value_and_backprop(program, problem.x, *problem.data, at_kinks=0.5))


def compare_ways(framework: str, p: int, rounds: int, slow_rounds: int, seed: int = 0) -> tuple[WayCost, ...]:
    """Count the ways to differentiate a relu network of p inputs, p wide, at 0, and measure them.

    Those that carry p directions exactly, one after the other, are measured in rounds of their own; without such rounds
    they are counted alone.
    """
    problem = relu_network(framework, p, seed=seed)
    program, x = capture(problem.f, problem.x), problem.x
    contract = program.framework
    counted = count_cost(program, x, own=False, directions=[1, p])
    directions = [contract.draw(x, k) for k in range(p)]
    with measuring(contract, problem.f, program, x, ()) as watch:
        native = iter(native_sides(watch, contract).items())
        value, sides = dict([next(native)]), {"gradient": next(native)[1]}
        sides |= {"backprop": _ours(watch, program, problem), "tangents": watch.forward(directions)}
        sides["subgradient"] = Run(lambda: subgradient(program, x)[:2])
        exact: dict[str, Callable[[], Any]] = {
            "coordinate derivatives": lambda: coordinate_derivatives(program, x),
            "lexicographic": lambda: lexicographic(program, x, directions),
            "forward subgradient": lambda: forward_subgradient(program, x),
        }
        rows = {row.what: row for row in measure_sides(watch, value | sides, rounds).rows}
        if slow_rounds:
            slow = measure_sides(watch, value | {way: Run(call) for way, call in exact.items()}, slow_rounds)
            rows |= {row.what: row for row in slow.rows}
    return tuple(
        WayCost(framework, p, way, operations, operations / counted.evaluation, rows.get(way))
        for way, operations in _counts(counted, p)
    )


def _counts(cost: Cost, p: int) -> Iterator[tuple[str, float]]:
    """Give the operations of every way; p coordinate derivatives are p forward sweeps along one direction each."""
    found = {(d.kind, d.directions): d.operations for d in cost.derivatives}
    yield "gradient", cost.backprop
    yield "backprop", cost.backprop
    yield "subgradient", found["subgradient", 1]
    yield "coordinate derivatives", p * found["directional", 1]
    yield "tangents", found["directional", p]
    yield "lexicographic", found["lexicographic", p]
    yield "forward subgradient", found["lexicographic", p]
