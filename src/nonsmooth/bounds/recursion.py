"""The recursions of Roulet and Harchaoui: Lipschitz and smoothness constants of a chain of layers from those of each layer.

They take constants that the user has, and need no program; `ns.bounds` walks a program instead and finds them itself.
Norms are Euclidean. A constant may be infinite: what is not smooth has smoothness inf, and 0 times inf is 0. The file is long
because each recursion and each parallel rule stands with its formula, its guarantee and an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import hypot, inf, isnan, prod

from nonsmooth.errors import UsageError

__all__ = [
    "ChainBounds",
    "LayerConstants",
    "MapConstants",
    "concatenated",
    "deep_chain",
    "generic_chain",
    "input_chain",
    "localised_chain",
    "objective_bounds",
    "stacked",
    "sum_of_separate",
    "summed",
]


def _number(name: str, value: float) -> float:
    """Read a constant."""
    if isnan(value) or value < 0:
        raise UsageError(f"{name}={value!r}: a bound is a number from 0 to infinity.")
    return float(value)


def _check(constants: MapConstants | LayerConstants) -> None:
    """Refuse constants that are negative or no number."""
    for field in fields(constants):
        value = getattr(constants, field.name)
        if not isinstance(value, tuple | MapConstants):
            _number(f"{type(constants).__name__}({field.name})", value)


@dataclass(frozen=True)
class MapConstants:
    """The constants of a map a on the set where it is used, which holds 0.

        ||a(x) - a(y)|| <= lipschitz ||x - y||,    ||Da(x) - Da(y)|| <= smoothness ||x - y||
        ||a(0)|| <= at_zero,    ||a(x)|| <= bound,    ||Da(0)|| <= slope_at_zero

    A bound that is not known is infinite.

    Raises:
        UsageError: a constant that is negative or no number.

    >>> softplus = MapConstants(1.0, 0.25, at_zero=0.6931471805599453, slope_at_zero=0.5)
    >>> softplus.after(softplus).smoothness
    0.5

    Source: RouletHarchaoui2019, RouletHarchaoui2021.
    """

    lipschitz: float
    smoothness: float = 0.0
    at_zero: float = 0.0
    bound: float = inf
    slope_at_zero: float = inf

    def __post_init__(self) -> None:
        """Refuse what no constant can be."""
        _check(self)

    def after(self, inner: MapConstants) -> MapConstants:
        """Give the constants of a(inner(x)).

            l = l_a l_i,    L = L_a l_i^2 + l_a L_i,    ||a(i(0))|| <= ||a(0)|| + l_a ||i(0)||

        Guarantee: `proved` by the chain rule where those of both maps hold, a's on the range of the inner one.

        >>> MapConstants(2.0, 3.0).after(MapConstants(5.0, 7.0))
        MapConstants(lipschitz=10.0, smoothness=89.0, at_zero=0.0, bound=inf, slope_at_zero=10.0)

        Source: RouletHarchaoui2019.
        """
        slope = min(self.lipschitz, self.slope_at_zero + _product(self.smoothness, inner.at_zero))
        return MapConstants(
            _product(self.lipschitz, inner.lipschitz),
            _product(self.smoothness, inner.lipschitz, inner.lipschitz) + _product(self.lipschitz, inner.smoothness),
            min(self.bound, self.at_zero + _product(self.lipschitz, inner.at_zero)),
            min(self.bound, self.at_zero + _product(self.lipschitz, inner.bound)),
            _product(slope, min(inner.slope_at_zero, inner.lipschitz)),
        )


IDENTITY = MapConstants(1.0, slope_at_zero=1.0)
"""The map that leaves all as it is."""


@dataclass(frozen=True)
class LayerConstants:
    """The constants of a layer phi(v, z) = a_k(... a_1(b(v, c(z)))) with weights ||v|| <= radius.

        b(v, y) = B(v, y) + b_v v + b_y y + b_0

    Attributes:
        bilinear: L_b >= ||B||, so that ||B(v, y)|| <= L_b ||v|| ||y||.
        weights: l_v >= ||b_v||; a bias that is added to every sample and pixel makes it the root of their number.
        radius: mu, of the ball of the weights.
        stages: a_1, ..., a_k in the order in which they are applied: an activation, a pooling.
        before: c, what is done to the input before the weights are met: batch normalisation.
        values: l_y >= ||b_y||, a part that weights do not enter.
        offset: at least ||b_0||.

    Raises:
        UsageError: a constant that is negative or no number.

    >>> dense = LayerConstants(bilinear=1.0, weights=2.0, radius=3.0, stages=(MapConstants(1.0, 0.25),))
    >>> dense.joint(norm=10.0).lipschitz == (12**2 + 3**2) ** 0.5
    True

    Source: RouletHarchaoui2019, RouletHarchaoui2021.
    """

    bilinear: float
    weights: float
    radius: float
    stages: tuple[MapConstants, ...] = ()
    before: MapConstants = IDENTITY
    values: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no constant can be."""
        _check(self)

    @property
    def outer(self) -> MapConstants:
        """The constants of a_k o ... o a_1."""
        whole = IDENTITY
        for stage in self.stages:
            whole = stage.after(whole)
        return whole

    @property
    def on_values(self) -> float:
        """l_y(R) = L_b mu + l_y: the Lipschitz constant of b(v, .)."""
        return _product(self.bilinear, self.radius) + self.values

    def on_weights(self, norm: float) -> float:
        """Give L_b ||y|| + l_v: the Lipschitz constant of b(., y)."""
        return _product(self.bilinear, norm) + self.weights

    def before_stages(self, norm: float) -> float:
        """Bound b(v, y) where ||y|| <= norm: L_b mu ||y|| + l_v mu + l_y ||y|| + ||b_0||."""
        return _product(self.on_weights(norm), self.radius) + _product(self.values, norm) + self.offset

    def derivatives(self, norm: float) -> tuple[float, float, float, float, float]:
        """Bound ||D_v phi||, ||D_z phi||, ||D_v D_v phi||, ||D_v D_z phi||, ||D_z D_z phi|| where ||c(z)|| <= norm."""
        outer, c = self.outer, self.before
        v, z = self.on_weights(norm), _product(self.on_values, c.lipschitz)
        return (
            _product(outer.lipschitz, v),
            _product(outer.lipschitz, z),
            _product(outer.smoothness, v, v),
            _product(outer.smoothness, v, z) + _product(outer.lipschitz, self.bilinear, c.lipschitz),
            _product(outer.smoothness, z, z) + _product(outer.lipschitz, self.on_values, c.smoothness),
        )

    def joint(self, norm: float) -> MapConstants:
        """Give the constants of the layer with respect to weights and input together, where ||z|| <= norm.

            l = ||(||D_v phi||, ||D_z phi||)||,    L = the norm of the 2 x 2 matrix of the second derivatives' bounds

        Guarantee: `proved`. With them the layer can stand in `generic_chain`.

        Source: RouletHarchaoui2019.
        """
        v, z, vv, vz, zz = self.derivatives(_reached(self.before, norm))
        smoothness = inf if inf in (vv, vz, zz) else (vv + zz) / 2 + hypot((vv - zz) / 2, vz)
        return MapConstants(hypot(v, z), smoothness)


