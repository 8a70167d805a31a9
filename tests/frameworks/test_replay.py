"""What the frameworks share of a replay: the same answers on arrays of each, and on numpy's, without any framework."""

from __future__ import annotations

import itertools
import operator
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nonsmooth.dictionary import OPERATIONS, Call
from nonsmooth.dictionary.operation import on_host
from nonsmooth.errors import StaleProgram
from nonsmooth.frameworks.replay import turns
from nonsmooth.frameworks.replay.arrays import difference, fits, size
from nonsmooth.frameworks.replay.dead import dead_along, dead_of_switch, moved_with
from nonsmooth.frameworks.replay.forcing import choices, distance, force
from nonsmooth.frameworks.replay.near import TermScale, near_compared, near_margins
from nonsmooth.frameworks.replay.predicates import SIDES, Predicate, combine, compare, motion_of
from nonsmooth.frameworks.replay.run import Run
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.frameworks.replay.unselected import unselected_entries
from nonsmooth.program import Guard, Program, Ref, Step, Value

REPLAY = Path(__file__).parents[2] / "src" / "nonsmooth" / "frameworks" / "replay"


def namespace(name: str) -> Any:
    """Give the namespace of a framework's arrays, as the framework hands it in."""
    module = {"numpy": "numpy", "torch": "array_api_compat.torch", "jax": "jax.numpy"}[name]
    if name != "numpy":
        pytest.importorskip(name)
    return pytest.importorskip(module)


