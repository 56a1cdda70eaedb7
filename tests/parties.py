"""Parties as threads, and a party whose certificate is somebody else's."""

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spuvm.runtime.link.certificates import issue, make_authority


def run_threads(bodies: Sequence[Callable[[], Any]], limit: float = 60) -> list[Any]:
    """Run one thread per body; what each returned or raised. None may take longer than `limit` seconds."""
    results: list[Any] = [None] * len(bodies)

    def run(i: int) -> None:
        try:
            results[i] = bodies[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
        assert not thread.is_alive()
    return results


def keys_of_another_authority(folder: Path, party: str) -> Path:
    """A copy of `folder`/keys in which another authority made the certificate of `party`: its cluster file."""
    theirs = folder / "theirs"
    shutil.copytree(folder / "keys", theirs)
    make_authority(theirs / "new")
    issue(theirs / "new", party)
    for end in ("crt", "key"):
        shutil.copy(theirs / "new" / f"{party}.{end}", theirs / f"{party}.{end}")
    return theirs / "cluster.toml"
