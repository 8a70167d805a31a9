"""The cells of an arrangement of hyperplanes through the origin, which are the vertices of a zonotope."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PARALLEL", "TooManyCells", "cells"]

Vector = NDArray[np.float64]
Signs = NDArray[np.int8]

PARALLEL = 1e-10
"""Unit normals nearer than this are parallel; a normal shorter than this, relative to the longest, is zero."""


class TooManyCells(Exception):
    """There are more cells than wanted; the argument is how many were met."""


def cells(normals: Vector, limit: int) -> Signs:
    """Give the sign vectors of the cells of the arrangement of the hyperplanes <g_i, d> = 0.

        { (sign <g_1, d>, .., sign <g_k, d>) : d generic };   zero normals have the sign 0

    The cells that a further hyperplane cuts in two are the cells of the arrangement that the others induce in it, so
    that the work is in proportion to what is found. In general position there are 2 sum_{i < r} C(k - 1, i) of them
    in rank r. Status: `computed`, up to the tolerance `PARALLEL`.

    Args:
        normals: g_1 .. g_k, shape (k, space).
        limit: the most cells that are wanted.

    Returns:
        An array of shape (cells, k).

    Raises:
        TooManyCells: there are more than the limit.

    >>> sorted(cells(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -2.0]]), 10).tolist())
    [[-1, -1, 1], [-1, 1, -1], [1, -1, 1], [1, 1, -1]]

    Source: Ziegler1995.
    """
    return _cells(normals, limit)[0]


def _cells(normals: Vector, limit: int) -> tuple[Signs, Vector]:
    """Give the sign vectors and, for each cell, a unit vector in it."""
    which, factors, units = _merge(normals)
    signs = np.zeros((1, len(normals)), np.int8)
    if not len(units):
        return signs, np.zeros((1, normals.shape[1]))
    axes = _axes(units)
    reduced = units @ axes.T
    few, inside = _plane(reduced, limit) if len(axes) == 2 else _grow(reduced, limit)
    signs = np.zeros((len(few), len(normals)), np.int8)
    there = which >= 0
    signs[:, there] = few[:, which[there]] * factors[there]
    return signs, inside @ axes


def _merge(normals: Vector) -> tuple[NDArray[np.intp], Signs, Vector]:
    """Give, for each normal, the index of its line (-1 for zero) and its sense, and the unit vectors of the lines."""
    lengths = np.linalg.norm(normals, axis=1)
    there = np.flatnonzero(lengths > PARALLEL * lengths.max(initial=0.0))
    which = np.full(len(normals), -1, np.intp)
    factors = np.zeros(len(normals), np.int8)
    units = normals[there] / lengths[there, None]
    along = units @ np.random.default_rng(0).standard_normal(normals.shape[1])
    factors[there] = np.where(along < 0, -1, 1)
    units *= factors[there, None]
    order = np.argsort(np.abs(along), kind="stable")
    far = np.linalg.norm(np.diff(units[order], axis=0), axis=1) > PARALLEL
    groups = np.concatenate([[0], np.cumsum(far)])[: len(there)].astype(np.intp)
    which[there[order]] = groups
    first = np.unique(groups, return_index=True)[1]
    return which, factors, units[order][first]


def _axes(units: Vector) -> Vector:
    """Give an orthonormal basis of the span of unit vectors, shape (rank, space)."""
    _, s, axes = np.linalg.svd(units, full_matrices=False)
    return np.asarray(axes[s > PARALLEL * s[0]])


def _plane(units: Vector, limit: int) -> tuple[Signs, Vector]:
    """Cut the plane into sectors, by the angles of the lines."""
    angles = np.arctan2(units[:, 1], units[:, 0])
    turns = np.sort(np.concatenate([angles - np.pi / 2, angles + np.pi / 2]) % (2 * np.pi))
    middle = (turns + np.append(turns[1:], turns[0] + 2 * np.pi)) / 2
    if len(middle) > limit:
        raise TooManyCells(len(middle))
    inside = np.stack([np.cos(middle), np.sin(middle)], axis=1)
    return np.where(inside @ units.T > 0, 1, -1).astype(np.int8), inside


def _grow(units: Vector, limit: int) -> tuple[Signs, Vector]:
    """Add one hyperplane after the other: those cells that it cuts give two, each other one keeps its side."""
    signs, inside = np.array([[1], [-1]], np.int8), np.stack([units[0], -units[0]])
    for j in range(1, len(units)):
        g, before = units[j], units[:j]
        in_plane = before - np.outer(before @ g, g)
        cut, middle = _cells(in_plane, limit)
        if len(signs) + len(cut) > limit:
            raise TooManyCells(len(signs) + len(cut))
        cut_ones = {row.tobytes() for row in cut}
        whole = np.array([row.tobytes() not in cut_ones for row in signs], bool)
        side = np.where(inside[whole] @ g > 0, 1, -1).astype(np.int8)
        room = np.abs(middle @ before.T).min(1) / np.maximum(np.abs(before @ g).max(), 1e-300) / 2
        shift = np.minimum(room, 1.0)[:, None] * g
        signs = np.concatenate([_with(signs[whole], side), _with(cut, 1), _with(cut, -1)])
        inside = np.concatenate([inside[whole], middle + shift, middle - shift])
        inside /= np.linalg.norm(inside, axis=1, keepdims=True)
    return signs, inside


def _with(signs: Signs, last: Signs | int) -> Signs:
    """Append a sign to every sign vector."""
    return np.column_stack([signs, np.broadcast_to(np.asarray(last, np.int8), len(signs))])
