"""What a framework must offer: capture a function, and evaluate a program under a selection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nonsmooth.dictionary.operation import Array, Call, Rule
from nonsmooth.dictionary.weights import Block, Floats
from nonsmooth.errors import PointError
from nonsmooth.frameworks.own_backward import OwnBackward
from nonsmooth.frameworks.replay.stepwise import Stepwise
from nonsmooth.frameworks.stopwatch import Stopwatch
from nonsmooth.program import Program, Step
from nonsmooth.program.shaped import ShapedCall

__all__ = [
    "ROUNDING",
    "CutCall",
    "Evaluation",
    "Framework",
    "GuardTie",
    "Linearised",
    "NonsmoothCall",
    "Quick",
    "Select",
    "Severed",
    "Turn",
    "find_framework",
]

ROUNDING = 8.0
"""How many units of rounding, relative to the scale of its terms, a number must exceed to be told from zero."""

Select = Callable[[Step, Call, Mapping[str, Array]], "Mapping[str, Rule] | None"]
"""A selection as the evaluation asks it: step, call and masks of the active kinks -> rules; None keeps the native ones."""


@dataclass
class NonsmoothCall:
    """What an evaluation met at a step that is not smooth."""

    step: Step
    call: Call
    output: Any
    rules: Mapping[str, Rule] | None = None
    mask: Any = None
    near: bool = False


@dataclass(frozen=True)
class Turn:
    """A tied element of what an `if` on data compares, and the side to which a direction takes it.

    `key` is (ordinal of the comparison, element), `choice` the outcome along the direction (None where the direction
    leaves it tied), `turned` whether it differs from that of the program. `others` are the outcomes beside that (None
    for the one that comes out by itself), each with the tangents of the difference that decides against it; `empty`
    marks an equality, one side of which has no interior.
    """

    step: Step
    key: tuple[int, int]
    choice: int | None
    turned: bool
    others: tuple[tuple[int | None, tuple[float, ...]], ...]
    scale: float
    empty: bool = False


@dataclass
class CutCall:
    """A step cut at its active kinks: the blocks, and for each the framework's nodes of u, of the jumps z, of arguments."""

    step: Step
    call: Call
    rules: Mapping[str, Rule]
    blocks: list[Block]
    outputs: list[Any]
    jumps: list[Any]
    arguments: list[Any]


@dataclass
class GuardTie:
    """A tied element of what an `if` on data compares, in a run that is cut.

    `arguments` is the framework's node of the differences that decide, one or several; the outcome of this program is
    that of `sign` (1: all of them positive, -1: negative, 0: any that is not zero), or of an `equality`: all of them
    zero. `own` says whether the outcome is the one that comes out by itself, `wins` whether it is where one of the
    differences stays zero.
    """

    step: Step
    arguments: Any
    sign: int
    equality: bool
    own: bool
    wins: tuple[bool, ...]


@dataclass(frozen=True)
class Severed:
    """A place where the result depends on the point in a way that no derivative sees."""

    rule: str
    step: Step
    message: str


@dataclass
class Evaluation:
    """A program evaluated at a point: its result, and what it met on the way if that was asked for.

    Where tangents were carried: `decided` are the steps with active kinks and the rules that decided them, `bad` those
    at a jump or a singular point, or so near a kink that rounding decides, `turns` the tied elements behind guards.
    Where it was cut: `cuts`, the tied elements behind guards (`ties`), and the steps that are not piecewise affine
    (`curved`). `trail` is what the framework itself keeps to differentiate the evaluation later.
    """

    result: Any
    leaves: list[Any]
    calls: list[NonsmoothCall] = field(default_factory=list)
    program: Program | None = None
    decided: list[NonsmoothCall] = field(default_factory=list)
    bad: list[NonsmoothCall] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    tangents: Any = None
    cuts: list[CutCall] = field(default_factory=list)
    ties: list[GuardTie] = field(default_factory=list)
    curved: list[Step] = field(default_factory=list)
    trail: Any = None


@dataclass(frozen=True)
class Quick:
    """A subgradient with what its certificate says, from a framework that can decide the common case by itself.

    `draw` counts the directions up to the one that decided; 0 where no kink was active.
    """

    value: Any
    gradient: Any
    kinks: int
    margin: float
    draw: int


