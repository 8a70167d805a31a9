"""The page: nothing of the data becomes an element, an attribute or a request, and what is drawn is what is given."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from nonsmooth.report.page import Badge, Curve, Heat, Line, Listing, Page, Section, drawing, render_page
from nonsmooth.report.table import Table

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- -->]]>&amp;&lt;",
    "a\x00b\x1b[31m\u202ec\ud800d",
    "</style><style>body{display:none}",
    "x" * 10_000,
    "javascript:alert(1)",
)


class Reader(HTMLParser):
    """Collects the elements, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str) -> Page:
    """Put one text in every place where a text can be."""
    return Page(
        title=text,
        subtitle=text,
        badges=(Badge(text, text, text),),
        numbers=((text, text),),
        sections=(
            Section(
                text,
                (
                    text,
                    Table(text, (text,), ((text,), (1.5,)), text),
                    Heat(text, (text,), (text, text), ((0.5,), (None,)), ((text,), (text,)), text, folded=1),
                    Listing(text, (Line(1, text, text, 0.5), Line(2, text))),
                    Curve(text, ((-1.0, 1.0), (0.0, 0.0), (1.0, 1.0)), -1.0, 1.0, 0.0, text),
                ),
            ),
        ),
    )


def read(page: Page) -> Reader:
    reader = Reader()
    reader.feed(render_page(page))
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text: str) -> None:
    plain, hostile = read(page_of("plain")), read(page_of(text))
    assert hostile.elements == plain.elements
    assert hostile.attributes == plain.attributes
    assert not any(name.startswith("on") for name in hostile.attributes) and "src" not in hostile.attributes
    assert "script" not in hostile.elements and "49" not in hostile.text.replace("0.49", "")
    render_page(page_of(text)).encode("utf-8")


def test_nothing_is_loaded() -> None:
    html = render_page(page_of("plain"))
    assert "default-src 'none'" in html
    assert "http://" not in html and "https://" not in html and "@import" not in html and "url(" not in html
    assert html.count("href=") == 1 and 'href="data:,"' in html


def test_everything_is_there() -> None:
    reader = read(page_of("plain"))
    assert reader.elements.count("table") == 3 and reader.elements.count("svg") == 1
    assert reader.elements.count("details") == 1 and "plain" in reader.text and "1.5" in reader.text


def test_a_drawing_is_made_of_numbers() -> None:
    drawn = drawing(Curve("", ((-1.0, 1.0), (0.0, 0.0), (1.0, 2.0)), -1.0, 2.0, None))
    assert drawn["claimed"] == "" and drawn["curve"].count("L") == 2
    left, right = drawn["left"].split(), drawn["right"].split()
    assert float(left[1]) < float(left[4]) == float(right[1]) < float(right[4])  # both meet in the middle
    assert float(left[5]) == float(right[2]) > float(right[5])  # and the right one rises


@pytest.mark.parametrize("values", [(float("nan"),) * 3, (1.0, 1.0, 1.0), (0.0, float("inf"), 0.0)])
def test_a_drawing_of_nothing(values: tuple[float, ...]) -> None:
    points = tuple(zip((-1.0, 0.0, 1.0), values, strict=True))
    assert "nan" not in str(drawing(Curve("", points, float("nan"), None, 0.0)))
