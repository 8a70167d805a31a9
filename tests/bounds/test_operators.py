"""Every operator of torch on its own sample inputs: nothing that is seen on a ball about them exceeds its bound.

The samples are those that torch tests its operators with. Operators that have no constants are listed here, with the reason,
so that a new gap is seen.
"""

from __future__ import annotations

import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import CaptureError, UnlistedOperation, UsageError

torch = pytest.importorskip("torch")

PARTS = 8
LARGEST = 2000
"""More numbers than that are not moved."""

LISTED = {
    "linear algebra whose constants depend on singular values": (
        "cholesky_inverse cholesky_solve linalg_cholesky linalg_det linalg_eig linalg_eigh linalg_householder_product "
        "linalg_inv linalg_inv_ex linalg_ldl_solve linalg_lu_solve linalg_lstsq linalg_matrix_exp linalg_pinv linalg_qr "
        "linalg_slogdet linalg_solve linalg_solve_triangular linalg_svd lu_factor lu_unpack ormqr triangular_solve"
    ).split(),
    "special functions without intervals": "igamma igammac mvlgamma special_erfcx special_i0e special_i1e special_zeta".split(),
    "transforms to complex numbers": "angle polar fft_fft fft_fft2 fft_fftn fft_hfft fft_ifft fft_ifft2 fft_ifftn "
    "fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn".split(),
    "sampling at places that move": "grid_sample grid_sampler_2d grid_sampler_3d".split(),
    "products or means of any number of entries": "scatter_mean scatter_prod".split(),
    "parts of numbers, whole numbers": "frexp integer".split(),
    "pullbacks of an operation": "softmax log_softmax".split(),
}
"""Records that have no constants, by the reason."""

WITHOUT_CONSTANTS = frozenset(name for names in LISTED.values() for name in names)

NOT_SAMPLED = {
    "empty": "its entries are whatever memory holds",
    "new_empty": "its entries are whatever memory holds",
    "bernoulli": "it draws",
    "dropout": "it draws",
    "max_unpool": "where windows overlap, torch hands the cotangent to every copy of an index",
    "bfloat16": "it rounds by more than the samples are apart",
    "half": "it rounds by more than the samples are apart",
    "chalf": "it rounds by more than the samples are apart",
    "jiterator": "it runs on a GPU only",
    "index_reduce": "its formula does not take single numbers yet",
}
"""Operators whose samples say nothing, by what their names hold."""


def operators() -> list[Any]:
    """Give torch's own table of operators with sample inputs; it imports a module of tests that nothing here needs."""
    if "expecttest" not in sys.modules:
        try:
            import expecttest  # noqa: F401
        except ImportError:
            module = types.ModuleType("expecttest")
            module.TestCase = unittest.TestCase  # type: ignore[attr-defined]
            module.assert_expected_inline = None  # type: ignore[attr-defined]
            sys.modules["expecttest"] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    kept = [o for o in op_db if o.supports_dtype(torch.float64, "cpu")]
    return [
        o for o in kept if o.name != "float" and not any(word in o.name for word in NOT_SAMPLED)
    ]  # single precision


