"""The JSON writer: any plain result as strict JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from nonsmooth.report.table import FORMAT_VERSION

__all__ = ["plain_data", "to_json"]


def to_json(result: Any) -> str:
    """Write a plain result as strict JSON with a format version; what is not finite is "nan", "inf" or "-inf".

    >>> from nonsmooth.report.table import Table
    >>> print(to_json(Table("t", ("a",), ((float("nan"),),))))
    {
      "format_version": 1,
      "title": "t",
      "columns": [
        "a"
      ],
      "rows": [
        [
          "nan"
        ]
      ],
      "note": ""
    }
    """
    data = plain_data(result)
    body = data if isinstance(data, dict) else {"result": data}
    return json.dumps({"format_version": FORMAT_VERSION, **body}, indent=2, allow_nan=False)


def plain_data(value: Any) -> Any:
    """Turn a result into what JSON has: dataclasses and mappings into objects, sequences and arrays into lists."""
    if isinstance(value, Enum):
        return plain_data(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [f.name for f in dataclasses.fields(value) if f.repr]
        return {name: plain_data(getattr(value, name)) for name in shown}
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain_data(value.tolist())
    if isinstance(value, tuple | list | set | frozenset):
        return [plain_data(item) for item in value]
    return str(value) if isinstance(value, PurePath) else repr(value)