@dataclass(frozen=True)
class ChainBounds:
    """What holds of a chain's value after a layer: its norm m, its Lipschitz constant l and its smoothness constant L."""

    norm: float
    lipschitz: float
    smoothness: float


def generic_chain(layers: Sequence[MapConstants]) -> tuple[ChainBounds, ...]:
    """Bound a chain z_l = phi_l(v_l, z_{l-1}) with respect to all weights (v_1, ..., v_k), after each layer.

        l_l = l_phi (1 + l_{l-1}),  l_0 = 0;    L_l = L_{l-1} l_phi + L_phi (1 + l_{l-1})^2,  L_0 = 0

    Guarantee: `proved`, where each layer has its constants with respect to (v_l, z_{l-1}) together on all that these
    reach. Layers that are bilinear have them on bounded sets alone: `LayerConstants.joint`.

    Args:
        layers: the constants of phi_1, ..., phi_k; bounds of norms are taken where they are given.

    >>> generic_chain([MapConstants(2.0, 1.0), MapConstants(3.0, 1.0)])[-1]
    ChainBounds(norm=inf, lipschitz=9.0, smoothness=12.0)

    Source: RouletHarchaoui2019.
    """
    found = []
    lipschitz = smoothness = 0.0
    for phi in layers:
        smoothness = _product(smoothness, phi.lipschitz) + _product(phi.smoothness, 1 + lipschitz, 1 + lipschitz)
        lipschitz = _product(phi.lipschitz, 1 + lipschitz)
        found.append(ChainBounds(phi.bound, lipschitz, smoothness))
    return tuple(found)


