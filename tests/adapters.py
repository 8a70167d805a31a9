"""The frameworks under test: what each calls an operation, and how its arrays are made and read.

A case of the tables is written once, `lambda xp, x: xp.relu(x) - xp.relu(-x)`, and run with the adapter of every installed
framework. Where a framework has a function of its own for an operation the attribute *is* that function, so that the line
of the case remains the innermost one of the user's; the few others are one-line formulas. The names are those of the
array API, then of `torch.nn.functional`. One namespace a framework, hence a long file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = [
    "FRAMEWORKS",
    "LIBRARIES",
    "SERVED",
    "Adapter",
    "adapter",
    "adapter_of",
    "installed",
    "is_installed",
    "served",
    "version",
]

Array = Any
Function = Callable[..., Any]

FRAMEWORKS = ("torch", "jax", "tensorflow")
"""All that the suite has a run for, in their order: what needs no framework is tested in the first."""

SERVED = ("torch", "jax")
"""Those whose functions are captured: the tables of cases run on each that is installed."""

LIBRARIES = ("keras", "equinox", "flax", "optax")
"""What runs on frameworks: Keras in every run with that framework as its backend."""

DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow_cpu")}

DTYPES = {"double": "float64", "single": "float32"}


def is_installed(name: str) -> bool:
    """Tell whether a package can be imported here, without importing it."""
    return importlib.util.find_spec(name) is not None


def installed() -> tuple[str, ...]:
    """Give the frameworks that can be imported here."""
    return tuple(name for name in FRAMEWORKS if is_installed(name))


def served() -> tuple[str, ...]:
    """Give those of them whose functions are captured."""
    return tuple(name for name in SERVED if is_installed(name))


def version(name: str) -> str:
    """Give the version of an installed package, without importing it."""
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "of unknown version"


class Adapter(SimpleNamespace):
    """A framework under test: its name, its operations by their common names, and its arrays.

    Beside the operations: `array(values, precision)`, `numpy(array)`, `same(values, like)`, a constant of another array's
    type, `gradient(f, x)`, the framework's own, `cond` and `while_loop`, and `default(precision)`, the context in which
    arrays of a precision are made.
    """

    name: str

    def __repr__(self) -> str:
        return f"{self.name} {version(self.name)}"


@functools.cache
def adapter(framework: str) -> Adapter:
    """Give the adapter of a framework; it is imported now."""
    return {"torch": _torch, "jax": _jax}[framework]()


def adapter_of(x: Array) -> Adapter:
    """Give the adapter of an array."""
    return adapter("torch" if type(x).__module__.partition(".")[0] == "torch" else "jax")


# --- torch ------------------------------------------------------------------------------------------------------------


def _torch() -> Adapter:
    """Name torch's functions."""
    import torch
    from torch.nn import functional as F

    def gradient(f: Function, x: Array) -> Array:
        leaf = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(f(leaf), leaf, allow_unused=True, materialize_grads=True)
        return found

    def while_loop(condition: Function, body: Function, start: Any) -> Any:
        while condition(start):
            start = body(start)
        return start

    def pool(x: Array, window: int, stride: int | None = None, padding: int = 0, dilation: int = 1) -> Array:
        return getattr(F, f"max_pool{x.ndim - 2}d")(x, window, stride, padding, dilation)

    own = {name: getattr(torch, name) for name in _SAME_IN_ARRAYS}
    own |= {name: getattr(F, name) for name in _SAME_IN_NETWORKS}
    return Adapter(
        name="torch",
        **own,
        array=lambda values, precision="double": torch.tensor(values, dtype=getattr(torch, DTYPES[precision])),
        numpy=lambda a: a.detach().cpu().numpy(),
        same=lambda values, like: torch.as_tensor(values, dtype=like.dtype),
        default=lambda precision: contextlib.nullcontext(),
        gradient=gradient,
        evaluating=torch.no_grad,
        cond=lambda predicate, true, false, *operands: true(*operands) if predicate else false(*operands),
        while_loop=while_loop,
        stop_gradient=torch.detach,
        hardtanh=F.hardtanh,
        hardsigmoid=F.hardsigmoid,
        hardswish=F.hardswish,
        softsign=F.softsign,
        hardshrink=F.hardshrink,
        cdist=torch.cdist,
        dist=torch.dist,
        concat=torch.cat,
        take=lambda x, index, axis=0: torch.index_select(x, axis, index),
        flip=lambda x, axis=0: torch.flip(x, (axis,)),
        roll=lambda x, shift, axis: torch.roll(x, shift, axis),
        max_along=lambda x, axis: torch.max(x, axis).values,
        min_along=lambda x, axis: torch.min(x, axis).values,
        sort=lambda x, axis=-1, descending=False: torch.sort(x, axis, descending).values,
        argsort=torch.argsort,
        top=lambda x, k, axis=-1: torch.topk(x, k, axis).values,
        bottom=lambda x, k, axis=-1: torch.topk(x, k, axis, largest=False).values,
        kth=lambda x, k, axis=-1: torch.kthvalue(x, k, axis).values,
        cummax=lambda x, axis=0: torch.cummax(x, axis).values,
        cummin=lambda x, axis=0: torch.cummin(x, axis).values,
        quantile=lambda x, q: torch.quantile(x, torch.as_tensor(q, dtype=x.dtype)),
        segment_max=lambda x, index, count: torch.full((count,), -1.0, dtype=x.dtype).scatter_reduce(
            0, torch.as_tensor(index), x, "amax"
        ),
        max_pool=pool,
        norm=lambda x, p=2, axis=None: torch.linalg.vector_norm(x, p, dim=axis),
        matrix_norm=torch.linalg.matrix_norm,
        std=lambda x, axis=None: torch.std(x, axis),
        eigvalsh=torch.linalg.eigvalsh,
        svdvals=torch.linalg.svdvals,
        any=torch.any,
        cross_entropy=lambda x, label: F.cross_entropy(x[None], torch.tensor([label])),
    )


