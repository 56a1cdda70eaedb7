"""Text of others, as it may be shown: nothing in it moves a terminal's cursor, hides or reorders what is read.

Control characters, line ends other than `\\n` where lines are wanted, and the format characters of Unicode (among
them those that turn the direction of writing: "Trojan Source", Boucher and Anderson, arXiv 2111.00169) become `?`.
"""

from __future__ import annotations

import unicodedata

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # categories of characters that nobody sees


def legible(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    """The text, of at most `limit` characters; line ends stay if `lines`."""
    shown = text if limit is None else text[:limit]
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join("?" if hidden(c) and not (lines and c == "\n") else c for c in shown)


def hidden(character: str) -> bool:
    """Whether a character is not seen, or changes how others are."""
    return unicodedata.category(character) in HIDDEN
