"""`ns.plot_field`: the field of a function of one or two variables as a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.report.field_picture import draw_line, save_figure
from nonsmooth.report.field_plane_picture import draw_plane
from nonsmooth.studies.field_chart import open_chart
from nonsmooth.studies.field_line import GRID as STEPS
from nonsmooth.studies.field_line import view_line
from nonsmooth.studies.field_plane import GRID, view_plane

__all__ = ["plot_field"]


def plot_field(
    f: Callable[..., Any],
    x: Any,
    *data: Any,
    points: Sequence[Any] = (),
    directions: Any = None,
    radius: float | None = None,
    grid: int | None = None,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw what backpropagation can return around a point, and where the function has its kinks.

    One variable: F; its derivative by backprop between the kinks; at each kink the values under every convention, conv D
    as a vertical segment and Clarke's subdifferential inside it. Two variables: the strata, on which kinks are active;
    gradients on the pieces; at the point and at further ones conv D, Clarke's set, the shortest element, the descent
    direction, and the tangent of the stratum, on which all of conv D has one projection. Status of the sets: `computed`,
    as in `ns.field` and `ns.clarke`; the kinks are looked for on a grid, and close ones may be missed (`sampled`).

    Args:
        f: a scalar function f(x, *data).
        x: the point: a tensor, or a tree of tensors, with one or two entries, or any with `directions`.
        data: what is not differentiated.
        points: in two variables, further points at which the sets are wanted: like x, or pairs of coordinates.
        directions: one or two directions d_i like x: the slice c -> F(x + c_1 d_1 + c_2 d_2) is drawn, with the sets of
            F seen through them, { (<v, d_1>, <v, d_2>) : v in D }.
        radius: of the interval or window; by default chosen by the kinks met and the points.
        grid: how many points a side has.
        title: of the picture.
        path: where to save it; the ending says how (.png, .svg, .pdf).

    Returns:
        A figure of matplotlib, which a notebook shows.

    Raises:
        UsageError: more than two entries and no directions, or arguments that mean nothing.

    >>> import torch
    >>> import nonsmooth as ns
    >>> figure = ns.plot_field(lambda t: torch.relu(t) - torch.relu(-t), torch.tensor(0.0), radius=1.0)
    >>> [line.get_ydata().tolist() for line in figure.axes[1].lines if line.get_gid() == "field"]
    [[0.0, 2.0]]

    Source: BoltePauwels2020, BoltePauwels2020b.
    """
    if radius is not None and not 0 < radius < float("inf"):
        raise UsageError(f"radius={radius!r}: pass a positive number.")
    if grid is not None and (isinstance(grid, bool) or not 8 <= grid <= 2000):
        raise UsageError(f"grid={grid!r}: pass an integer from 8 to 2000.")
    chart = open_chart(f, x, data, directions)
    if chart.dimension == 1:
        if len(points):
            raise UsageError("points are for pictures of two variables; with one variable all kinks are shown.")
        figure = draw_line(view_line(chart, radius, grid or STEPS), title)
    else:
        view = view_plane(chart, [chart.coordinates(p) for p in points], radius, grid or GRID)
        figure = draw_plane(view, title)
    if path is not None:
        save_figure(figure, path)
    return figure
