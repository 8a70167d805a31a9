"""The adapters with which formulas are compared across frameworks: TensorFlow beside torch and JAX, and more operations.

An operation is the framework's own function of that name, since the conventions are those of functions. `clip` is `torch.clip`,
`jnp.clip` and `tf.clip_by_value`; images have their channels second, in TensorFlow too. A framework without a function
of that name has no attribute of it: see `MISSING`. One namespace a framework, hence a long file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from tests.adapters import Adapter
from tests.adapters import adapter as shared_adapter

__all__ = ["FRAMEWORKS", "MISSING", "adapter", "is_installed"]

Array = Any

FRAMEWORKS = ("torch", "jax", "tensorflow")
"""Those whose conventions are shipped."""

MISSING = {
    "torch": (),
    "jax": ("softshrink", "threshold", "prelu", "cdist", "l1_loss", "huber_loss"),
    "tensorflow": ("copysign", "cummax", "cummin"),
}
"""The operations of these tables that a framework does not have."""


def is_installed(framework: str) -> bool:
    """Tell whether a framework, with Keras in the case of TensorFlow, can be imported here."""
    names = {"tensorflow": ("tensorflow", "keras")}.get(framework, (framework,))
    return all(importlib.util.find_spec(name) is not None for name in names)


@functools.cache
def adapter(framework: str) -> Adapter:
    """Give the adapter of a framework; it is imported now."""
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[framework]()


def _torch() -> Adapter:
    """Add to torch's functions those of these tables alone."""
    import torch
    from torch.nn import functional as F

    more = {
        "hardtanh": F.hardtanh,
        "hardsigmoid": F.hardsigmoid,
        "hardswish": F.hardswish,
        "softshrink": F.softshrink,
        "threshold": lambda x, at: F.threshold(x, at, at),
        "prelu": lambda x, slope: F.prelu(x, torch.full((1,), slope, dtype=x.dtype)),
        "copysign": torch.copysign,
        "clip": torch.clip,
        "clip_low": lambda x, low: torch.clip(x, min=low),
        "clip_high": lambda x, high: torch.clip(x, max=high),
        "softmax": torch.softmax,
        "matmul": torch.matmul,
        "reshape": torch.reshape,
        "square": torch.square,
        "cdist": torch.cdist,
        "complex_abs": lambda a, b: torch.abs(torch.complex(a, b)),
        "l1_loss": lambda x, y: F.l1_loss(x, y),
        "huber_loss": lambda x, y: F.huber_loss(x, y),
        "conv2d": lambda x, kernel: F.conv2d(x, kernel),
        "segment_max": lambda x, index, count: torch.segment_reduce(
            x, "max", lengths=_lengths(torch.tensor, index, count)
        ),
        "segment_min": lambda x, index, count: torch.segment_reduce(
            x, "min", lengths=_lengths(torch.tensor, index, count)
        ),
        "adaptive_max_pool": lambda x, size: getattr(F, f"adaptive_max_pool{x.ndim - 2}d")(x, size),
        "chosen": lambda x: x[torch.argmax(x)],
        "length": lambda x: x.norm(),
        "logsumexp": lambda x: torch.logsumexp(x.reshape(-1), 0),
        "constant": lambda values: torch.tensor(values, dtype=torch.float64),
    }
    return Adapter(**{**vars(shared_adapter("torch")), **more})


