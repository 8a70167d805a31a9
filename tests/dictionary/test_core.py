"""Every core operator of torch is served: computed from torch's own registry."""

from __future__ import annotations

import pytest
import torch

from nonsmooth.frameworks.torch import names
from nonsmooth.frameworks.torch.operators import served

EXCLUDED = {
    "resize": "gives a tensor other memory, which is no function of its values",
}
"""Core operators that no program can contain, each with its reason."""


def core_operators() -> list[torch._ops.OpOverload]:
    """List the operators of aten that carry torch's tag `core`."""
    found = []
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        packet_name, _, overload = name.partition(".")
        packet = getattr(torch.ops.aten, packet_name, None) if namespace == "aten" else None
        if packet is not None and (overload or "default") in packet.overloads():
            operator = getattr(packet, overload or "default")
            if torch.Tag.core in operator.tags:
                found.append(operator)
    return found


def missing() -> set[str]:
    """Name the core operators that are not served."""
    return {names.packet_name(o) for o in core_operators() if not served(o)}


def test_no_core_operator_is_missing() -> None:
    assert len(core_operators()) > 150
    assert missing() == set(EXCLUDED)


@pytest.mark.parametrize("name", ["relu", "convolution", "sort", "_fft_r2c"])
def test_a_row_that_is_taken_away_is_missed(name: str) -> None:
    row = names.TABLE.pop(name)
    try:
        assert name in missing() or getattr(torch.ops.aten, name).default._can_decompose()
    finally:
        names.TABLE[name] = row


@pytest.mark.parametrize("name", EXCLUDED)
def test_torch_has_no_derivative_of_the_excluded(name: str) -> None:
    """They have a kernel for autograd only to refuse what has a derivative."""
    with pytest.raises(RuntimeError, match="that require grad"):
        getattr(torch.ones(4, requires_grad=True).clone(), f"{name}_")(2)


@pytest.mark.parametrize("name", EXCLUDED)
def test_the_excluded_are_refused(name: str) -> None:
    import nonsmooth as ns

    with pytest.raises(ns.errors.CaptureError, match="resize"):
        ns.capture(lambda x: (x * 1.0).resize_(2).sum(), torch.ones(4))


SQUARE = torch.tensor([[1.5, 0.2, 0.4], [0.2, 1.1, 0.3], [0.4, 0.3, 1.7]])

CALLS = {
    "geqrf": lambda x: torch.geqrf(x)[0],
    "linalg_ldl_factor_ex": lambda x: torch.linalg.ldl_factor_ex(x)[0],
    "linalg__powsum": lambda x: torch.ops.aten.linalg__powsum(x, 2.0),
    "histogram": lambda x: torch.histogram(x, 3)[0],
    "unique_consecutive": lambda x: torch.unique_consecutive(x),
    "unique_dim_consecutive": lambda x: torch.unique_consecutive(x, dim=0),
    "embedding_renorm": lambda x: torch.embedding_renorm_(x * 1.0, torch.tensor([0]), 0.1, 2.0),
}


@pytest.mark.parametrize("name", sorted(names.WITHOUT_DERIVATIVE))
def test_torch_has_no_derivative_of_these(name: str) -> None:
    """It says so, or returns what has no graph; capture refuses them and says why."""
    import nonsmooth as ns

    call = CALLS.get(name) or getattr(torch.special, name.removeprefix("special_"))
    call = (lambda x, p=call: p(x, torch.tensor(2.0))) if "polynomial" in name else call
    x = SQUARE.clone().requires_grad_()
    try:
        result = call(x)
        assert not result.requires_grad or torch.autograd.grad(result.sum(), x)
        differentiable = result.requires_grad
    except RuntimeError as error:
        assert "not implemented" in str(error)
        differentiable = False
    assert not differentiable
    with pytest.raises(ns.errors.UnlistedOperation, match="torch itself has no derivative"):
        ns.capture(lambda x: call(x).sum(), SQUARE)
