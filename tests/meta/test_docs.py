"""The documents tell the truth: every `>>>` block of README and docs runs and prints what stands there."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nonsmooth.bounds.constants import CONSTANTS
from nonsmooth.cost.definitions import DEFINITIONS
from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def failures(text: str, name: str) -> list[str]:
    """Run the blocks of a page in one namespace, and tell which lines fail."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    source = "\n\n".join(block for block in blocks if ">>>" in block)
    test = doctest.DocTestParser().get_doctest(source, {}, name, name, 0)
    found: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=found.append)
    return found


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Take what a page registers out of the tables again."""
    every = (OPERATIONS, DEFINITIONS, CONSTANTS, *FRAMEWORK_NAMES.values())
    before = [dict(table) for table in every]
    yield
    for table, known in zip(every, before, strict=False):
        for name in set(table) - set(known):
            del table[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page: Path) -> None:
    """Run one page."""
    assert not failures(page.read_text(encoding="utf-8"), page.name)


def test_the_checker_sees_a_lie() -> None:
    """A wrong output is found."""
    assert failures("```python\n>>> 1 + 1\n3\n```\n", "lie")
    assert not failures("```python\n>>> 1 + 1\n2\n```\n", "truth")


def test_links_lead_somewhere() -> None:
    """Every relative link of every page points to a file."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_a_page_registers_is_gone() -> None:
    """The tables are those of the library."""
    assert "shifted_relu" not in OPERATIONS and "swish_of_mine" not in {*DEFINITIONS, *CONSTANTS}
