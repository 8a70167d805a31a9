"""Text for the terminal and for notebooks: what comes from the user is shown, never obeyed."""

from __future__ import annotations

import pytest

from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import format_share, format_value, plain, render, render_html

HOSTILE = "[red]x[/red] \x1b[31mred\x1b[0m \x07 \u202egnp.exe <script>alert(1)</script> :smile: [link=http://x]y[/link]"


@pytest.mark.parametrize("result", [Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), HOSTILE), Document(HOSTILE, (HOSTILE,))])
def test_hostile_text_is_printed_as_it_stands(result: Table | Document) -> None:
    text = render(result, width=400)
    for shown in ("[red]x[/red]", "[31mred", "<script>", ":smile:", "[link=http://x]y[/link]"):
        assert shown in text
    assert not any(c in text for c in "\x1b\x07\u202e")


@pytest.mark.parametrize("result", [Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), HOSTILE), Document(HOSTILE, (HOSTILE,))])
def test_html_is_escaped(result: Table | Document) -> None:
    page = render_html(result)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert not any(c in page for c in "\x1b\x07\u202e")


def test_surrogates_of_broken_file_names_are_replaced() -> None:
    assert plain("a\udc80b\nc") == "a�b c"
    render(Table("t", ("c",), (("a\udc80b",),))).encode("utf-8")


def test_lines_are_no_wider_than_asked() -> None:
    table = Table(
        "title " * 30, tuple(f"column {k}" for k in range(8)), ((*("word " * 9 for _ in range(8)),),), "note " * 40
    )
    assert max(map(len, render(table, width=100).splitlines())) <= 100
    assert max(map(len, render(Document("d", (table, "word " * 50)), width=100).splitlines())) <= 100


def test_titles_are_not_broken_by_narrow_tables() -> None:
    assert "A title that is wider than its table" in render(
        Table("A title that is wider than its table", ("a",), ((1,),))
    )


def test_numbers_stand_to_the_right() -> None:
    lines = render(Table("t", ("n", "s"), ((1, "a"), (1000, "bbb"), (None, "c")))).splitlines()
    assert any("│     1 │ a   │" in line for line in lines) and any("│ 1,000 │ bbb │" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (1234567, "1,234,567"), (0.25, "0.25"), (float("nan"), "nan"), (float("inf"), "none"), (None, "-")],
)
def test_values(value: object, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1e-9, "~0"),
        (0.5, "50.0 %"),
        (0.00123, "0.1 %"),
        (None, "-"),
        (float("inf"), "inf"),
        (1e9, "1e+11 %"),
    ],
)
def test_shares(value: float | None, text: str) -> None:
    assert format_share(value, rounding=1e-6) == text
