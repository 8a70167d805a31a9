"""The cycle of a linear program as a layer of cvxpylayers: a library that differentiates solutions, and does not check.

Source: AgrawalEtAl2019b.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from nonsmooth.errors import NotInvertible

__all__ = ["LayerRun", "run_layer"]

STEPS = 250
"""At most so many steps: four turns."""


@dataclass(frozen=True)
class LayerRun:
    """Gradient steps through a layer of cvxpylayers.

    Attributes:
        version: of cvxpylayers.
        steps: how many.
        x_range, y_range: of the iterates, over the second half.
        derivative: the largest |ds / d(x, y)| that it gave; `at_start` the one at the start.
        warned: how many warnings it gave, of deprecated Python apart.
        refused: what the layer raises at the start when it is `checked`.
    """

    version: str
    steps: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    derivative: float
    at_start: float
    warned: int
    refused: str

    def __str__(self) -> str:
        """Say what was seen."""
        (low, high), (least, most) = self.x_range, self.y_range
        words = "without a word" if not self.warned else f"with {self.warned} warning(s)"
        return (
            f"cvxpylayers {self.version}, the linear program as its layer: |ds| <= {self.derivative:.1e} in {self.steps} steps, "
            f"{words};\nat the start it gives |ds| = {self.at_start:.1e}. Over the second half x in [{low:.2f}, {high:.2f}], "
            f"y in [{least:.2f}, {most:.2f}].\nThe same layer, checked, at the start: {self.refused or 'no error'}"
        )


def run_layer(start: tuple[float, float], steps: int, size: float, upper: tuple[float, float]) -> LayerRun | None:
    """Make gradient steps through the layer; None where cvxpylayers is not installed."""
    if find_spec("cvxpylayers") is None or find_spec("diffcp") is None:
        return None
    import torch

    layer, count = _layer(upper), min(steps, STEPS)
    p, orbit, slopes = torch.tensor(start, dtype=torch.float64), [], []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(count + 1):
            p = p.detach().requires_grad_()
            (s,) = layer(-3 * p[0] + p[1] + 2)
            rows = [torch.autograd.grad(s[i], p, retain_graph=True)[0] for i in range(2)]
            loss = (p[0] - s[0]) ** 2 + 4 * (p[1] - s[1]) ** 2
            slopes.append(float(torch.stack(rows).norm()))
            orbit.append(p.tolist())
            p = p - size * torch.autograd.grad(loss, p)[0]
    half = np.array(orbit[len(orbit) // 2 :])
    warned = sum(not issubclass(w.category, DeprecationWarning) for w in seen)
    ranges = [(float(column.min()), float(column.max())) for column in half.T]
    return LayerRun(
        version("cvxpylayers"),
        count,
        ranges[0],
        ranges[1],
        max(slopes),
        slopes[0],
        warned,
        _refusal(layer, start),
    )


def _layer(upper: tuple[float, float]) -> Any:
    """Write the linear program, whose objective is (a + b) k with the parameter k."""
    cvxpy, layers = import_module("cvxpy"), import_module("cvxpylayers.torch")
    s, k = cvxpy.Variable(2), cvxpy.Parameter()
    problem = cvxpy.Problem(cvxpy.Maximize(k * cvxpy.sum(s)), [s >= 0, s <= np.array(upper)])
    return layers.CvxpyLayer(problem, parameters=[k], variables=[s])


def _refusal(layer: Any, start: tuple[float, float]) -> str:
    """Give what the checked layer raises at the start."""
    import torch

    from nonsmooth.implicit.cones.checked_layer import checked

    p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    try:
        checked(layer)(-3 * p[0] + p[1] + 2)[0].sum().backward()
    except NotInvertible as error:
        return f"NotInvertible: {str(error).partition('. ')[0]}"
    return ""