def arrays(tree: Any) -> Iterator[Any]:
    """Walk the tensors of nested arguments."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from arrays(item)
    elif isinstance(tree, dict):
        yield from arrays(list(tree.values()))


def filled(tree: Any, values: Iterator[Any]) -> Any:
    """Put tensors into nested arguments."""
    if isinstance(tree, torch.Tensor):
        return next(values)
    if isinstance(tree, tuple | list):
        return type(tree)(filled(item, values) for item in tree)
    return {k: filled(v, values) for k, v in tree.items()} if isinstance(tree, dict) else tree


class Called:
    """A call of an operator as a function of all its tensors of real numbers."""

    def __init__(self, operator: Any, sample: Any) -> None:
        self.operator, self.sample = operator, sample
        self.tree = (sample.input, tuple(sample.args), dict(sample.kwargs))
        self.tensors = [t.detach().clone() for t in arrays(self.tree)]
        dense = all(t.layout == torch.strided for t in self.tensors)
        real = [k for k, t in enumerate(self.tensors) if dense and t.dtype == torch.float64 and t.numel()]
        self.point = {f"w{k}": self.tensors[k] for k in real}

    @property
    def fits(self) -> bool:
        """Whether there is anything to move, of a size that is quick, and all of it finite."""
        sizes = sum(t.numel() for t in self.point.values())
        return 0 < sizes <= LARGEST and all(bool(torch.isfinite(t).all()) for t in self.point.values())

    def __call__(self, w: dict[str, Any]) -> Any:
        """Evaluate."""
        values = iter([w.get(f"w{k}", t) for k, t in enumerate(self.tensors)])
        first, rest, named = filled(self.tree, values)
        found = self.sample.output_process_fn_grad(self.operator.op(first, *rest, **named))
        return tuple(t for t in arrays(found) if t.is_floating_point())

    def flat(self, w: dict[str, Any]) -> Any:
        """Evaluate as one vector."""
        return torch.cat([t.reshape(-1) for t in self({k: v.clone() for k, v in w.items()})])

    def gradient(self, w: dict[str, Any], c: Any) -> dict[str, Any] | None:
        """Give the gradient of <c, f>; None where torch has none."""
        leaves = {k: v.detach().clone().requires_grad_() for k, v in w.items()}
        try:
            value = torch.cat([t.reshape(-1) for t in self(leaves)])
            found = torch.autograd.grad((value * c).sum(), list(leaves.values()), allow_unused=True)
        except RuntimeError:
            return None
        return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}


def norm(tree: dict[str, Any]) -> float:
    """Give the Euclidean norm of a tree."""
    return float(np.sqrt(sum(float(v.square().sum()) for v in tree.values())))


def draw(rng: np.random.Generator, point: dict[str, Any], r: float) -> dict[str, Any]:
    """Draw a point of the balls about each tensor, mostly on their spheres."""
    found = {}
    for k, t in point.items():
        v = rng.normal(size=tuple(t.shape))
        scale = r if rng.random() < 0.7 else r * rng.random() ** (1 / t.numel())
        found[k] = t + torch.as_tensor(scale * v / np.linalg.norm(v))
    return found


def seen(call: Called, r: float, rng: np.random.Generator, pairs: int) -> np.ndarray:
    """Give the largest size, quotient and quotient of gradients that are seen."""
    found = np.zeros(3)
    for _ in range(pairs):
        a, b = draw(rng, call.point, r), draw(rng, call.point, r)
        t = 1.0 if rng.random() < 0.4 else 1e-4
        b = {k: a[k] + t * (b[k] - a[k]) for k in a}
        first, second = call.flat(a), call.flat(b)
        if first.shape != second.shape or not (torch.isfinite(first).all() and torch.isfinite(second).all()):
            continue
        apart = norm({k: a[k] - b[k] for k in a})
        if apart == 0:
            continue
        found[:2] = np.maximum(found[:2], [float(first.norm()), float((first - second).norm()) / apart])
        c = torch.as_tensor(rng.normal(size=tuple(first.shape)))
        c = (c / c.norm()).to(first)
        before, after = call.gradient(a, c), call.gradient(b, c)
        if before is None or after is None or not np.isfinite(norm(before) + norm(after)):
            continue
        change = norm({k: before[k] - after[k] for k in before}) / apart
        found[1:] = np.maximum(found[1:], [norm(before), change])
    return found


def check(operator: Any, samples: int, pairs: int) -> list[str]:
    """List what is wrong with an operator: bounds that are exceeded, and constants that are missing."""
    torch.manual_seed(0)
    rng, faults = np.random.default_rng(len(operator.name)), []
    every = list(operator.sample_inputs("cpu", torch.float64, requires_grad=False))
    for sample in [every[k] for k in np.unique(np.linspace(0, len(every) - 1, samples).astype(int))] if every else []:
        call = Called(operator, sample)
        for r in (0.05, 1.5) if call.fits else ():
            try:
                limit = ns.bounds(call, call.point, weights=ns.Ball(r, "here")).both
                found = seen(call, r, rng, pairs)
            except UnlistedOperation as error:
                named = str(error).split("`")[1]
                if str(error).startswith("bounds") and named not in WITHOUT_CONSTANTS:
                    faults.append(f"{operator.formatted_name}: {named} has no constants")
                break
            except (CaptureError, UsageError):
                break
            except RuntimeError as error:  # what torch itself cannot differentiate, or refuses beside the sample
                if type(error) is not RuntimeError:
                    raise
                break
            limits = np.array([limit.norm, limit.lipschitz, limit.smoothness])
            if not np.all(found <= limits * (1 + 1e-6) + np.array([1e-9, 1e-8, 1e-5]) * (1 + found)):
                faults.append(f"{operator.formatted_name} {call.tree[1:]} r={r}: seen {found}, bounds {limits}")
    return faults


def swept(part: int, samples: int, pairs: int, every: int = 1) -> list[str]:
    """Check a part of the operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [f for o in operators()[part :: PARTS * every] for f in check(o, samples, pairs)]


@pytest.mark.parametrize("part", range(PARTS))
def test_operators_stay_below_their_bounds(part: int) -> None:
    """A sample or two of every fourth operator."""
    assert swept(part, 2, 2, every=4) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_operators_stay_below_their_bounds(part: int) -> None:
    """Several samples of every operator."""
    assert swept(part, 6, 6) == []


def test_the_check_finds_a_bound_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the constant of a change of sign is exceeded."""
    from nonsmooth.bounds.constants import CONSTANTS
    from nonsmooth.bounds.reach import Local

    monkeypatch.setitem(CONSTANTS, "neg", lambda call: Local([0.5], {}, call.x.norm))
    (operator,) = [o for o in operators() if o.name == "neg"]
    assert check(operator, 2, 4)
