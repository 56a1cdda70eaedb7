"""Results that know which run made them: the same command, run again, finds its work done and is done, too.

A party may be ended when the others have come to their end: its peers have what they wanted, and it is run again, with
them, on what it has left. So a result carries the run that made it, as an extended attribute of its file: set before
the file gets its name, with the SHA-256 of what is in it, and gone with any change. Beside the run stands a tag of each
party: an HMAC of what it brought, under a key that is the party's own. Only the party itself can tell whether it brings
the same again. Where a file system keeps no attributes, or none so large, a result is like any other file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spuvm.context import whereabouts
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.streaming.sealed import sealed, unsealed

ATTRIBUTE = "user.spuvm.run"
CONTENT = "sha256"


def mark(path: Path, made: Mapping[str, Any]) -> None:
    """Note in a file, which is whole but has not its name yet, what made it."""
    with suppress(OSError, AttributeError):  # Linux alone has this function, and not all its file systems attributes
        os.setxattr(path, ATTRIBUTE, sealed({**made, CONTENT: digest(path)}))


def made(path: Path) -> dict[str, Any] | None:
    """What made a file, if that is noted and nothing of it has changed since."""
    with suppress(OSError, AttributeError, ValueError):
        found = unsealed(os.getxattr(path, ATTRIBUTE))
        if found.pop(CONTENT, None) == digest(path):
            return found
    return None


def tag(run: str, brought: Any) -> str:
    """Of what this party brings to a run (as JSON can write it): hexadecimal, and equal only if that is equal."""
    body = f"{run} {json.dumps(brought, sort_keys=True)}".encode()
    return hmac.new(_secret(), body, hashlib.sha256).hexdigest()


def is_tag(said: str, run: str, brought: Any) -> bool:
    """Whether that is this party's tag of what it brings now; a peer may say anything."""
    return hmac.compare_digest(tag(run, brought).encode(), said.encode(errors="replace"))


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _secret() -> bytes:
    """A key that this party alone can make, at any time; none where all parties are here."""
    found = whereabouts()
    if found is None:
        return b"simulated"
    party, file = found
    with suppress(OSError, SpuError):
        _, key = load_cluster(file).credentials(party)
        return hashlib.sha256(b"spuvm finished runs" + key.read_bytes()).digest()
    return os.urandom(32)  # equal to none: nothing is recognised
