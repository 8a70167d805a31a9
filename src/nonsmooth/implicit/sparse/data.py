"""What a user passes, read and checked: designs, targets, labels, penalties."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError

__all__ = ["Indices", "Vector", "means", "read_design", "read_labels", "read_penalty", "read_target"]

Vector = NDArray[np.float64]

Indices = NDArray[np.intp]


def read_design(X: Any, what: str = "X") -> Vector:
    """Read a design matrix: two axes, not empty, finite."""
    found = _numbers(X, what)
    if found.ndim != 2 or not found.size:
        raise UsageError(
            f"{what} has shape {found.shape}; pass an array of shape (samples, features), neither of them 0."
        )
    return found


def means(X: Vector) -> Vector:
    """Give the mean of each column, of a constant one exactly, so that it is 0 when it is centred, whatever its size.

    >>> X = np.full((3, 1), 0.1)
    >>> (X - means(X)).any(), (X - X.mean(0)).any()
    (np.False_, np.True_)
    """
    return np.asarray(X[0] + (X - X[0]).mean(0))


def read_target(y: Any, samples: int, what: str = "y") -> Vector:
    """Read a target: a finite number for each sample."""
    found: Vector = _one_each(_numbers(y, what), samples, what)
    return found


def read_labels(y: Any, samples: int, what: str = "y", classes: Any = None) -> tuple[Vector, Any]:
    """Read the labels of two classes as -1 and +1, in their sorted order; give them with the classes.

    >>> read_labels(["no", "yes", "no"], 3)
    (array([-1.,  1., -1.]), array(['no', 'yes'], dtype='<U3'))
    """
    labels = _one_each(np.asarray(y), samples, what)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise UsageError(f"{what} has entries that are nan or infinite; pass the labels of two classes.")
    found = np.unique(labels) if classes is None else np.asarray(classes)
    if len(found) != 2:
        raise UsageError(
            f"{what} has {len(found)} class{'' if len(found) == 1 else 'es'}: {found[:5].tolist()}. Pass the labels of two "
            "classes; for more, take one against the rest (sklearn.multiclass.OneVsRestClassifier)."
        )
    if not np.isin(labels, found).all():
        raise UsageError(f"{what} has labels other than {found.tolist()}, the classes that were fitted.")
    return np.where(labels == found[1], 1.0, -1.0), found


def read_penalty(penalty: Any, names: tuple[str, ...]) -> Vector:
    """Read one positive number for each hyper-parameter; a single one needs no list.

    >>> read_penalty(0.5, ("l1",))
    array([0.5])
    """
    found = np.atleast_1d(_numbers(penalty, "the penalty"))
    if found.shape != (len(names),):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise UsageError(f"The penalty has shape {found.shape}; pass {len(names)} positive number(s): {shown}.")
    if (found <= 0).any():
        k = int((found <= 0).argmax())
        raise UsageError(
            f"The hyper-parameter {names[k]} is {found[k]:g}; pass a positive number. (A problem without that term is another "
            "problem, such as Lasso instead of ElasticNet.)"
        )
    return found


def _numbers(values: Any, what: str) -> Vector:
    """Read an array of finite real numbers, in double precision."""
    if hasattr(values, "toarray"):
        raise UsageError(f"{what} is a sparse matrix, which is not served; pass {what}.toarray().")
    try:
        raw = np.asarray(values)
        if raw.dtype.kind == "c":
            raise TypeError("complex numbers")
        found = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch, of tensors that require a gradient
        raise UsageError(f"{what} is no array of real numbers: {str(error).rstrip('.')}.") from None
    if not np.isfinite(found).all():
        raise UsageError(f"{what} has entries that are nan or infinite; leave those samples out, or impute them.")
    return found


def _one_each(values: Any, samples: int, what: str) -> Any:
    """Refuse what is not one entry for each sample; a single column is one axis."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (samples,):
        raise UsageError(f"{what} has shape {values.shape}, and there are {samples} samples; pass one entry for each.")
    return values