def _jax() -> Adapter:
    """Add to JAX's functions those of these tables alone."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    more = {
        "hardtanh": jax.nn.hard_tanh,
        "hardsigmoid": jax.nn.hard_sigmoid,
        "hardswish": jax.nn.hard_swish,
        "copysign": jnp.copysign,
        "clip": jnp.clip,
        "clip_low": lambda x, low: jnp.clip(x, min=low),
        "clip_high": lambda x, high: jnp.clip(x, max=high),
        "softmax": jax.nn.softmax,
        "matmul": jnp.matmul,
        "reshape": jnp.reshape,
        "square": jnp.square,
        "complex_abs": lambda a, b: jnp.abs(lax.complex(a, b)),
        "conv2d": lambda x, kernel: lax.conv(x, kernel, (1, 1), "VALID"),
        "segment_max": lambda x, index, count: jax.ops.segment_max(x, jnp.asarray(index), count),
        "segment_min": lambda x, index, count: jax.ops.segment_min(x, jnp.asarray(index), count),
        "adaptive_max_pool": lambda x, size: shared_adapter("jax").max_pool(x, x.shape[-1] // size),
        "chosen": lambda x: x[jnp.argmax(x)],
        "length": jnp.linalg.norm,
        "constant": lambda values: jnp.asarray(values, dtype="float64"),
    }
    return Adapter(**{**vars(shared_adapter("jax")), **more})


def _tensorflow() -> Adapter:
    """Name the functions of TensorFlow, and those of Keras on TensorFlow where it has none."""
    import tensorflow as tf
    from keras import config, initializers, layers, losses, ops

    assert config.backend() == "tensorflow", "Keras runs on another framework: set KERAS_BACKEND=tensorflow"
    same = "abs cos exp floor maximum minimum relu6 round sigmoid sign sin sqrt square stack tanh where zeros_like"
    nn, math = tf.nn, tf.math
    top, named = tf, {name: getattr(tf, name, None) or getattr(nn, name) for name in same.split()}

    def gradient(f: Callable[[Array], Array], x: Array) -> Array:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = f(x)
        found = tape.gradient(value, x, unconnected_gradients="zero")
        return tf.convert_to_tensor(found)

    def last(x: Array, axis: int, read: Callable[[Array], Array]) -> Array:
        return ops.moveaxis(read(ops.moveaxis(x, axis, -1)), -1, axis)

    def pool(x: Array, window: int, stride: int | None = None, padding: int = 0, dilation: int = 1) -> Array:
        d = x.ndim - 2
        assert dilation == 1
        if d == 3:
            x = tf.cast(x, "float32")  # that is all it serves
        x = ops.moveaxis(x, 1, -1)
        if padding:
            x = tf.pad(x, [(0, 0), *[(padding, padding)] * d, (0, 0)], constant_values=-float("inf"))
        own = (nn.max_pool1d, nn.max_pool2d, nn.max_pool3d)[d - 1]
        return tf.cast(ops.moveaxis(own(x, window, stride or window, "VALID"), -1, 1), "float64")

    def std(x: Array, axis: int | None = None) -> Array:
        n = float(x.shape[axis] if axis is not None else tf.size(x))
        return math.reduce_std(x, axis) * (n / (n - 1)) ** 0.5

    return Adapter(
        name="tensorflow",
        **named,
        array=lambda values, precision="double": tf.constant(
            values, dtype={"double": "float64"}.get(precision, "float32")
        ),
        numpy=lambda a: a.numpy(),
        same=lambda values, like: tf.constant(values, dtype=like.dtype),
        constant=lambda values: tf.constant(values, dtype="float64"),
        default=lambda precision: contextlib.nullcontext(),
        gradient=gradient,
        cond=lambda predicate, true, false, *operands: true(*operands) if predicate else false(*operands),
        stop_gradient=top.stop_gradient,
        relu=nn.relu,
        leaky_relu=nn.leaky_relu,
        elu=lambda x, alpha=1.0: nn.elu(x) if alpha == 1 else ops.elu(x, alpha),
        selu=nn.selu,
        celu=ops.celu,
        gelu=nn.gelu,
        hardtanh=ops.hard_tanh,
        hardsigmoid=ops.hard_sigmoid,
        hardswish=ops.hard_swish,
        softshrink=ops.soft_shrink,
        threshold=lambda x, at: ops.threshold(x, at, at),
        prelu=lambda x, slope: layers.PReLU(initializers.Constant(slope), dtype="float64")(x[None])[0],
        softplus=nn.softplus,
        softmax=nn.softmax,
        log_softmax=nn.log_softmax,
        log=math.log,
        log1p=math.log1p,
        hypot=ops.hypot,
        fmax=ops.fmax,
        fmin=ops.fmin,
        clip=tf.clip_by_value,
        clip_low=lambda x, low: tf.clip_by_value(x, low, float("inf")),
        clip_high=lambda x, high: tf.clip_by_value(x, -float("inf"), high),
        sum=tf.reduce_sum,
        mean=tf.reduce_mean,
        max=tf.reduce_max,
        min=tf.reduce_min,
        amax=tf.reduce_max,
        amin=tf.reduce_min,
        max_along=tf.reduce_max,
        min_along=tf.reduce_min,
        logsumexp=tf.reduce_logsumexp,
        cumsum=tf.cumsum,
        argmax=tf.argmax,
        median=ops.median,
        quantile=ops.quantile,
        matmul=lambda a, b: tf.linalg.matvec(a, b) if len(b.shape) == 1 else tf.matmul(a, b),
        reshape=tf.reshape,
        concat=tf.concat,
        take=lambda x, index, axis=0: tf.gather(x, index, axis=axis),
        chosen=lambda x: tf.gather(x, tf.argmax(x)),
        flip=lambda x, axis=0: tf.reverse(x, [axis]),
        roll=tf.roll,
        sort=lambda x, axis=-1, descending=False: tf.sort(x, axis, "DESCENDING" if descending else "ASCENDING"),
        top=lambda x, k, axis=-1: last(x, axis, lambda u: math.top_k(u, k).values),
        bottom=lambda x, k, axis=-1: last(x, axis, lambda u: -math.top_k(-u, k).values),
        kth=lambda x, k, axis=-1: tf.gather(tf.sort(x, axis), k - 1, axis=axis),
        segment_max=lambda x, index, count: math.segment_max(x, index),
        segment_min=lambda x, index, count: math.segment_min(x, index),
        max_pool=pool,
        adaptive_max_pool=lambda x, size: ops.adaptive_max_pool(x, size, data_format="channels_first"),
        norm=lambda x, p=2, axis=None: tf.norm(x, p, axis),
        length=tf.norm,
        matrix_norm=lambda x, p="fro": tf.norm(x, p, axis=(-2, -1)),
        std=std,
        cdist=ops.cdist,
        complex_abs=lambda a, b: tf.abs(tf.complex(a, b)),
        l1_loss=lambda x, y: losses.mean_absolute_error(y, x),
        huber_loss=lambda x, y: losses.huber(y, x),
        conv2d=lambda x, kernel: ops.moveaxis(
            nn.conv2d(ops.moveaxis(x, 1, -1), tf.transpose(kernel, (2, 3, 1, 0)), 1, "VALID"), -1, 1
        ),
    )


def _lengths(make: Callable[..., Array], index: list[int], count: int) -> Array:
    """Count the entries of each of sorted segments."""
    return make([index.count(k) for k in range(count)])
