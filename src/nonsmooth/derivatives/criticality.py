"""Criticality along a path: how far 0 is from the gradients at a point, and from those of a small ball around it.

dist(0, conv D(x_k)) need not tend to 0 along a run that converges to a critical point: for |x| it is 1 at every x_k != 0.
What tends to 0 is the distance to the hull of D over a ball, Goldstein's subdifferential:

    m(x, r) = dist(0, conv { v : v in D(y), |y - x| <= r }).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import as_program, backprop
from nonsmooth.derivatives.field import field
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.program import Program
from nonsmooth.report.progress import Report, silent
from nonsmooth.sets import Hull

__all__ = ["BallMeasure", "PathPoint", "ball_criticality", "path_criticality"]

SAMPLES = 120
"""How many gradients are taken in a ball, beside those of the path."""

NEAR = 200
"""At most so many points of the path are used in a ball, the nearest."""


@dataclass(frozen=True)
class BallMeasure:
    """The distance of 0 from the hull of gradients taken in a ball: an upper bound of m(x, r).

    Attributes:
        radius: of the ball.
        distance: of 0 from the hull; it only gets smaller with more gradients.
        from_path: how many of the gradients were those of other points of the path.
        gradients: how many there were in all.
    """

    radius: float
    distance: float
    from_path: int
    gradients: int
    status: str = "sampled"


@dataclass(frozen=True)
class PathPoint:
    """A point of a path: F there, the distance of 0 from conv D there, and from the hulls over balls around it."""

    step: int
    value: float
    at_point: float
    kinks: int
    balls: tuple[BallMeasure, ...]
    status: str = "computed"


def ball_criticality(
    f: Callable[..., Any] | Program,
    x: Any,
    *data: Any,
    radius: float,
    samples: int = SAMPLES,
    seed: int = 0,
    known: Floats | None = None,
) -> BallMeasure:
    """Bound the distance of 0 from the gradients of a ball from above.

        m(x, r) <= dist(0, conv { g_1 .. g_n }),   g_i gradients by backprop at points of the ball

    The first half of the points are random; each of the others lies at a random place of the segment from x against the
    shortest element p of the hull so far, x - t r p/|p|: where F does not decrease as p promises, the gradient met there
    shortens p. Status: `sampled`; an upper bound, computed.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the centre.
        data: what is not differentiated.
        radius: of the ball, in the Euclidean norm.
        samples: how many points are taken.
        seed: of the points.
        known: gradients at other points of the ball, shape (n, space).

    >>> import torch
    >>> f, x = torch.abs, torch.tensor(0.125)
    >>> ball_criticality(f, x, radius=0.5).distance, ball_criticality(f, x, radius=0.0625).distance
    (0.0, 1.0)

    Source: BoltePauwels2020, DavisDrusvyatskiy2021.
    """
    if not 0 < radius < float("inf") or isinstance(samples, bool) or samples < 2:
        raise UsageError(f"radius={radius!r}, samples={samples!r}: pass a positive radius and at least 2 samples.")
    program, framework = as_program(f, x, data)
    centre = np.asarray(framework.flat(x), dtype=np.float64)
    rng = np.random.default_rng(seed)

    def gradient(at: Floats) -> Floats:
        found = backprop(program, framework.unflatten_flat(x, at), *data)
        return np.asarray(framework.flat(found), dtype=np.float64)

    rows = [gradient(centre), *([] if known is None else known)]
    for _ in range(samples // 2):
        direction = rng.standard_normal(centre.size)
        length = radius * rng.uniform() ** (1 / centre.size)
        rows.append(gradient(centre + length * direction / np.linalg.norm(direction)))
    shortest = Hull(np.array(rows)).minimum_norm()
    for _ in range(samples - samples // 2):
        if float(shortest.norm) == 0:
            break
        rows.append(gradient(centre - rng.uniform() * radius * shortest.point / float(np.linalg.norm(shortest.point))))
        shortest = Hull(np.array(rows)).minimum_norm(1e-9)
    return BallMeasure(radius, float(shortest.norm), 0 if known is None else len(known), len(rows))


def path_criticality(
    f: Callable[..., Any] | Program,
    path: Sequence[Any],
    *data: Any,
    at: Sequence[int],
    radii: Sequence[float],
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Report | None = None,
) -> tuple[PathPoint, ...]:
    """Measure criticality along a path: at its points, and over balls around them.

    Over a ball the gradients of the path's own points in it are used beside the sampled ones. Balls grow, and a larger
    one takes what a smaller one has found, so that the distances decrease. Status: at the points `computed`, over balls
    `sampled`.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        path: points, all of one structure.
        data: what is not differentiated.
        at: the numbers of the points at which to measure.
        radii: of the balls.
        samples: gradients taken in a ball, beside those of the path.
        seed: of the samples.
        progress: called as (what, done, of how many) while it works.

    >>> import torch
    >>> path = [torch.tensor((-1.0) ** k / (k + 1)) for k in range(20)]
    >>> (point,) = path_criticality(torch.abs, path, at=[19], radii=[0.001, 0.25])
    >>> point.at_point, [ball.distance for ball in point.balls]
    (1.0, [1.0, 0.0])

    Source: BoltePauwels2020, DavisDrusvyatskiy2021.
    """
    report = progress or silent
    program, framework = as_program(f, path[0], data)
    places = np.array([framework.flat(p) for p in path], dtype=np.float64)
    gradients: dict[int, Floats] = {}
    found = []
    for number, k in enumerate(at):
        report("criticality along the path", number, len(at))
        here = field(program, path[k], *data)
        away = np.linalg.norm(places - places[k], axis=1)
        order = [int(j) for j in np.argsort(away, kind="stable") if j != k][:NEAR]
        balls: list[BallMeasure] = []
        for radius in sorted(radii):
            near = [j for j in order if away[j] <= radius]
            for j in near:
                if j not in gradients:
                    gradients[j] = np.asarray(framework.flat(backprop(program, path[j], *data)), dtype=np.float64)
            known = np.array([gradients[j] for j in near]).reshape(len(near), places.shape[1])
            ball = ball_criticality(program, path[k], *data, radius=radius, samples=samples, seed=seed, known=known)
            least = min([ball.distance, *(b.distance for b in balls)])
            balls.append(BallMeasure(ball.radius, least, ball.from_path, ball.gradients))
        found.append(
            PathPoint(int(k), here.value, float(here.minimum_norm().norm), here.kinks, tuple(balls), here.status)
        )
    return tuple(found)
