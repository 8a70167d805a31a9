"""The rows by which torch's operators read as calls of records."""

from __future__ import annotations

import pytest
import torch

from nonsmooth.frameworks.torch.names import bind
from nonsmooth.frameworks.torch.rows import ALIASES, SPECIAL, TABLE


@pytest.mark.parametrize("key", [k for k in TABLE if TABLE[k].operands])
def test_operands_are_arguments_of_the_operator(key: str) -> None:
    """What a row names as operands every overload that it serves takes."""
    name, _, overload = key.partition(".")
    packet = getattr(torch.ops.aten, name)
    for given in packet.overloads():
        if (overload and given != overload) or (not overload and f"{name}.{given}" in TABLE):
            continue
        arguments = getattr(packet, given)._schema.arguments
        if not any("Tensor" in str(a.type) for a in arguments):
            continue  # of numbers alone
        names = {a.name for a in arguments}
        assert set(TABLE[key].operands or ()) <= names, given


def test_an_alias_keeps_its_own_row() -> None:
    """The row of the record that an alias is does not replace the alias's own."""
    both = [name for name, other in ALIASES.items() if name in SPECIAL and other in SPECIAL]
    assert "_linalg_eigh" in both
    assert all(TABLE[name] is SPECIAL[name] for name in both)
    binding = bind(torch.ops.aten._linalg_eigh.default, (torch.eye(2),), {})
    assert binding is not None and binding.operation.name == "linalg_eigh" and len(binding.operands) == 1
