"""What every result that is laid out as a document can do: print itself, show itself in a notebook, become JSON."""

from __future__ import annotations

from typing import ClassVar

from nonsmooth.report.json_text import to_json
from nonsmooth.report.table import Document
from nonsmooth.report.text import render, render_html

__all__ = ["Reported"]


class Reported:
    """A plain result with a `document()`."""

    WIDTH: ClassVar[int] = 100
    """Columns of its printed form, at most."""

    def document(self) -> Document:
        """Lay the result out for reading."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Print the result."""
        return render(self.document(), width=self.WIDTH)

    def _repr_html_(self) -> str:
        """Show the result in a notebook."""
        return render_html(self.document())

    def to_json(self) -> str:
        """Write the result as strict JSON."""
        return to_json(self)
