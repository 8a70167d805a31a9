"""Names of values: Python identifiers, made of the paths of leaves in their trees."""

from __future__ import annotations

import keyword
import re

__all__ = ["identifier"]


def identifier(name: str) -> str:
    """Make a Python identifier of the name of a leaf.

    >>> identifier("0.weight"), identifier("fc.bias"), identifier("class")
    ('x_0_weight', 'fc_bias', 'x_class')
    """
    clean = re.sub(r"\W", "_", name, flags=re.ASCII) or "x"
    return f"x_{clean}" if clean[0].isdigit() or keyword.iskeyword(clean) else clean
