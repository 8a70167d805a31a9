"""A report as a folder of files: report.json, report.txt, report.html and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nonsmooth.errors import UsageError

if TYPE_CHECKING:
    from nonsmooth.report.page import Page

__all__ = ["Draw", "write_report"]

Draw: TypeAlias = Callable[[Path], None]
"""What writes one picture to a path."""


def write_report(
    folder: str | os.PathLike[str],
    result: Any,
    pictures: Mapping[str, Draw],
    *,
    text: str = "",
    page: Page | None = None,
) -> tuple[Path, ...]:
    """Write a result that has `to_json()` and `str()` (or the text given), its page and its pictures; give the paths.

    Raises:
        UsageError: the folder cannot be made or written to.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / "report.json", target / "report.txt"]
        paths[0].write_text(result.to_json() + "\n", encoding="utf-8")
        paths[1].write_text((text or str(result)) + "\n", encoding="utf-8")
        if page is not None:
            from nonsmooth.report.page import render_page

            paths.append(target / "report.html")
            paths[-1].write_text(render_page(page), encoding="utf-8")
        for name, draw in pictures.items():
            paths.append(target / f"{name}.png")
            draw(paths[-1])
    except OSError as error:
        raise UsageError(f"the report cannot be written to {str(folder)!r}: {error.strerror or error}.") from error
    return tuple(paths)