def deep_chain(layers: Sequence[LayerConstants], norm: float) -> tuple[ChainBounds, ...]:
    """Bound a chain of deep layers phi(v, z) = a(b(v, c(z))) with respect to all weights, after each layer.

        m~ = min(l_c m_{l-1} + ||c(0)||, m_c),    a = a_k o ... o a_1,    B_v = L_b m~ + l_v,    B_z = (L_b mu + l_y) l_c
        m_l = l_a (mu B_v + l_y m~ + ||b_0||) + ||a(0)||
        l_l = l_a (B_z l_{l-1} + B_v)
        L_l = L_{l-1} l_a B_z + (L_a B_z^2 + l_a (L_b mu + l_y) L_c) l_{l-1}^2 + 2 (L_a B_z B_v + l_a L_b l_c) l_{l-1} + L_a B_v^2

    with m_0 = norm, l_0 = L_0 = 0. Guarantee: `proved` on the product of the balls ||v_l|| <= mu_l. With l_y = 0 and b_0 = 0
    this is the paper's recursion.

    Args:
        layers: phi_1, ..., phi_k.
        norm: of the input x, all samples together.

    Raises:
        UsageError: a norm that is negative or no number.

    >>> dense = LayerConstants(bilinear=1.0, weights=1.0, radius=2.0, stages=(MapConstants(1.0, 0.25),))
    >>> deep_chain([dense, dense], norm=3.0)[-1]
    ChainBounds(norm=18.0, lipschitz=17.0, smoothness=88.25)

    Source: RouletHarchaoui2019.
    """
    found = [ChainBounds(_number("norm", norm), 0.0, 0.0)]
    for layer in layers:
        before, outer = found[-1], layer.outer
        reached = _reached(layer.before, before.norm)
        v, z, vv, vz, zz = layer.derivatives(reached)
        l = before.lipschitz
        found.append(
            ChainBounds(
                min(outer.bound, _product(outer.lipschitz, layer.before_stages(reached)) + outer.at_zero),
                _product(z, l) + v,
                _product(before.smoothness, z) + _product(zz, l, l) + 2 * _product(vz, l) + vv,
            )
        )
    return tuple(found[1:])