_SAME_IN_ARRAYS = (
    "abs amax amin argmax asinh clip cos cumsum diag exp floor fmax fmin hypot log log1p logaddexp logsumexp max maximum "
    "mean median min minimum remainder round sign sin sqrt stack sum tanh where zeros_like"
).split()
"""What torch and jax.numpy call the same, and mean the same by for the arguments in the tables."""

_SAME_IN_NETWORKS = "celu elu gelu leaky_relu log_softmax relu relu6 selu sigmoid softplus".split()
"""What torch.nn.functional and jax.nn call the same."""


# --- jax --------------------------------------------------------------------------------------------------------------


def _jax() -> Adapter:
    """Name JAX's functions."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def pool(x: Array, window: int, stride: int | None = None, padding: int = 0, dilation: int = 1) -> Array:
        axes = (1, 1), x.ndim - 2
        widths = [(0, 0)] * 2 + [(padding, padding)] * axes[1]
        sizes, steps, holes = ((1, 1) + (n,) * axes[1] for n in (window, stride or window, dilation))
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, steps, widths, window_dilation=holes)

    def gradient(f: Function, x: Array) -> Array:
        """Fall back on forward mode: JAX has no backward pass of loops of unknown length."""
        try:
            return jax.grad(f)(x)
        except ValueError:
            return jax.jacfwd(f)(x)

    def std(x: Array, axis: int | None = None) -> Array:
        return jnp.std(x, axis=axis, ddof=1)

    own = {name: getattr(jnp, name) for name in _SAME_IN_ARRAYS if name != "logsumexp"}
    own |= {name: getattr(jax.nn, name) for name in _SAME_IN_NETWORKS}
    return Adapter(
        name="jax",
        **own,
        array=lambda values, precision="double": jnp.asarray(values, dtype=DTYPES[precision]),
        numpy=np.asarray,
        same=lambda values, like: jnp.asarray(values, dtype=like.dtype),
        default=lambda precision: jax.enable_x64(precision == "double"),
        gradient=gradient,
        evaluating=contextlib.nullcontext,
        cond=lax.cond,
        while_loop=lax.while_loop,
        stop_gradient=lax.stop_gradient,
        logsumexp=jax.nn.logsumexp,
        hardtanh=jax.nn.hard_tanh,
        hardsigmoid=jax.nn.hard_sigmoid,
        hardswish=jax.nn.hard_swish,
        softsign=jax.nn.soft_sign,
        concat=jnp.concat,
        take=jnp.take,
        flip=lambda x, axis=0: jnp.flip(x, axis),
        roll=jnp.roll,
        max_along=jnp.max,
        min_along=jnp.min,
        sort=jnp.sort,
        argsort=jnp.argsort,
        top=lambda x, k, axis=-1: lax.top_k(x, k, axis=axis)[0],
        bottom=lambda x, k, axis=-1: -lax.top_k(-x, k, axis=axis)[0],
        kth=lambda x, k, axis=-1: jnp.take(jnp.sort(x, axis), k - 1, axis),
        cummax=lambda x, axis=0: lax.cummax(x, axis),
        cummin=lambda x, axis=0: lax.cummin(x, axis),
        quantile=lambda x, q: jnp.quantile(x, jnp.asarray(q, dtype=x.dtype)),
        segment_max=lambda x, index, count: jnp.full(count, -1.0, x.dtype).at[jnp.asarray(index)].max(x),
        max_pool=pool,
        norm=lambda x, p=2, axis=None: jnp.linalg.norm(x if axis is not None else x.reshape(-1), p, axis),
        matrix_norm=lambda x, p="fro": jnp.linalg.norm(x, p),
        std=std,
        eigvalsh=jnp.linalg.eigvalsh,
        svdvals=jnp.linalg.svdvals,
        any=jnp.any,
        cross_entropy=lambda x, label: -jax.nn.log_softmax(x)[label],
    )
