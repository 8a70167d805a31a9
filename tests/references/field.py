"""The values of backprop under all selections, by the chain rule in fractions, one selection after the other.

A program is a list of steps (operation, arguments) on scalars; numbers of earlier steps are its operands, the last step
is its value:

    ("input", i)                    x_i
    ("linear", c, (c1, a), ...)     c + c1 a + ...
    ("mul", a, b)                   a b
    ("relu", a), ("abs", a)
    ("max", a, b, ...), ("min", a, b, ...)
    ("sort", a, b, ...)             increasing; a tuple, for "item" alone
    ("item", k, s)                  entry k of the sort s
    ("clamp", low, high, a)         low < high
    ("where", p, a, b)              a where p > 0, else b

D(x) is the set of the gradients under every independent choice of a piece at every step whose operands tie at x. A
"where" whose branches differ at the tie is a jump and refused.

The file stands in one piece: D(x), the same programs in torch, random programs.

Source: BoltePauwels2020, BoltePauwels2020b.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import torch

from tests.adapters import Adapter, adapter
from tests.references.lexicographic import Dual, plus, product, times

__all__ = [
    "Jump",
    "count_kinks",
    "field_values",
    "operands",
    "random_program",
    "support",
    "to_framework",
    "to_torch",
    "value_at",
]

Step: TypeAlias = tuple[Any, ...]
Point: TypeAlias = Sequence[Fraction | int]
Gradient: TypeAlias = tuple[Fraction, ...]
Results: TypeAlias = tuple[Any, ...]
"""A `Dual` for each step, a tuple of them for a sort, None for what no later step reads."""


class Jump(ValueError):
    """The branches of a `where` differ at the tie."""


def field_values(program: Sequence[Step], point: Point | None = None) -> list[Gradient]:
    """Give D(x), sorted, without repetition; its convex hull is `field`. The point is 0 unless it is given."""
    last = last_reads(program)
    worlds: set[Results] = {()}
    for k, step in enumerate(program):
        alive = [read > k for read in last[:k]]
        kept = {tuple(r if needed else None for r, needed in zip(w, alive, strict=True)) for w in worlds}
        worlds = {(*world, result) for world in kept for result in pieces(step, world, start(program, point))}
    return sorted({world[-1][1:] for world in worlds})


def support(program: Sequence[Step], point: Point | None, direction: Sequence[Fraction | int]) -> Fraction:
    """Give the largest <v, direction> over v in D(x)."""
    return max(
        sum((a * b for a, b in zip(v, direction, strict=True)), Fraction(0)) for v in field_values(program, point)
    )


def value_at(program: Sequence[Step], point: Point | None = None) -> Fraction:
    """Give F(x)."""
    results: Results = ()
    for step in program:
        results = (*results, next(pieces(step, results, start(program, point))))
    return results[-1][0]


def start(program: Sequence[Step], point: Point | None) -> list[Dual]:
    """Give the inputs with their rows, the unit vectors."""
    size = 1 + max(step[1] for step in program if step[0] == "input")
    values = [Fraction(x) for x in (point or [0] * size)]
    return [(x, *(Fraction(i == j) for j in range(len(values)))) for i, x in enumerate(values)]


def operands(step: Step) -> tuple[int, ...]:
    """Give the numbers of the steps that a step reads."""
    match step:
        case ("input", _):
            return ()
        case ("linear", _, *terms):
            return tuple(a for _, a in terms)
        case ("item", _, a) | ("clamp", _, _, a):
            return (a,)
        case (_, *arguments):
            return tuple(arguments)
    raise TypeError(step)


def last_reads(program: Sequence[Step]) -> list[int]:
    """Give for each step the last step that reads it; the value of the program is read at the end."""
    last = list(range(len(program)))
    for k, step in enumerate(program):
        for a in operands(step):
            last[a] = k + 1
    last[-1] = len(program)
    return last


def linear(constant: Fraction | int, terms: Iterable[tuple[Fraction | int, int]], results: Results, zero: Dual) -> Dual:
    """Give c + c1 a + ..."""
    total: Dual = (Fraction(constant), *zero[1:])
    for c, a in terms:
        total = plus(total, times(Fraction(c), results[a]))
    return total


def pieces(step: Step, results: Results, inputs: list[Dual]) -> Iterable[Any]:
    """Yield the results of a step under each of its active pieces."""
    zero = times(Fraction(0), inputs[0])
    match step:
        case ("input", i):
            yield inputs[i]
        case ("linear", c, *terms):
            yield linear(c, terms, results, zero)
        case ("mul", a, b):
            yield product(results[a], results[b])
        case ("relu", a):
            yield from tied((results[a], zero), max)
        case ("abs", a):
            yield from tied((results[a], times(Fraction(-1), results[a])), max)
        case ("max", *terms):
            yield from tied([results[a] for a in terms], max)
        case ("min", *terms):
            yield from tied([results[a] for a in terms], min)
        case ("sort", *terms):
            yield from orders([results[a] for a in terms])
        case ("item", k, s):
            yield results[s][k]
        case ("clamp", low, high, a):
            inner = tied((results[a], (Fraction(low), *zero[1:])), max)
            yield from (outer for one in inner for outer in tied((one, (Fraction(high), *zero[1:])), min))
        case ("where", p, a, b):
            yield from branches(results[p], results[a], results[b])
        case _:
            raise TypeError(step)


def tied(terms: Sequence[Dual], choose: Callable[..., Fraction]) -> Iterable[Dual]:
    """Yield the operands whose value is the largest (the smallest)."""
    best = choose(t[0] for t in terms)
    yield from (t for t in terms if t[0] == best)


def orders(terms: Sequence[Dual]) -> Iterable[tuple[Dual, ...]]:
    """Yield every order of the operands in which their values increase: the permutations of each tied block."""
    blocks = [list(block) for _, block in itertools.groupby(sorted(terms), key=lambda t: t[0])]
    for choice in itertools.product(*(itertools.permutations(block) for block in blocks)):
        yield tuple(itertools.chain(*choice))


def branches(predicate: Dual, a: Dual, b: Dual) -> Iterable[Dual]:
    """Yield the branches of a `where` that are active."""
    if predicate[0] == 0 and a[0] != b[0]:
        raise Jump(f"{a[0]} or {b[0]}")
    if predicate[0] >= 0:
        yield a
    if predicate[0] <= 0:
        yield b


# the same programs in torch


def to_torch(program: Sequence[Step]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give the program as a function of a vector of torch."""
    return to_framework(program, adapter("torch"))


