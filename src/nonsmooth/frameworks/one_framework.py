"""Point, data and function of one framework: what is said where they are of two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nonsmooth.errors import NonsmoothError, UsageError

__all__ = ["one_framework"]

ARRAYS = {"torch": "torch.Tensor", "jax": "jax.Array"}
"""What each framework calls its arrays."""

SIGNS = {"torch": ("Tensor",), "jax": ("Tracer", "ArrayImpl", "JAX", "jax")}
"""Words of the errors by which a framework refuses the arrays of another."""


def _framework_of(leaf: Any) -> str | None:
    """Give the name of the framework whose array something is; None if it is none."""
    for name, word in ARRAYS.items():
        module = sys.modules.get(name)
        if module is not None and isinstance(leaf, getattr(module, word.partition(".")[2], ())):
            return name
    return None


def _foreign(name: str, tree: Any) -> str | None:
    """Name another framework that has an array in nested containers."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, list | tuple):
        return next((found for found in (_foreign(name, item) for item in tree) if found), None)
    found = _framework_of(tree)
    return found if found != name else None


@contextmanager
def one_framework(name: str, data: Any) -> Iterator[None]:
    """Run a function on a point of a framework, and say so where an error comes of arrays of two.

    Raises:
        UsageError: the function raises, and the data hold arrays of another framework than the point.
    """
    try:
        yield
    except NonsmoothError:
        raise
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        other = _foreign(name, data)
        if other is not None:
            convert = "jnp.asarray(t.numpy())" if name == "jax" else "torch.from_numpy(numpy.array(a))"
            raise UsageError(
                f"the point is of {name}, and the data hold a {ARRAYS[other]}: the function cannot work on both. Convert the "
                f"data: {convert}. It said: {str(error).splitlines()[0]}"
            ) from error
        for other, word in ARRAYS.items():
            if other != name and other in sys.modules and _met(error, name) and _met(error, other):
                error.add_note(
                    f"nonsmooth: the point is made of {ARRAYS[name]}s, and the function calls {other}, which takes {word}s: "
                    f"write it with {'jax.numpy' if name == 'jax' else 'torch'}, or pass a point of {other}."
                )
        raise


def _met(error: Exception, name: str) -> bool:
    """Tell whether the words of an error name the arrays of a framework."""
    return any(sign in str(error) for sign in SIGNS[name])
