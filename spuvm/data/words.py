"""For messages: what there is, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """The names there are, the first twenty of them."""
    if not names:
        return "there are no columns"
    return "there are " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name that was probably meant, in brackets; or nothing."""
    found = difflib.get_close_matches(name, known, 1) or [k for k in known if k.lower() == name.lower()][:1]
    return f" (did you mean `{found[0]}`?)" if found else ""