def to_framework(program: Sequence[Step], xp: Adapter) -> Callable[[Any], Any]:
    """Give the program as a function of a vector; every step is one operator of the framework on scalars."""

    def f(x: Any) -> Any:
        results: list[Any] = []
        for step in program:
            results.append(native(step, results, x, xp))
        return results[-1]

    return f


def native(step: Step, results: list[Any], x: Any, xp: Adapter | None = None) -> Any:
    """Run a step in a framework, torch by default."""
    xp = xp or adapter("torch")
    match step:
        case ("input", i):
            return x[i]
        case ("linear", c, *terms):
            total = xp.same(float(c), x)
            for weight, a in terms:
                total = total + float(weight) * results[a]
            return total
        case ("mul", a, b):
            return results[a] * results[b]
        case ("relu" | "abs" as name, a):
            return getattr(xp, name)(results[a])
        case ("max" | "min" as name, *terms):
            return getattr(xp, name)(xp.stack([results[a] for a in terms]))
        case ("sort", *terms):
            return xp.sort(xp.stack([results[a] for a in terms]))
        case ("item", k, s):
            return results[s][k]
        case ("clamp", low, high, a):
            return xp.clip(results[a], float(low), float(high))
        case ("where", p, a, b):
            return xp.where(results[p] > 0, results[a], results[b])
    raise TypeError(step)


# random programs


def count_kinks(program: Sequence[Step]) -> int:
    """Count the comparisons of a program: one for relu, abs, where, two for clamp, n - 1 for max, n(n-1)/2 for sort."""
    return sum(comparisons(*step) for step in program)


