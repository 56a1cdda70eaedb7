"""What the parties of a run tell each other in the open before it starts; what a peer says is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from spuvm import context as contexts
from spuvm.flow.checkpoints import MADE
from spuvm.runtime.errors import PeerMismatchError

LABEL = re.compile(r"[0-9a-f]{32}")
MOST = 64 << 20  # bytes that one party says


def said(mine: Mapping[str, Any], check: Callable[[Any], bool], what: str) -> dict[str, Any]:
    """What every party says, by party; `mine` is of the parties that this process is.

    Raises:
        PeerMismatchError: for what is not of the form that `check` wants.
    """
    parties, link = contexts.everyone()
    if link is None:
        return dict(mine)
    (own,) = mine.values()
    heard = {}
    with contexts.abort_everyone_on_error():
        for party, body in zip(parties, link.gather(json.dumps(own).encode(), counted=False)):
            heard[party] = _read(body)
            if len(body) > MOST or not check(heard[party]):
                raise PeerMismatchError(f"{party} says its {what} in a way that this version does not know.")
    return heard


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def is_label(x: Any) -> bool:
    """128 bits, as hex digits."""
    return isinstance(x, str) and LABEL.fullmatch(x) is not None


def are_labels(x: Any) -> bool:
    """By node, labels of tables."""
    return isinstance(x, dict) and all(map(is_label, x.values()))


def are_marks(x: Any) -> bool:
    """By node, names of makings."""
    return isinstance(x, dict) and all(isinstance(v, str) and MADE.fullmatch(v) for v in x.values())


def are_reasons(x: Any) -> bool:
    """By node, short texts."""
    return isinstance(x, dict) and all(isinstance(v, str) and len(v) < 500 and v.isprintable() for v in x.values())


def is_number(x: Any) -> bool:
    """A small whole number."""
    return isinstance(x, int) and not isinstance(x, bool) and 0 < x < 1 << 31