class Linearised(Protocol):
    """A program cut at its active kinks, as linear maps between flat arrays of numpy.

    With d a change of the point, u what the blocks add to their results and z their jumps, in the order of the program:

        z = Z d + L u,    dF = J d + Y u.
    """

    evaluation: Evaluation

    def start(self) -> tuple[Floats, Floats]:
        """Give J and Y, for a scalar result."""
        ...

    def jacobian(self) -> tuple[Floats, Floats]:
        """Give J and Y of the entries of all results, laid out in a row: one reverse sweep for each of them."""
        ...

    def pull(self, seeds: Floats, *, arguments: bool = False) -> tuple[Floats, Floats]:
        """Give seeds' Z and seeds' L (of what `where`s compare instead of their jumps, if asked): a reverse sweep."""
        ...

    def pull_results(self, seeds: Floats) -> tuple[Floats, Floats]:
        """Give seeds' J and seeds' Y, for seeds of the entries of all results: a reverse sweep."""
        ...

    def rows(self, node: Any) -> tuple[Floats, Floats]:
        """Give the derivatives of the entries of a node with respect to the point and to the u, one reverse sweep each."""
        ...

    def rounding(self, part: slice | None = None) -> float:
        """Estimate the rounding of J (of some of its entries), as a length: relative to the terms it was summed from."""
        ...

    def interactions(self, seeds: Floats) -> Floats:
        """Give seeds' L alone: a reverse sweep that stops at the first active kinks."""
        ...

    def push(self, direction: Floats) -> Floats:
        """Give Z d: a forward sweep."""
        ...