def localised_chain(layers: Sequence[LayerConstants], norm: float) -> tuple[ChainBounds, ...]:
    """Bound a chain of layers with respect to all weights, with the slope of each stage bounded on what it meets.

        l_y(R) = L_b R + l_y,    l_v(m) = L_b m_{t-1} + l_v,    m_{t,0} = L_b R m_{t-1} + l_v R + l_y m_{t-1} + ||b_0||
        l~_j = min(l_{a_j}, ||Da_j(0)|| + L_{a_j} m_{t,j-1}),    m_{t,j} = min(m_{a_j}, ||a_j(0)|| + l~_j m_{t,j-1})
        L_{t,j} = L_{t,j-1} l~_j + L_{a_j} p_{j-1}^2,    p_j = l~_j p_{j-1}          (L_{t,0} = 0, p_0 = 1)
        l_t = l_y(R) p_k l_{t-1} + l_v(m) p_k,    m_t = m_{t,k}
        L_t = L_{t-1} l_y(R) p_k + l_y(R)^2 L_{t,k} l_{t-1}^2 + 2 (l_v(m) l_y(R) L_{t,k} + L_b p_k) l_{t-1} + l_v(m)^2 L_{t,k}

    What stands before the weights (`before`) is taken as one more stage of the layer below. Guarantee: `proved` on the
    product of the balls; never above `deep_chain`.

    Args:
        layers: phi_1, ..., phi_k.
        norm: of the input x, all samples together.

    Raises:
        UsageError: a norm that is negative or no number.

    >>> tanh = MapConstants(1.0, 0.7698003589195011, slope_at_zero=1.0)
    >>> square = MapConstants(float("inf"), 2.0, slope_at_zero=0.0)      # locally Lipschitz: only this recursion serves it
    >>> layer = LayerConstants(bilinear=1.0, weights=1.0, radius=1.0, stages=(square,))
    >>> localised_chain([layer], norm=2.0)[-1].lipschitz, deep_chain([layer], norm=2.0)[-1].lipschitz
    (18.0, inf)

    Source: RouletHarchaoui2021.
    """
    found = [ChainBounds(_number("norm", norm), 0.0, 0.0)]
    for layer in layers:
        below = _through((layer.before,), found[-1])
        weights, values, cross = layer.on_weights(below.norm), layer.on_values, layer.bilinear
        l = below.lipschitz
        product = ChainBounds(
            layer.before_stages(below.norm),
            _product(values, l) + weights,
            _product(values, below.smoothness) + 2 * _product(cross, l),
        )
        found.append(_through(layer.stages, product))
    return tuple(found[1:])


def input_chain(layers: Sequence[MapConstants]) -> tuple[ChainBounds, ...]:
    """Bound a chain z_l = phi_l(z_{l-1}) of fixed weights with respect to its input, after each layer.

        l_j = l_{j-1} l_phi,  l_0 = 1;    L_j = L_phi l_{j-1}^2 + L_{j-1} l_phi,  L_0 = 0

    Guarantee: `proved`, where each layer has its constants on all that its input reaches.

    >>> input_chain([MapConstants(2.0, 1.0), MapConstants(3.0, 1.0)])[-1]
    ChainBounds(norm=inf, lipschitz=6.0, smoothness=7.0)

    Source: RouletHarchaoui2019.
    """
    found = [ChainBounds(inf, 1.0, 0.0)]
    for phi in layers:
        before = found[-1]
        bend = _product(phi.smoothness, before.lipschitz, before.lipschitz)
        found.append(
            ChainBounds(
                phi.bound,
                _product(before.lipschitz, phi.lipschitz),
                bend + _product(before.smoothness, phi.lipschitz),
            )
        )
    return tuple(found[1:])


def objective_bounds(chain: ChainBounds, loss: MapConstants, regularisation: MapConstants | None = None) -> ChainBounds:
    """Bound the objective f(psi(w)) + r(w) from a chain psi, a loss f on what psi reaches, and a regularisation r.

        l = l_f l_psi + l_r,    L = l_f L_psi + L_f l_psi^2 + L_r

    Guarantee: `proved`; 1/L is a step of projected gradient that never increases the objective.

    >>> objective_bounds(ChainBounds(1.0, 3.0, 5.0), MapConstants(2.0, 0.5), MapConstants(1.0, 0.1))
    ChainBounds(norm=inf, lipschitz=7.0, smoothness=14.6)

    Source: RouletHarchaoui2019.
    """
    r = regularisation or MapConstants(0.0)
    whole = loss.after(MapConstants(chain.lipschitz, chain.smoothness, bound=chain.norm))
    return ChainBounds(inf, whole.lipschitz + r.lipschitz, whole.smoothness + r.smoothness)


