"""The gate: which findings of an audit make a run fail, by words (`--fail-on differs,jump,nan`)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nonsmooth.errors import UsageError

if TYPE_CHECKING:
    from nonsmooth.audit.audit import Audit

__all__ = ["WORDS", "failure_text", "failures", "parse_words"]

WORDS: Mapping[str, str] = {
    "differs": "backprop's gradient differs from a certified subgradient",
    "artifact": "backprop's gradient is certified to be no subgradient",
    "undecided": "no subgradient could be certified",
    "jump": "the program jumps at the point",
    "singular": "an operation is at a point where it is not Lipschitz",
    "nan": "the value or the gradient holds nan or inf",
    "kink": "a kink is active that can matter",
}
"""The words of `--fail-on`, with what each of them looks for."""


def parse_words(text: str) -> tuple[str, ...]:
    """Read a list of words, separated by commas.

    Raises:
        UsageError: a word is unknown, or there is none.

    >>> parse_words("jump, nan")
    ('jump', 'nan')
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word.lower(), list(WORDS), 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(f"--fail-on {word!r} is no finding{hint}; the words are {', '.join(WORDS)}.")
    if not words:
        raise UsageError(f"--fail-on names no finding; the words are {', '.join(WORDS)}, separated by commas.")
    return words


def failures(audit: Audit, words: tuple[str, ...]) -> dict[str, int]:
    """Count the findings of each word that is present.

    `differs` (which an artifact does too), `artifact` and `undecided` are the verdict; `jump` and `singular` count the
    findings of these names, `kink` the groups of kinks that can matter, `nan` the value and the gradient.

    >>> import torch
    >>> import nonsmooth as ns
    >>> audit = ns.audit(lambda t: torch.relu(t) - torch.relu(-t), torch.tensor(0.0))
    >>> failures(audit, ("differs", "jump", "kink"))
    {'differs': 1, 'kink': 2}
    """
    matter = [r for r in audit.kinks if r.active and r.can_matter != 0 and r.kind not in ("jump", "singular")]
    counts = {
        "differs": int(audit.verdict.word in ("differs", "artifact")),
        "artifact": int(audit.verdict.word == "artifact"),
        "undecided": int(audit.verdict.word == "undecided"),
        "jump": len(audit.find("jump")),
        "singular": len(audit.find("singular")),
        "nan": int(not math.isfinite(audit.value)) + int(audit.bad_entries > 0),
        "kink": len(matter),
    }
    return {word: counts[word] for word in words if counts[word]}


def failure_text(found: Mapping[str, int]) -> str:
    """Say which words were found, and how often.

    >>> failure_text({"jump": 2, "differs": 1})
    'failed on jump (2 findings), differs (1 finding)'
    """
    parts = (f"{word} ({count} finding{'s' * (count != 1)})" for word, count in found.items())
    return f"failed on {', '.join(parts)}"
