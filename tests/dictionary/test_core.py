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
def test_the_excluded_are_refused(name: str) -> None:
    import nonsmooth as ns

    with pytest.raises(ns.errors.CaptureError, match="resize"):
        ns.capture(lambda x: (x * 1.0).resize_(2).sum(), torch.ones(4))