def stacked(maps: Sequence[MapConstants]) -> MapConstants:
    """Give the constants of (x_1, ..., x_n) -> (a_1(x_1), ..., a_n(x_n)): separate inputs, results side by side.

        l = max l_i,    L = max L_i          (norms add as squares)

    Guarantee: `proved`; attained where each map attains its own.

    >>> stacked([MapConstants(3.0, 1.0), MapConstants(4.0, 0.5)]).lipschitz
    4.0

    Source: RouletHarchaoui2019.
    """
    l, bend, zero, bound, slope = _columns(maps)
    return MapConstants(
        max(l, default=0.0), max(bend, default=0.0), hypot(*zero), hypot(*bound), max(slope, default=0.0)
    )


def sum_of_separate(maps: Sequence[MapConstants]) -> MapConstants:
    """Give the constants of (x_1, ..., x_n) -> a_1(x_1) + ... + a_n(x_n): separate inputs, results summed.

        l = ||(l_1, ..., l_n)||,    L = max L_i

    Guarantee: `proved`.

    >>> sum_of_separate([MapConstants(3.0, 1.0), MapConstants(4.0, 0.5)]).lipschitz
    5.0

    Source: RouletHarchaoui2019.
    """
    l, bend, zero, bound, slope = _columns(maps)
    return MapConstants(hypot(*l), max(bend, default=0.0), sum(zero), sum(bound), hypot(*slope))


def concatenated(maps: Sequence[MapConstants]) -> MapConstants:
    """Give the constants of x -> (a_1(x), ..., a_n(x)): one input, results side by side.

        l = ||(l_1, ..., l_n)||,    L = ||(L_1, ..., L_n)||

    Guarantee: `proved`.

    >>> concatenated([MapConstants(3.0, 0.6), MapConstants(4.0, 0.8)]).smoothness
    1.0

    Source: RouletHarchaoui2019.
    """
    return MapConstants(*(hypot(*column) for column in _columns(maps)))


def summed(maps: Sequence[MapConstants]) -> MapConstants:
    """Give the constants of x -> a_1(x) + ... + a_n(x): one input, results summed; a residual connection is one.

        l = l_1 + ... + l_n,    L = L_1 + ... + L_n

    Guarantee: `proved`.

    >>> summed([IDENTITY, MapConstants(0.5, 0.25)]).lipschitz
    1.5

    Source: RouletHarchaoui2019.
    """
    return MapConstants(*(sum(column) for column in _columns(maps)))


def _through(stages: Sequence[MapConstants], value: ChainBounds) -> ChainBounds:
    """Bound a_k(... a_1(value)), with the slope of each stage bounded on what it meets."""
    for a in stages:
        slope = min(a.lipschitz, a.slope_at_zero + _product(a.smoothness, value.norm))
        value = ChainBounds(
            min(a.bound, a.at_zero + _product(slope, value.norm)),
            _product(slope, value.lipschitz),
            _product(slope, value.smoothness) + _product(a.smoothness, value.lipschitz, value.lipschitz),
        )
    return value


def _reached(c: MapConstants, norm: float) -> float:
    """Bound ||c(z)|| where ||z|| <= norm."""
    return min(_product(c.lipschitz, norm) + c.at_zero, c.bound)


def _columns(maps: Sequence[MapConstants]) -> Iterator[tuple[float, ...]]:
    """Give the constants of maps, each with its like."""
    for name in (f.name for f in fields(MapConstants)):
        yield tuple(getattr(a, name) for a in maps)


def _product(*factors: float) -> float:
    """Multiply, with 0 times infinity = 0."""
    return 0.0 if 0.0 in factors else prod(factors)
