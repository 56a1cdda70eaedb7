"""What sessions exchanged, in a file: a line of JSON each, added when it ends; in, a link, out, sums over all lines.

A process that was killed has added nothing. Rounds and bytes are those that the compiler predicts (`Counters`).
"""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from spuvm.runtime.link.link import Link

log = logging.getLogger(__name__)


def add_line(path: Path, link: Link) -> None:
    """Add what a link exchanged: `{"rounds": 3, "sent": {"bob": 24}, "received": {"carol": 24}}`.

    That it cannot be written ends no session.
    """
    counters = link.counters
    sent, received = (
        {link.parties[rank]: n for rank, n in by_rank.items() if n}
        for by_rank in (counters.bytes_sent, counters.bytes_received)
    )
    line = json.dumps({"rounds": counters.rounds, "sent": sent, "received": received}) + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab", buffering=0) as file:
            file.write(line.encode())  # at once: lines of several processes do not mix
    except OSError as error:
        log.warning("what was exchanged could not be added to %s: %s", path, error)


def summed(path: Path) -> dict[str, Any] | None:
    """Rounds, and bytes by peer, of all sessions of a file; None if there is none, or if it is damaged."""
    rounds, sent, received = 0, Counter[str](), Counter[str]()
    try:
        for line in path.read_text().splitlines():
            told = json.loads(line)
            rounds += int(told["rounds"])
            sent.update({str(peer): int(n) for peer, n in told["sent"].items()})
            received.update({str(peer): int(n) for peer, n in told["received"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return {"rounds": rounds, "sent": dict(sent), "received": dict(received)}
