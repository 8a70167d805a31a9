"""Formulas in conjunctive normal form: checked, drawn at random, decided by trying all assignments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import comb
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nonsmooth.cost.checks import whole_number
from nonsmooth.errors import UsageError

__all__ = ["ENUMERATED", "Formula", "check_formula", "random_formula", "satisfying_assignment"]

Formula: TypeAlias = Sequence[Sequence[Any]]
"""A conjunction of clauses; a clause is a disjunction of literals, i for the variable x_i (i = 1, 2, ..), -i for its negation."""

ENUMERATED = 22
"""The most variables of which all assignments are tried."""


def check_formula(formula: Formula) -> tuple[tuple[int, ...], ...]:
    """Give the clauses of a formula, each literal once, or say why it is none.

    Raises:
        UsageError: no clause, an empty clause, or a literal that is no integer or 0.

    >>> check_formula([[2, -1, 2]])
    ((-1, 2),)
    """
    try:
        clauses = [tuple(clause) for clause in formula]
    except TypeError as error:
        raise UsageError(
            f"a formula is a list of clauses, and a clause one of literals, as [(1, 2), (-1,)]; found {formula!r:.100}."
        ) from error
    if not clauses or not all(clauses):
        raise UsageError(
            "a formula needs one clause or more, and every clause a literal; an empty one is never satisfied."
        )
    for literal in itertools.chain(*clauses):
        if isinstance(literal, bool) or not isinstance(literal, int | np.integer) or literal == 0:
            raise UsageError(f"a literal is i or -i for the variable x_i, i = 1, 2, ..; found {literal!r}.")
    return tuple(tuple(sorted({int(literal) for literal in clause})) for clause in clauses)


def random_formula(variables: int, clauses: int, *, seed: Any = 0, literals: int = 3) -> tuple[tuple[int, ...], ...]:
    """Draw a formula of different clauses, each of some literals of different variables, negated with probability 1/2.

    Args:
        variables: n, at least the number of literals.
        clauses: how many.
        seed: of the draws; no generator of the user's is touched.
        literals: how many stand in a clause.

    Raises:
        UsageError: numbers that mean nothing, or more clauses than there are.

    >>> random_formula(4, 2, seed=0)
    ((-4, -3, -2), (1, 3, 4))
    """
    variables = whole_number("random_formula", "variables", variables)
    clauses = whole_number("random_formula", "clauses", clauses)
    literals = whole_number("random_formula", "literals", literals)
    most = comb(variables, literals) * 2**literals
    if clauses > most:
        raise UsageError(
            f"random_formula: {clauses} different clauses of {literals} of {variables} variables were asked for; there are {most}."
        )
    rng = np.random.default_rng(whole_number("random_formula", "seed", seed, least=0))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < clauses:
        chosen = rng.choice(variables, literals, replace=False) + 1
        found[tuple(sorted(int(i) for i in chosen * rng.choice([-1, 1], literals)))] = None
    return tuple(found)


def satisfying_assignment(formula: Formula) -> tuple[bool, ...] | None:
    """Give the first assignment that satisfies a formula, by trying all 2^n of them; None if none does.

    Raises:
        UsageError: no formula, or one of more than 22 variables.

    >>> satisfying_assignment([(1, 2), (-1, 2), (1, -2)]), satisfying_assignment([(1,), (-1,)])
    ((True, True), None)
    """
    clauses = check_formula(formula)
    n = max(abs(literal) for literal in itertools.chain(*clauses))
    if n > ENUMERATED:
        raise UsageError(
            f"satisfying_assignment tries 2^n assignments, n <= {ENUMERATED}; the formula has {n} variables."
        )
    numbers = np.arange(2**n, dtype=np.int64)
    left = np.ones(2**n, bool)
    for clause in clauses:
        left &= np.logical_or.reduce([((numbers >> (abs(i) - 1)) & 1) == int(i > 0) for i in clause])
    first = _first(left)
    return None if first is None else tuple(bool(first >> i & 1) for i in range(n))


def _first(mask: NDArray[np.bool_]) -> int | None:
    """Give the place of the first true entry."""
    place = int(mask.argmax())
    return place if mask[place] else None
