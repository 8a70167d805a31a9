"""Activations of networks."""

from __future__ import annotations

from math import pi, sqrt

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


@define("relu")
def relu(call: Called) -> Numbers:
    """max(u, 0)."""
    return call.x.apply("relu")


@define("sigmoid")
def sigmoid(call: Called) -> Numbers:
    """1 / (1 + exp(-u))."""
    return call.x.apply("sigmoid")


@define("leaky_relu")
def leaky_relu(call: Called) -> Numbers:
    """Give u for u > 0, else slope u."""
    return call.x.exceeds(0.0).select(call.x, call.x * call.attributes["negative_slope"])


@define("prelu")
def prelu(call: Called) -> Numbers:
    """Give u for u > 0, else a u."""
    u, a = call.operands
    return u.exceeds(0.0).select(u, u * a)


def _scaled(x: Numbers, factor: float) -> Numbers:
    """Give factor u: free for the factor 1."""
    return x if factor == 1 else x * factor


@define("elu", "selu")
def elu(call: Called) -> Numbers:
    """Give scale u for u > 0, else scale alpha (exp(input_scale u) - 1)."""
    x, a = call.x, call.attributes
    below = _scaled(_scaled(x, a["input_scale"]).apply("expm1"), a["alpha"] * a["scale"])
    return x.exceeds(0.0).select(_scaled(x, a["scale"]), below)


@define("celu")
def celu(call: Called) -> Numbers:
    """Give u for u > 0, else alpha (exp(u / alpha) - 1)."""
    x, alpha = call.x, call.attributes.get("alpha", 1.0)
    return x.exceeds(0.0).select(x, _scaled(_scaled(x, 1 / alpha).apply("expm1"), alpha))


@define("gelu")
def gelu(call: Called) -> Numbers:
    """Give u (1 + erf(u / sqrt 2)) / 2, or with tanh(sqrt(2 / pi) (u + 0.044715 u^3)) for erf."""
    x = call.x
    if call.attributes.get("approximate") == "tanh":
        inner = ((x * x.apply("square") * 0.044715 + x) * sqrt(2 / pi)).apply("tanh")
    else:
        inner = (x * sqrt(0.5)).apply("erf")
    return x * (inner + 1.0) * 0.5


@define("silu")
def silu(call: Called) -> Numbers:
    """Give u sigmoid(u)."""
    return call.x * call.x.apply("sigmoid")


@define("mish")
def mish(call: Called) -> Numbers:
    """Give u tanh(log(1 + exp u))."""
    return call.x * call.x.apply("exp").apply("log1p").apply("tanh")


@define("log_sigmoid")
def log_sigmoid(call: Called) -> Numbers:
    """-log(1 + exp(-u))."""
    return -(-call.x).apply("exp").apply("log1p")


@define("softplus", "softplus_jump")
def softplus(call: Called) -> Numbers:
    """log(1 + exp(beta u)) / beta, and u where beta u is over a threshold."""
    beta, threshold = call.attributes.get("beta", 1), call.attributes.get("threshold", 20)
    inner = _scaled(call.x, beta)
    found = inner.apply("exp").apply("log1p")
    return inner.detached().exceeds(float(threshold)).select(call.x, found if beta == 1 else found / float(beta))


@define("glu")
def glu(call: Called) -> Numbers:
    """Give a sigmoid(b), a and b the halves of u along an axis."""
    axis = call.attributes["axes"][0]
    half = call.shape[axis]
    a = call.x.alias(call.shape, lambda u: u.swapaxes(0, axis)[:half].swapaxes(0, axis))
    b = call.x.alias(call.shape, lambda u: u.swapaxes(0, axis)[half:].swapaxes(0, axis))
    return a * b.apply("sigmoid")


@define("hardsigmoid")
def hardsigmoid(call: Called) -> Numbers:
    """min(max(u / 6 + 1/2, 0), 1)."""
    return (call.x / 6.0 + 0.5).apply("max", 0.0).apply("min", 1.0)


@define("hardswish")
def hardswish(call: Called) -> Numbers:
    """Give u min(max(u + 3, 0), 6) / 6."""
    return call.x * (call.x + 3.0).apply("max", 0.0).apply("min", 6.0) / 6.0


@define("softshrink")
def softshrink(call: Called) -> Numbers:
    """Give u - min(max(u, -lambd), lambd)."""
    bound = float(call.attributes["lambd"])
    return call.x - call.x.apply("max", -bound).apply("min", bound)


@define("hardshrink")
def hardshrink(call: Called) -> Numbers:
    """Give u for |u| > lambd, else 0."""
    outside = call.x.detached().apply("abs").exceeds(float(call.attributes["lambd"]))
    return outside.select(call.x, 0.0)
