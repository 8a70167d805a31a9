"""The recursions of Roulet and Harchaoui as they are written, in plain numbers: one loop each, no thought for infinities.

`without` leaves a term out and `misprint` changes one, to see that a network then exceeds the bound.

Source: RouletHarchaoui2019, RouletHarchaoui2021.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

__all__ = ["Deep", "General", "chain", "deep", "localised", "with_respect_to_input"]


@dataclass(frozen=True)
class Deep:
    """pi(a(b(v, c(z)))), b linear in v."""

    mu: float
    L_b: float
    l_b: float
    l_a: float
    L_a: float
    l_pi: float = 1.0
    L_pi: float = 0.0
    at_zero: float = 0.0  # of pi o a
    l_c: float = 1.0
    L_c: float = 0.0
    c_zero: float = 0.0
    m_c: float = inf


@dataclass(frozen=True)
class General:
    """a_k(... a_1(b(u, x))), b biaffine; of each a_j: l, L, ||a(0)||, m, ||Da(0)||."""

    R: float
    L_b: float
    l_u: float
    l_x: float
    b_0: float
    stages: tuple[tuple[float, float, float, float, float], ...]


def chain(layers: list[tuple[float, float]]) -> tuple[float, float]:
    """Give l_k and L_k of layers (l_phi, L_phi)."""
    l, L = 0.0, 0.0
    for l_phi, L_phi in layers:
        l, L = l_phi * (1 + l), L * l_phi + L_phi * (1 + l) ** 2
    return l, L


def with_respect_to_input(layers: list[tuple[float, float]]) -> tuple[float, float]:
    """Give l_k and L_k of layers (l_phi, L_phi) of fixed weights."""
    l, L = 1.0, 0.0
    for l_phi, L_phi in layers:
        l, L = l * l_phi, L_phi * l**2 + L * l_phi
    return l, L


def deep(layers: list[Deep], norm: float, without: Collection[str] = ()) -> list[tuple[float, float, float]]:
    """Give m_l, l_l and L_l after each layer."""
    m, l, L = norm, 0.0, 0.0
    found = []
    for t in layers:
        l_ta, L_ta = t.l_a * t.l_pi, t.L_pi * t.l_a**2 + t.L_a * t.l_pi
        tm = min(t.l_c * m + t.c_zero, t.m_c)
        carried = L * t.L_b * t.mu * l_ta * t.l_c
        squared = (L_ta * (t.l_c * t.L_b * t.mu) ** 2 + t.L_c * t.L_b * t.mu * l_ta) * l**2
        crossed = 2 * (L_ta * t.l_c * t.L_b * t.mu * (t.L_b * tm + t.l_b) + t.L_b * t.l_c * l_ta) * l
        own = L_ta * (t.L_b * tm + t.l_b) ** 2
        through, direct = t.L_b * l_ta * l * t.l_c * t.mu, t.L_b * l_ta * tm + t.l_b * l_ta
        terms = {"carried": carried, "squared": squared, "crossed": crossed, "own": own}
        slopes = {"through": through, "direct": direct}
        L = sum(value for name, value in terms.items() if name not in without)
        l = sum(value for name, value in slopes.items() if name not in without)
        m = l_ta * t.mu * (t.L_b * tm + t.l_b) + t.at_zero
        found.append((m, l, L))
    return found


def localised(layers: list[General], norm: float, misprint: str = "") -> list[tuple[float, float, float]]:
    """Give m_t, l_t and L_t after each layer."""
    m, l, L = norm, 0.0, 0.0
    found = []
    for t in layers:
        lx, lu = t.L_b * t.R + t.l_x, t.L_b * m + t.l_u
        m_j = t.L_b * t.R * m + t.l_u * t.R + (0 if misprint == "no values" else t.l_x * m) + t.b_0
        m_j -= t.b_0 if misprint == "no offset" else 0
        p, L_j = 1.0, 0.0
        for l_a, L_a, zero, m_a, slope in t.stages:
            la = min(l_a, slope + L_a * m_j)
            m_j = min(m_a, zero + la * m_j)
            later = la * p if misprint == "later slopes" else p
            L_j = L_j * (1 if misprint == "no slope" else la) + L_a * later**2
            p = la * p
        crossed = lu * lx * L_j + t.L_b * (1 if misprint == "cross without slopes" else p)
        L = L * lx * p + lx**2 * L_j * l**2 + 2 * crossed * l + lu**2 * L_j
        l = lx * p * l + lu * p
        m = m_j
        found.append((m, l, L))
    return found