@pytest.fixture(params=["numpy", "torch", "jax"])
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn; numpy stands for none."""
    return str(request.param)


@pytest.fixture
def nx(framework: str) -> Any:
    """Each namespace in turn."""
    return namespace(framework)


def same(found: Any, expected: Any) -> bool:
    """Compare an array of a framework with one of numpy: shape and entries."""
    return np.asarray(expected).shape == tuple(found.shape) and np.array_equal(on_host(found), expected)


def of(nx: Any, values: Any, dtype: str = "float32") -> Any:
    """Make an array."""
    return nx.asarray(np.asarray(values).tolist(), dtype=getattr(nx, dtype))


def step(name: str, args: tuple[Any, ...] = (), record: str = "compare", **kwargs: Any) -> Step:
    """Make a step with a label."""
    return Step(0, OPERATIONS[record], getattr(operator, name, None), args, kwargs, (1,), label=name)  # type: ignore[arg-type]


# --- predicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDES)
def test_a_comparison_says_what_it_would_be_on_either_side_of_a_tie(nx: Any, name: str) -> None:
    a, compared = of(nx, [[-1.0, 0.0, 2.0]]), getattr(operator, name)
    found = compare(nx, name, a, 0.0, compared(a, 0.0))
    below, above = compared(-1, 0), compared(1, 0)
    assert same(found.left, [[below, below, above]])
    assert same(found.right, [[below, above, above]])
    assert same(found.tie, [[False, True, False]])
    assert same(found.distance, [[1.0, 0.0, 2.0]])


def test_nearly_equal_values_tie_within_the_tolerance(nx: Any) -> None:
    a, b = of(nx, [0.0, 0.5, 2.0]), of(nx, [0.0, 0.25, 0.0])
    assert same(compare(nx, "lt", a, b, a < b, tol=0.25).tie, [True, True, False])
    assert same(compare(nx, "lt", a, b, a < b).tie, [True, False, False])


def test_equal_infinities_tie_at_distance_zero(nx: Any) -> None:
    a = of(nx, [float("inf"), 1.0])
    with np.errstate(invalid="ignore"):  # numpy alone says that inf - inf is no number
        found = compare(nx, "ge", a, a, a >= a)
    assert same(found.tie, [True, True])
    assert same(found.distance, [0.0, 0.0])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32"])
def test_integers_and_booleans_are_compared_with_a_sign(nx: Any, dtype: str) -> None:
    a, b = of(nx, [0, 1, 1], dtype), of(nx, [1, 1, 0], dtype)
    assert same(compare(nx, "eq", a, b, a == b).distance, [1.0, 0.0, 1.0])


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_number_beside_a_double_is_a_double(nx: Any) -> None:
    a = of(nx, [0.1], "float64")
    found = compare(nx, "gt", a, 0.1, a > 0.1)
    assert same(found.tie, [True])
    assert choices(nx, step("gt", (Ref(0), 0.1)), (a, 0.1), {}) == [(0, (-1, 1))]


def test_a_program_ties_at_a_number_that_single_precision_has_not() -> None:
    torch = pytest.importorskip("torch")
    import nonsmooth as ns

    x = torch.tensor([0.1], dtype=torch.float64)
    assert ns.kinks(lambda x: torch.where(x > 0.1, 2 * x - 0.1, x).sum(), x).count == 1


def test_directions_decide_ties_the_first_one_first(nx: Any) -> None:
    value = of(nx, [False, False, False, True], "bool")
    tie = of(nx, [True, True, True, False], "bool")
    moved = [of(nx, [1.0, 0.0, 0.0, 9.0]), of(nx, [-1.0, 2.0, 0.0, 9.0])]
    assert same(motion_of(nx, "gt", value, tie, moved, 1.0, 2).along, [True, True, False, True])
    assert same(motion_of(nx, "gt", value, tie, moved, 1.0, 1).along, [True, False, False, True])
    assert same(motion_of(nx, "gt", value, tie, moved, 1.0, 2).moved[0], [1.0, 0.0, 0.0, 0.0])
    noisy = [of(nx, [1e-7, 0.0, 0.0, 0.0])]
    assert same(motion_of(nx, "gt", value, tie, noisy, 1.0, 1).along, [False, False, False, True])


@pytest.mark.parametrize("logic", [operator.and_, operator.or_, operator.xor])
def test_a_boolean_operation_is_applied_to_both_sides(nx: Any, logic: Any) -> None:
    a, b = of(nx, [0.0, 0.0, 1.0, -1.0]), of(nx, [0.0, 1.0, 0.0, 0.0])
    parts = [compare(nx, "gt", a, 0.0, a > 0), compare(nx, "le", b, 0.0, b <= 0)]
    known = {id(p.value): p for p in parts}
    values = parts[0].value, parts[1].value
    found = combine(nx, logic, values, {}, logic(*values), lambda t: known.get(id(t)))
    sides = [[on_host(getattr(p, side)) for side in ("left", "right")] for p in parts]
    mixtures = [[logic(u, v) for v in sides[1]] for u in sides[0]]
    one = on_host(parts[0].tie) ^ on_host(parts[1].tie)
    for k, side in enumerate(("left", "right")):
        assert same(on_host(getattr(found, side))[one], mixtures[k][k][one])
    assert same(found.tie, np.any([m != on_host(found.value) for row in mixtures for m in row], axis=0))
    assert same(
        found.tie, (on_host(found.left) != on_host(found.value)) | (on_host(found.right) != on_host(found.value))
    )


def test_a_reduction_of_predicates_is_as_far_as_the_nearest(nx: Any) -> None:
    a = of(nx, [3.0, -2.0, 1.0])
    part = compare(nx, "gt", a, 0.0, a > 0)
    found = combine(nx, nx.any, (part.value,), {}, nx.any(part.value), lambda t: part if t is part.value else None)
    assert same(found.distance, 1.0)
    assert same(found.tie, False)


def test_where_two_comparisons_tie_none_speaks_for_both(nx: Any) -> None:
    a = of(nx, [0.0, 0.0, 1.0])
    b = of(nx, [0.0, 1.0, 0.0])
    parts = []
    for x in (a, b):
        value = x > 0
        tie = x == 0
        motion = motion_of(nx, "gt", value, tie, [of(nx, [1.0, 1.0, 1.0])], 1.0, 1)
        parts.append(compare(nx, "gt", x, 0.0, value, lambda tie, m=motion: m))
    known = {id(p.value): p for p in parts}
    values = parts[0].value, parts[1].value
    found = combine(nx, operator.and_, values, {}, values[0] & values[1], lambda t: known.get(id(t)))
    assert found.motion is not None
    assert same(found.motion.several, [True, False, False])
    assert same(found.motion.moved[0], [2.0, 1.0, 1.0])
    assert same(found.along, [True, True, True])


def test_what_compares_nothing_ties_nowhere(nx: Any) -> None:
    value = of(nx, [True, False], "bool")
    found = combine(nx, operator.inv, (value,), {}, ~value, lambda t: None)
    assert same(found.tie, [False, False])
    assert same(found.distance, [np.inf, np.inf])
    assert same(Predicate.untied(nx, value).along, [True, False])


# --- outcomes that are forced -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("seed", range(5))
def test_the_tied_places_of_an_argmax(nx: Any, name: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (4, 5)).astype(np.float32)
    array, best = of(nx, values), values.max if name == "argmax" else values.min
    for axis in (0, 1, None):
        rows = (values.reshape(1, -1),) if axis is None else (np.moveaxis(values, axis, -1),)
        best = (np.max if name == "argmax" else np.min)(rows[0], axis=1)
        places = [np.flatnonzero(row == b).tolist() for row, b in zip(rows[0], best, strict=True)]
        expected = [(i, tuple(p)) for i, p in enumerate(places) if len(p) > 1]
        assert choices(nx, step(name), (array, axis), {}) == expected
        assert choices(nx, step(name), (array,), {"dim": axis}) == expected
        if axis is not None:
            assert choices(nx, step(name), (array,), {"axes": (axis,)}) == expected
        first, second = distance(nx, step(name), (array, axis), {})
        ordered = np.sort(rows[0] if name == "argmax" else -rows[0], axis=1)
        assert same(first, ordered[:, -1])
        assert same(second, ordered[:, -2])


def test_equal_arrays_and_zero_numbers_can_be_forced(nx: Any) -> None:
    a = of(nx, [1.0, 2.0])
    assert choices(nx, step("equal"), (a, a), {}) == [(0, (0, 1))]
    assert choices(nx, step("equal"), (a, a + 1), {}) == []
    assert choices(nx, step("is_nonzero"), (of(nx, 0.0),), {}) == [(0, (0, 1))]
    assert choices(nx, step("is_nonzero"), (of(nx, 1.0),), {}) == []
    assert same(distance(nx, step("equal"), (a, a + 3), {})[0], 3.0)


def test_forcing_changes_a_copy(nx: Any) -> None:
    value = of(nx, [[False, True], [True, False]], "bool")
    assert same(force(nx, "gt", value, ((0, 1), (2, -1))), [[True, True], [False, False]])
    assert same(force(nx, "lt", value, ((0, 1), (2, -1))), [[False, True], [True, False]])
    assert same(value, [[False, True], [True, False]])
    assert same(force(nx, "argmax", of(nx, [0, 3], "int32"), ((1, 2),)), [0, 2])
    assert force(nx, "equal", True, ((0, 0),)) is False


def test_a_tied_guard_names_what_decides_it(nx: Any) -> None:
    a = of(nx, [0.0, 1.0])
    (tie,) = turns.ties_of(nx, step("gt", (Ref(0), 0.0)), (a, 0.0), {})
    assert (float(tie.arguments), tie.sign, tie.equality, tie.own) == (0.0, -1, False, True)
    nodes = (a + 7, 0.0), {}
    (tie,) = turns.ties_of(nx, step("gt", (Ref(0), 0.0)), (a, 0.0), {}, nodes)
    assert float(tie.arguments) == 7.0
    row = of(nx, [[2.0, 1.0, 2.0]])
    arg = Step(
        0, OPERATIONS["compare"], lambda t: nx.argmax(t, axis=1), (Ref(0),), {"axes": (1,)}, (1,), label="argmax"
    )
    target = SimpleNamespace(label="argmax", forced=(), target=lambda t, axes: arg.target(t))
    (tie,) = turns.ties_of(nx, target, (row,), {"axes": (1,)})  # type: ignore[arg-type]
    assert same(tie.arguments, [0.0])
    assert tie.wins == (True,)


# --- near ties, dead and unselected entries ---------------------------------------------------------------------------


def program_of(*shapes: tuple[int, ...], steps: Sequence[Step] = (), result: Any = None, **options: Any) -> Program:
    """Make a program by hand, of values that depend on the point."""
    values = tuple(Value(f"v{i}", s, "float64", True, True) for i, s in enumerate(shapes))
    return Program(None, lambda x: x, values, tuple(steps), {}, (0,), (), result, None, **options)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_margin_that_rounding_explains_is_near_in_double_precision(nx: Any) -> None:
    relu = OPERATIONS["relu"]
    x = of(nx, [1e-17, 1e-3, 1.0], "float64")
    call = Call(nx, (x,), {}, nx.where(x > 0, x, nx.zeros_like(x)))
    at = Step(0, relu, lambda t: t, (Ref(0),), {}, (1,), (Ref(0),))
    near = near_margins(relu, call, at, lambda value: 1.0)
    assert near is not None
    assert same(near, [True, False, False])
    assert near_margins(relu, call, at, lambda value: 1e-9) is None
    assert same(near_compared(nx, step("gt", (Ref(0), 0.0)), (x, 0.0), lambda value: 1.0), [True, False, False])


def test_in_single_precision_nothing_is_near(nx: Any) -> None:
    x = of(nx, [1e-17, 1.0])
    assert near_compared(nx, step("gt", (Ref(0), 0.0)), (x, 0.0), lambda value: 1.0) is None


def test_the_size_of_terms_is_sought_through_sums_and_products(nx: Any) -> None:
    steps = [
        Step(0, OPERATIONS["mul"], operator.mul, (Ref(0), Ref(1)), {}, (2,), (Ref(0), Ref(1))),
        Step(1, OPERATIONS["sub"], operator.sub, (Ref(2), Ref(0)), {}, (3,), (Ref(2), Ref(0))),
    ]
    env = {0: of(nx, [3.0, -4.0]), 1: of(nx, [5.0, 2.0]), 2: of(nx, [15.0, -8.0]), 3: of(nx, [0.0, 0.0])}
    scale = TermScale(nx, program_of((2,), (2,), (2,), (2,), steps=steps), env)
    assert scale.of(3) == 20.0


def test_entries_of_slope_zero_are_dead(nx: Any) -> None:
    relu, x = OPERATIONS["relu"], of(nx, [-1.0, 0.0, 2.0])
    call = Call(nx, (x,), {}, nx.where(x > 0, x, nx.zeros_like(x)))
    assert dead_of_switch(relu, call, True).flats == (0.0,)  # type: ignore[arg-type]
    for weight, expected in ((0.0, [1, 1, 0]), (1.0, [1, 0, 0])):
        mask = dead_along(relu, call, {"0": weight}).mask  # type: ignore[arg-type]
        assert mask is not None
        assert same(mask(), expected)


def test_dead_entries_move_with_the_values(nx: Any) -> None:
    relu, x = OPERATIONS["relu"], of(nx, [-1.0, 2.0])
    call = Call(nx, (x,), {}, nx.where(x > 0, x, nx.zeros_like(x)))
    known = {1: dead_along(relu, call, {"0": 0.0})}  # type: ignore[arg-type]
    reshaped = Step(1, OPERATIONS["reshape"], nx.reshape, (Ref(1), (2, 1)), {}, (2,), (Ref(1),))
    moved = moved_with(reshaped, 2, known, lambda: (((2, 1),), {}))
    assert moved is not None
    assert moved.mask is not None
    assert same(moved.mask(), [[1.0], [0.0]])


def unselected_by_loops(route: Any, shape: tuple[int, ...], masks: Mapping[int, Any]) -> Any:
    """Mark the unselected entries one by one, by their definition."""
    if route[0] == "all":
        marks = [unselected_by_loops(r, shape, masks) for r in route[1]]
        return np.array([all(m[i] for m in marks) for i in np.ndindex(shape)]).reshape(shape)
    _, where, branch, onward = route
    weight = masks[where.index]
    later = np.zeros(weight.shape, bool) if onward is None else unselected_by_loops(onward, weight.shape, masks)
    marks = np.ones(shape, bool)
    for place in np.ndindex(np.broadcast_shapes(weight.shape, shape)):
        at = tuple(0 if n == 1 else i for i, n in zip(place[len(place) - len(shape) :], shape, strict=True))
        cell = tuple(0 if n == 1 else i for i, n in zip(place[len(place) - weight.ndim :], weight.shape, strict=True))
        marks[at] &= weight[cell] == (1 if branch == 2 else 0) or later[cell]
    return marks


@pytest.mark.parametrize("seed", range(10))
def test_unselected_entries_are_those_of_the_definition(nx: Any, seed: int) -> None:
    draw = np.random.default_rng(seed)
    shapes = [(3, 4), (1, 4), (3, 1), (2, 3, 4)]
    masks = {k: draw.choice([0.0, 0.5, 1.0], size=shapes[draw.integers(4)]).astype(np.float32) for k in range(4)}
    wheres = [SimpleNamespace(index=k) for k in range(4)]

    def route(depth: int) -> Any:
        if depth and draw.random() < 0.6:
            return "all", tuple(route(depth - 1) for _ in range(draw.integers(1, 4)))
        onward = route(depth - 1) if depth and draw.random() < 0.5 else None
        return "where", wheres[draw.integers(4)], int(draw.integers(1, 3)), onward

    for _ in range(5):
        path = ("all", (route(2), route(2)))
        found = unselected_entries(nx, path, (3, 4), {k: of(nx, m) for k, m in masks.items()})
        try:
            expected = unselected_by_loops(path, (3, 4), masks)
        except ValueError:  # shapes that do not fit one another
            continue
        assert same(found, expected)


def test_a_where_that_has_not_run_says_nothing(nx: Any) -> None:
    route = ("all", (("where", SimpleNamespace(index=3), 1, None),))
    assert unselected_entries(nx, route, (2,), {}) is None


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_sizes_and_differences(nx: Any) -> None:
    assert size(nx, of(nx, [1.0, -3.0])) == 3.0
    assert size(nx, nx.zeros((0, 2))) == size(nx, None) == 0.0
    assert same(difference(nx, of(nx, [True, False], "bool"), of(nx, [True, True], "bool")), [0.0, -1.0])


def test_shapes_fit_as_broadcasting_has_it() -> None:
    shapes = [s for n in range(4) for s in itertools.product((0, 1, 2), repeat=n)]
    for shape, target in itertools.product(shapes, shapes):
        try:
            expected = np.broadcast_to(np.zeros(shape), target).shape == target
        except ValueError:
            expected = False
        assert fits(shape, target) == expected, (shape, target)


# --- a run without any framework --------------------------------------------------------------------------------------


class PlainRun(Run):
    """A run over arrays of numpy."""

    xp = np

    def same(self, outcome: Any, recorded: Any) -> bool:
        return bool(np.array_equal(outcome, recorded))


class PlainTangents(Tangents):
    """Tangents through steps that are linear in one operand."""

    xp = np

    def push_forward(
        self, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Any], known: Sequence[bool], lost: bool
    ) -> list[Any]:
        return [step.target(*(tangents.get(a.value, read[a.value]) if isinstance(a, Ref) else a for a in step.args))]


def by_hand() -> Program:
    """Write down sum(relu(x)) + where(x[0] > 1, ..), with a guard on any(x > 0)."""

    def made(index: int, record: str, target: Any, args: tuple[Any, ...], label: str = "") -> Step:
        refs = tuple(a for a in args if isinstance(a, Ref))
        return Step(index, OPERATIONS[record], target, args, {}, (index + 1,), refs, label=label)

    steps = [
        made(0, "relu", lambda t: np.maximum(t, 0.0), (Ref(0),)),
        made(1, "compare", np.greater, (Ref(0), 1.0), "gt"),
        made(2, "where", np.where, (Ref(2), Ref(1), Ref(0))),
        made(3, "sum", np.sum, (Ref(3),)),
    ]
    kinds = ["float64", "float64", "bool", "float64", "float64"]
    values = tuple(Value(f"v{i}", (3,) if i < 4 else (), k, k != "bool", True) for i, k in enumerate(kinds))
    return Program(None, np.sum, values, tuple(steps), {}, (0,), (), Ref(4), None)


def test_a_run_asks_for_the_rules_of_active_kinks_and_writes_them_down() -> None:
    program, x = by_hand(), np.array([-1.0, 0.0, 1.0])
    met = []

    def select(step: Step, call: Call, masks: Any) -> Any:
        met.append(step.index)
        return dict.fromkeys(masks, 0.5)

    run = PlainRun(program, {0: x}, select=select, observe=True)
    evaluation = run.evaluate([x])
    assert evaluation.result == np.sum(np.where(x > 1, np.maximum(x, 0), x))
    assert met == [0, 2]
    assert {k: rules for k, (_, _, rules) in run.ruled.items()} == {0: {"0": 0.5}, 2: {"tie": 0.5}}
    assert same(run.masks[2], [0.0, 0.0, 0.5])
    assert [c.step.index for c in evaluation.calls] == [0, 2]


def test_a_run_carries_tangents_that_decide_the_kinks() -> None:
    from nonsmooth.dictionary.operation import Along

    program, x = by_hand(), np.array([-1.0, 0.0, 1.0])
    direction = np.array([1.0, -1.0, 2.0])
    env: dict[int, Any] = {0: x}
    tangents = PlainTangents(program, env, [lambda: [direction]], 1, False)

    def select(step: Step, call: Call, masks: Any) -> Any:
        assert call.tangents is not None
        return dict.fromkeys(masks, Along((call.tangents(0),)))

    evaluation = PlainRun(program, env, select=select, tangents=tangents).evaluate([x])
    moved, t = evaluation.tangents.of(4, 0), 1e-6
    ahead = np.sum(np.where(x + t * direction > 1, np.maximum(x + t * direction, 0), x + t * direction))
    assert moved == pytest.approx((ahead - evaluation.result) / t)
    assert evaluation.bad == []
    assert [d.step.index for d in evaluation.decided] == [0, 2]


def test_a_run_checks_the_guards_of_its_program() -> None:
    program = by_hand()
    seen = Step(4, OPERATIONS["logic"], np.any, (Ref(2),), {}, (None,), (Ref(2),), label="any")
    guarded = Program(
        **{**{f: getattr(program, f) for f in program.__dataclass_fields__}, "steps": (*program.steps, seen)}
        | {"guards": (Guard(4, "branch", np.True_, None, (1,)),)}
    )
    assert PlainRun(guarded, {0: np.array([0.0, 0.0, 2.0])}).evaluate([]).result == 2.0
    with pytest.raises(StaleProgram, match="comes out differently"):
        PlainRun(guarded, {0: np.zeros(3)}).evaluate([])


# --- layout -----------------------------------------------------------------------------------------------------------


def test_it_is_imported_without_any_framework() -> None:
    modules = ", ".join(f"nonsmooth.frameworks.replay.{p.stem}" for p in sorted(REPLAY.glob("[a-z]*.py")))
    script = (
        f"import sys\nimport {modules}\n"
        "found = {m.partition('.')[0] for m in sys.modules} & {'torch', 'jax', 'tensorflow', 'keras'}\n"
        "folders = [m for m in sys.modules if m.startswith(('nonsmooth.frameworks.torch', 'nonsmooth.frameworks.jax'))]\n"
        "assert not found and not folders, (found, folders)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
