"""Plain results that every writer takes: a table, and a document of tables and paragraphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FORMAT_VERSION", "Document", "Table"]

FORMAT_VERSION = 1
"""The version of every JSON that the library writes; raised when a field changes its meaning."""


@dataclass(frozen=True)
class Table:
    """A title, the names of columns, and rows of plain values."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Document:
    """A title, and paragraphs and tables in their order."""

    title: str
    parts: tuple[str | Table, ...]
