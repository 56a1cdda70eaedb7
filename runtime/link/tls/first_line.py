"""What a connection says before TLS, where an address serves more than one session or a party cannot be reached.

    spuvm/1 to SESSION FROM TO      FROM wants to reach TO in this session
    spuvm/1 both SESSION FROM TO    the same, and TO may use the connection to reach FROM (`link/tls/shared.py`)
    spuvm/1 at SESSION FROM TO      at a relay: TO, whom nobody can reach, waits here for FROM

One line of ASCII, at most `LONGEST` bytes with its end. It proves nothing, and decides only who is connected to whom:
who somebody is, TLS finds out, which follows from end to end. A connection that begins with TLS says no line.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from dataclasses import dataclass

from spuvm.runtime.link.parties import SESSION

LONGEST = 320
PARTY = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
LINE = re.compile(rf"spuvm/1 (to|both|at) ({SESSION.pattern}) ({PARTY}) ({PARTY})\n")
BEGINS = b"spuvm/1 "
KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


@dataclass(frozen=True)
class FirstLine:
    """`verb` is `to`, `both` or `at`: see above."""

    verb: str
    session: str
    source: str
    target: str

    def __bytes__(self) -> bytes:
        return f"spuvm/1 {self.verb} {self.session} {self.source} {self.target}\n".encode()

    @property
    def pair(self) -> tuple[str, str, str]:
        """What two connections that belong together have in common."""
        return self.session, self.source, self.target


def parse(data: bytes) -> FirstLine:
    """OSError if it is none."""
    found = LINE.fullmatch(data.decode("ascii", "replace"))
    if found is None:
        raise OSError(errno.EPROTO, "it began with no line of spuvm's, and not with TLS")
    return FirstLine(*found.groups())


def hear(sock: socket.socket, seconds: float) -> FirstLine | None:
    """The line that a connection begins with, and not a byte more; None if it begins with TLS. OSError if it ends."""
    poller, end, seen = select.poll(), time.monotonic() + seconds, 0
    poller.register(sock.fileno(), select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        data = sock.recv(LONGEST, socket.MSG_PEEK)
        if not data:
            raise OSError(errno.ECONNRESET, "it closed the connection")
        if data[0] != BEGINS[0]:
            return None
        if b"\n" in data or len(data) == LONGEST:
            return parse(sock.recv(data.find(b"\n") + 1 or LONGEST))
        if len(data) == seen:  # a part of a line wakes the poll again and again
            time.sleep(0.02)
        seen = len(data)
    raise TimeoutError


def keep_alive(sock: socket.socket) -> None:
    """A connection on which nothing is said for long is neither forgotten on its way, nor dead unnoticed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
