"""Random programs by seed."""

from __future__ import annotations

import random

from tests.programs.statements import KINDS
from tests.programs.writer import RandomProgram, Writer, random_point

__all__ = ["random_program", "write_statements"]


def random_program(seed: int, kinds: tuple[str, ...] = (), length: tuple[int, int] = (2, 12)) -> RandomProgram:
    """Write the program of a seed: statements of the given kinds (of all), then a sum of some of their results."""
    rng = random.Random(seed)
    writer = Writer(rng, random_point(rng))
    write_statements(writer, rng.randint(*length), kinds)
    return writer.program(f"random program {seed}", weighted_sum(writer))


def write_statements(writer: Writer, count: int, kinds: tuple[str, ...] = ()) -> None:
    """Write statements, each of a random kind."""
    table = {k: KINDS[k] for k in kinds} if kinds else KINDS
    statements, weights = zip(*table.values(), strict=True)
    for statement in writer.rng.choices(statements, weights, k=count):
        statement(writer)


def weighted_sum(writer: Writer) -> str:
    """Give a scalar: small integers times up to three values, late ones more often."""
    last = list(writer.sizes)[-1]
    chosen = {last: None} | {writer.recent(list(writer.sizes)): None for _ in range(2)}
    return " + ".join(f"{writer.integer(-2, 3)} * {name}{'.sum()' if writer.size(name) else ''}" for name in chosen)
