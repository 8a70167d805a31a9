"""Every work that the sources cite is in REFERENCES.bib.

A citation is a line `Source: BoltePauwels2020, Clarke1983.` of a docstring, or `references=("Clarke1983",)` of a
record. A statement of our own says `Source: derived, docs/theory/page.md.`
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIBLIOGRAPHY = ROOT / "REFERENCES.bib"

CITATION = re.compile(r"^[ \t]*Source:(.*(?:\n[ \t]*\S.*)*)", re.MULTILINE)
"""From `Source:` to the end of its paragraph."""

KEY = re.compile(r"[A-Za-z]+\d{4}[a-z]?")
ENTRY = re.compile(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.+)\},?$", re.MULTILINE)


def entries(text: str) -> list[tuple[str, dict[str, str]]]:
    """Give the key and the fields of each entry of a bibliography."""
    return [(key, dict(FIELD.findall(body))) for _, key, body in ENTRY.findall(text)]


def citations(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each citation of a Python file."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                for found in CITATION.finditer(text):
                    yield node.lineno + text.count("\n", 0, found.start()), " ".join(found[1].split()).rstrip(".")
            case ast.keyword(arg="references", value=ast.Tuple(elts=keys)):
                yield from ((key.lineno, key.value) for key in keys if isinstance(key, ast.Constant))


def faults(citation: str, known: set[str]) -> list[str]:
    """Say what is wrong with a citation: keys that are not known, or neither a key nor `derived`."""
    parts = [part.strip() for part in re.split(r"[,;]", citation)]
    keys = [part for part in parts if KEY.fullmatch(part)]
    if parts[0] == "derived":
        page = any(part.startswith("docs/theory/") for part in parts)
        return ([] if page else ["`derived` needs its page in docs/theory/"]) + _unknown(keys, known)
    if parts[0] not in keys:
        return [f"`{citation}` begins with neither a key nor `derived`"]
    return _unknown(keys, known)


def _unknown(keys: list[str], known: set[str]) -> list[str]:
    return [f"`{key}` is not in {BIBLIOGRAPHY.name}" for key in keys if key not in known]


def known_keys() -> set[str]:
    return {key for key, _ in entries(BIBLIOGRAPHY.read_text(encoding="utf-8"))}


def test_every_citation_is_in_the_bibliography() -> None:
    known = known_keys()
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line, citation in citations(path.read_text(encoding="utf-8"))
        for fault in faults(citation, known)
    ]
    assert found == []


def test_the_bibliography_is_well_formed() -> None:
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    listed = entries(text)
    keys = [key for key, _ in listed]
    assert len(keys) == len(re.findall(r"^@", text, re.MULTILINE)) > 0
    assert len(keys) == len(set(keys))
    assert [key for key, fields in listed if not {"author", "title", "year"} <= fields.keys()] == []
    assert [key for key, fields in listed if not KEY.fullmatch(key) or len(fields["year"]) != 4] == []


@pytest.mark.parametrize(
    ("citation", "fault"),
    [
        ("Clarke1983", None),
        ("Clarke1983, Theorem 2.5.1", None),
        ("BoltePauwels2020, BoltePauwels2020b, slide 49", None),
        ("derived, docs/theory/field.md", None),
        ("derived, docs/theory/field.md, Clarke1983", None),
        ("Clarke1984", "`Clarke1984` is not in"),
        ("Clarke1983, Nobody1999", "`Nobody1999` is not in"),
        ("derived, docs/theory/field.md, Nobody1999", "`Nobody1999` is not in"),
        ("derived", "needs its page"),
        ("a talk that somebody gave", "neither a key nor"),
        ("", "neither a key nor"),
    ],
)
def test_a_wrong_citation_is_found(citation: str, fault: str | None) -> None:
    found = faults(citation, known_keys())
    assert found == [] if fault is None else fault in found[0]


def test_citations_are_read_from_docstrings_and_records() -> None:
    source = '''
"""A module.

Source: Clarke1983.
"""

class Thing:
    """A class.

    Source: BoltePauwels2020,
        Theorem 1.

    More text, and a Source: of light.
    """

relu = Record("relu", references=("KakadeLee2018", "Nesterov2005"))
'''
    assert sorted(citations(source)) == [
        (4, "Clarke1983"),
        (10, "BoltePauwels2020, Theorem 1"),
        (16, "KakadeLee2018"),
        (16, "Nesterov2005"),
    ]