class Framework(Protocol):
    """The contract of a framework. Only `frameworks/` knows one."""

    name: str
    traces: bool
    xp: Any

    def replay(self, program: Program, leaves: list[Any], items: list[Any], *, observe: bool = False) -> Evaluation:
        """Run a program as it is on given leaves."""
        ...

    def relu(self, array: Any) -> Any:
        """Give max(0, x) of every entry by the framework's own function, for the networks that the library writes."""
        ...

    def data_arrays(self, data: tuple[Any, ...]) -> list[Any]:
        """Give the arrays of the data."""
        ...

    def run_program(self, program: Program, leaves: list[Any], items: list[Any]) -> Any:
        """Run the steps of a program with the framework's own gradients."""
        ...

    def smoothed_pieces(
        self, u: Any, width: float, breakpoints: Sequence[float], slopes: Sequence[float], value: float
    ) -> Any:
        """Give the averages over [u - width, u + width] of a function that is linear between breakpoints."""
        ...

    def smoothed_max(self, u: Any, temperature: float) -> Any:
        """Give the smoothed maximum along the last axis."""
        ...

    def holds(self, leaf: Any) -> bool:
        """Tell an array of this framework."""
        ...

    def data_leaves(self, data: tuple[Any, ...]) -> list[Any]:
        """Give the arrays of the data, shapes alone among them."""
        ...

    def has_values(self, leaf: Any) -> bool:
        """Tell an array that has values from a shape alone."""
        ...

    def leaf_names(self, tree: Any, root: str) -> list[str]:
        """Name the leaves of a tree by their path in it."""
        ...

    def detached(self, array: Any) -> Any:
        """Give an array without its graph."""
        ...

    def value_and_grad(
        self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], select: Select | None, has_aux: bool = False
    ) -> tuple[Any, Any]:
        """Give the value and the gradient of a function under a selection, where the framework `traces` functions.

        With `has_aux` the function gives a pair, of which the first is differentiated.
        It may be called with tracers: inside of the framework's own transformations.
        """
        ...

    def array_like(self, leaf: Any, values: Any) -> Any:
        """Make an array of the type of a leaf."""
        ...

    def differentiate(
        self, function: Callable[[list[Any]], Any], leaves: list[Any], cotangent: list[Any] | None, wanted: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a function by the framework alone: its floating results, and the pullback of a cotangent (ones if None).

        The pullback is zero where it is not `wanted`.
        """
        ...

    def capture(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], **options: Any) -> Program:
        """Turn a function into a program near a point, with the proof of capture."""
        ...

    def trace(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> Program:
        """Turn a function into a program from the shapes of point and data alone, without a proof.

        Raises:
            CaptureError: the function asks for values, so that one program does not serve a whole set of points.
        """
        ...

    def step_by_step(self, program: Program, leaves: Sequence[Any], items: Sequence[Any]) -> Stepwise:
        """Start a program at leaves and data, of which None and shapes alone are unknown."""
        ...

    def evaluate(
        self,
        program: Program,
        x: Any,
        data: tuple[Any, ...],
        *,
        select: Select | None = None,
        observe: bool = False,
        directions: Sequence[Any] | None = None,
        deciding: int = 1,
        wide: bool = False,
    ) -> Evaluation:
        """Evaluate a program at a point, recaptured if it is stale there, under a selection.

        With `directions`, trees like the point or functions that give them when they are needed, calls can be asked
        for the tangents of their operands; the first `deciding` of them decide comparisons that tie.
        `wide` carries the tangents in double precision.
        """
        ...

    def quick(
        self,
        program: Program,
        x: Any,
        data: tuple[Any, ...],
        follow: Select,
        directions: Sequence[Callable[[], Any]],
    ) -> Quick | None:
        """Give a certified subgradient where one of some directions decides every kink and nothing else is in the way.

        `follow` is the selection that lets a direction decide. None where that is not so, or where the framework has
        no faster way than to evaluate.
        """
        ...

    def linearise(self, program: Program, x: Any, data: tuple[Any, ...], tol: float = 0.0) -> Linearised:
        """Cut a program at the kinks within some distance of a point."""
        ...

    def flat_like(self, x: Any, tree: Any, what: str = "a vector") -> Floats:
        """Lay out a tree of the structure of the point, or refuse one of another."""
        ...

    def unflatten_flat(self, x: Any, vector: Floats) -> Any:
        """Put a flat array of numpy into the structure of the point."""
        ...

    def flat(self, tree: Any) -> Floats:
        """Lay a tree of arrays out as one flat array of numpy."""
        ...

    def push(self, evaluation: Evaluation, k: int) -> Any:
        """Give the tangent of the result along the k-th direction, in the result's structure."""
        ...

    def force(
        self, program: Program, x: Any, data: tuple[Any, ...], outcomes: Mapping[tuple[int, int], int]
    ) -> Program:
        """Capture the function again with the outcomes of tied comparisons forced; see `Turn`."""
        ...

    def rewrites(self, program: Program) -> bool:
        """Tell whether the program writes in place, so that tangents must be carried beside the values."""
        ...

    def severed(self, program: Program, x: Any, data: tuple[Any, ...]) -> tuple[Severed, ...]:
        """List where the result depends on the point through what carries no derivative at this point."""
        ...

    def cancelled(self, program: Program) -> frozenset[int]:
        """Give the steps that cut a value off on which the result provably does not depend."""
        ...

    def reached(self, program: Program) -> set[int]:
        """Give the steps on which the result depends."""
        ...

    def shaped(self, program: Program, step: Step) -> ShapedCall:
        """Give a step as what is known of it before any evaluation: shapes, and which of its arrays move."""
        ...

    def own_backward(self, program: Program, x: Any, data: tuple[Any, ...]) -> OwnBackward:
        """Give what the framework itself runs for the value and the gradient of a program's function."""
        ...

    def draw(self, x: Any, seed: int, digits: int = 1) -> Any:
        """Draw a direction like the point, its entries multiples of 1/256 in [-1, 1] and not 0 (finer with more digits)."""
        ...

    def scalar(self, evaluation: Evaluation) -> Any:
        """Give the scalar result, or say that it is none."""
        ...

    def signature(self, x: Any, data: tuple[Any, ...]) -> Any:
        """Give what a program depends on beside values, as a key."""
        ...

    def cotangents(self, evaluation: Evaluation, outputs: list[Any]) -> list[Any]:
        """Give the derivative of the result with respect to outputs of steps."""
        ...

    def compared(self, program: Program, x: Any, data: tuple[Any, ...], steps: frozenset[int]) -> dict[int, Any]:
        """Give |a - b| for the comparisons at some steps."""
        ...

    def pieces(self, program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
        """Walk the programs that are active at the point."""
        ...

    def outcomes(self, program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
        """Walk the programs of all outcomes of the tied elements behind guards, also where several give the same one."""
        ...

    def check_point(self, x: Any) -> list[Any]:
        """Give the leaves of the point, or say why it cannot be differentiated at."""
        ...

    def flatten(self, tree: Any) -> tuple[list[Any], Any]:
        """Give the leaves of a tree and its structure."""
        ...

    def unflatten(self, leaves: list[Any], structure: Any) -> Any:
        """Put leaves back into their structure."""
        ...

    def copy_of(self, leaf: Any) -> Any:
        """Copy a leaf of the data."""
        ...

    def preserved(self, leaves: Any) -> AbstractContextManager[Any]:
        """Put the contents of arrays back at the end."""
        ...

    def random_generators(self) -> Any:
        """Keep the states of all random generators: `.put()` puts them back, `.drawn_since()` names those that drew."""
        ...

    def records_gradients(self) -> bool:
        """Tell whether the framework records gradients here and now."""
        ...

    def numpy(self, array: Any) -> Any:
        """Give the values of an array to numpy."""
        ...

    def arrays(self, tree: Any) -> list[Any]:
        """Give the leaves of a tree of arrays to numpy."""
        ...

    def stack(self, trees: list[Any]) -> Any:
        """Stack trees of arrays of one structure along a new last axis."""
        ...

    def combine(self, trees: Sequence[Any], weights: Sequence[float]) -> Any:
        """Add trees of arrays up, each times a number."""
        ...

    def finite(self, tree: Any) -> bool:
        """Tell whether all entries of a tree of arrays are finite."""
        ...

    def eps(self, tree: Any) -> float:
        """Give the unit of rounding of the arrays of a tree."""
        ...

    def unforced(self, program: Program) -> Program:
        """Give a program whose ties come out as they do by themselves."""
        ...

    def holds_at(
        self, program: Program, x: Any, data: tuple[Any, ...], directions: Sequence[Any], distance: float
    ) -> bool:
        """Tell whether the program, its guards unforced, is that of the function at x + t v_1 + t^2 v_2 + ...

        t is the distance times the square root of rounding, relative to the size of the point and the direction.
        """
        ...

    def columns(self, x: Any, directions: Any) -> list[Any]:
        """Read directions: a list of trees like the point, or for an array one array whose last axis counts them."""
        ...

    def units(self, x: Any) -> list[Any]:
        """Give the unit vectors of the point's space, one for each of its entries."""
        ...

    def unflatten_entries(self, x: Any, entries: Any) -> Any:
        """Put one number for each entry of the point into its structure."""
        ...

    def pull(self, evaluation: Evaluation) -> Any:
        """Give the gradient of a scalar result with respect to the point, in the point's structure."""
        ...

    def stopwatch(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> Stopwatch:
        """Give the clock for a function at a point, and the framework's own ways to differentiate it."""
        ...


def find_framework(x: Any) -> Framework:
    """Find the framework from the type of the point, without importing any that the user has not.

    Raises:
        PointError: no leaf of the point is an array of a framework that is served.
    """
    loaded = list(_loaded())
    holding = [framework for framework in loaded if any(map(framework.holds, framework.flatten(x)[0]))]
    if len(holding) > 1:
        raise PointError(
            f"the point x holds arrays of {' and of '.join(f.name for f in holding)}: make all of them of one."
        )
    if holding:
        return holding[0]
    plain = [
        t for framework in loaded for t in framework.flatten(x)[0] if isinstance(t, float | np.ndarray | np.generic)
    ]
    if len(loaded) > 1 and plain:
        raise PointError(
            f"the point x is differentiated, so that it must be made of tensors (in JAX: arrays); found a "
            f"{type(plain[0]).__name__}, which does not tell the framework: pass torch.as_tensor(...) or jnp.asarray(...). "
            "Pass what is not differentiated as data: f(x, *data)."
        )
    if loaded:  # what the point is made of is said by the check of the point
        return loaded[0]
    raise PointError(
        f"the point is a {type(x).__module__}.{type(x).__name__}; nonsmooth differentiates programs of PyTorch and JAX: "
        "pass a torch.Tensor or a jax.Array, or a tree of them."
    )


def _loaded() -> Iterator[Framework]:
    """Walk the frameworks that the user has imported."""
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch import TORCH

        yield TORCH
    if "jax" in sys.modules:
        from nonsmooth.frameworks.jax import JAX

        yield JAX