def comparisons(name: str, *arguments: Any) -> int:
    """Count the comparisons of a step."""
    n = len(arguments)
    several = {"max": n - 1, "min": n - 1, "sort": n * (n - 1) // 2}
    return {"relu": 1, "abs": 1, "where": 1, "clamp": 2, **several}.get(name, 0)


OPERATIONS = ("relu", "abs", "max", "min", "sort", "where")
"""Positively homogeneous."""


def random_program(
    seed: int,
    variables: int = 6,
    kinks: int = 12,
    operations: Sequence[str] = OPERATIONS,
    homogeneous: bool = True,
) -> tuple[list[Step], tuple[Fraction, ...]]:
    """Draw a program with at most so many variables and comparisons, and its point: 0 if it is homogeneous.

    Small coefficients, reused results and the shapes of `SHAPES` make ties and cancellations likely. Programs that are
    not homogeneous have constants, products and clamps too, and many ties at their point of small integers.
    """
    rng = random.Random(f"{seed} {variables} {kinks} {homogeneous}")
    n, wanted = rng.randint(1, variables), rng.randint(1, kinks)
    point = tuple(Fraction(0 if homogeneous else rng.choice((0, 0, 1, -1, 2))) for _ in range(n))
    program: list[Step] = [("input", i) for i in range(n)]
    for _ in range(20 * kinks):
        steps = draw(rng, program, point, operations, homogeneous)
        if count_kinks(program + steps) <= wanted:
            program += steps
        if count_kinks(program) == wanted:
            break
    scalars = [k for k, step in enumerate(program) if step[0] != "sort"]
    late = scalars[-rng.randint(1, 6) :]
    program.append(("linear", 0, *((rng.choice((-2, -1, 1, 1, 2)), a) for a in late)))
    return program, point


def draw(rng: random.Random, program: list[Step], point: Point, operations: Sequence[str], homogeneous: bool) -> list:
    """Draw the next steps: a combination of results, then an operation or a shape on it."""
    scalars = [k for k, step in enumerate(program) if step[0] != "sort"]

    def operand() -> int:
        return scalars[-1 - min(int(rng.expovariate(0.25)), len(scalars) - 1)]

    def combination() -> Step:
        terms = [(rng.choice((-2, -1, -1, 1, 1, 2)), operand()) for _ in range(rng.randint(1, 3))]
        if homogeneous:
            return ("linear", 0, *terms)
        there = value_at([*program, ("linear", 0, *terms)], point)
        return ("linear", -there if rng.random() < 0.6 else rng.choice((-1, 0, 1)), *terms)

    k = len(program)
    name = rng.choice([*operations, *operations, "shape", *([] if homogeneous else ["mul", "clamp"])])
    match name:
        case "relu" | "abs":
            return [combination(), (name, k)]
        case "max" | "min":
            return [combination(), (name, k, *(operand() for _ in range(rng.choice((1, 1, 2, 3)))))]
        case "sort":
            terms = [k, *(operand() for _ in range(rng.choice((1, 2, 2))))]
            entry = rng.randrange(len(terms))
            return [combination(), ("sort", *terms), ("item", entry, k + 1), ("item", (entry + 1) % len(terms), k + 1)]
        case "where":
            a = operand()
            return [combination(), ("linear", 0, (1, a), (rng.choice((-1, 1, 2)), k)), ("where", k, k + 1, a)]
        case "clamp":
            low = rng.choice((-1, 0))
            return [combination(), ("clamp", low, rng.choice((1, 2)), k)]
        case "mul":
            return [("mul", operand(), operand())]
    return [combination(), *rng.choice(SHAPES)(k)]


SHAPES: tuple[Callable[[int], list[Step]], ...] = (
    lambda k: [("linear", 0, (-1, k)), ("relu", k), ("relu", k + 1), ("linear", 0, (1, k + 2), (-1, k + 3))],
    lambda k: [("relu", k), ("relu", k + 1)],
    lambda k: [("relu", k), ("abs", k + 1)],
    lambda k: [("max", k, k)],
    lambda k: [("linear", 0, (1, k), (-1, k)), ("abs", k + 1)],
    lambda k: [("abs", k), ("linear", 0, (1, k), (1, k + 1)), ("abs", k + 2)],
    lambda k: [("relu", k), ("linear", 0, (1, k), (-1, k + 1)), ("relu", k + 2)],
    lambda k: [("linear", 0, (2, k)), ("max", k, k + 1)],
)
"""Steps after step k, u: relu(u) - relu(-u), relu(relu(u)), |relu(u)|, max(u, u), |u - u|, |u + |u||, relu(u - relu(u)),
max(u, 2u)."""
