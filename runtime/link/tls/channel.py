"""One TCP connection under TLS 1.3, with certificates on both sides.

TLS runs between memory buffers here, and whole blocks of records go to and from the socket: a
system call for each 16 KiB record, twice that to receive one, would cost more than encryption.

A certificate names a party (DNS name or common name), not a host: TLS checks that the cluster's
authority issued it, `link/tls/hello.py` whose it is.

AES-GCM keeps its margin (2^-57, RFC 8446 section 5.5) for 2^24.5 full records under one key. Python
offers no key update, so after 2^24 records (256 GiB, if they are full) a channel is `worn`: its sender makes a new
connection (`link/tls/resume.py`), or warns where the cluster file gives no time for that.
"""

import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link import certificates

BLOCK_BYTES = 1 << 18  # what goes to or comes from the socket at once; stays in the second-level cache
RECORD_BYTES = 1 << 14  # payload of one TLS record
ADVISED_BYTES = RECORD_BYTES << 24
FAREWELL = 1.0  # seconds to tell peers why this party stops

log = logging.getLogger(__name__)


class Channel:
    """TLS over a connected socket, which it owns.

    While the session is set up, methods wait, until `seconds` after the start in all. After
    `begin_session` nothing waits, and one thread at a time may send, one receive, not both: a
    channel of the session goes in one direction.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool, seconds: float) -> None:
        self.sock = sock
        self._deadline = time.monotonic() + seconds
        self._encrypted, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._encrypted, self._outgoing, server_side=server_side)
        self._sent = 0
        self.received = 0  # bytes of the session that were read
        self.failed: OSError | None = None  # why no more can be read
        self.returned = b""  # what was read, and is to be read again
        self.kept: Callable[[memoryview | bytes], None] | None = None  # called with all that is sent in the session
        if sock.family != socket.AF_UNIX:  # the end of a stream (`link/tls/shared.py`)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # While setting up.

    def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
                self._wait_for_more()
            except ssl.SSLError:
                with suppress(OSError):  # the alert that tells the peer
                    self._flush()
                raise

    def certificate(self) -> bytes:
        """The peer's certificate, verified by the handshake (DER)."""
        der = self.tls.getpeercert(binary_form=True)
        if der is None:
            raise OSError(errno.EACCES, "it presented no certificate")
        return der

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def hear(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                piece = self.tls.read(length - len(data))
            except ssl.SSLWantReadError:
                self._wait_for_more()
                continue
            if not piece:
                raise OSError(errno.ECONNRESET, "it closed the connection while being set up")
            data += piece
        return data

    def part(self) -> None:
        """Close so that what was said last reaches the peer: unread data would reset the connection."""
        self._deadline = time.monotonic() + FAREWELL
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while self._limited().recv(BLOCK_BYTES):
                pass
        self.close()

    def _limited(self) -> socket.socket:
        """The socket, waiting no longer than until the deadline: a peer cannot stretch it by trickling."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        return self.sock

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._limited().sendall(self._outgoing.read())

    def _wait_for_more(self) -> None:
        data = self._limited().recv(RECORD_BYTES)
        if not data:
            raise OSError(errno.ECONNRESET, "it closed the connection while being set up")
        self._encrypted.write(data)

    # In the session.

    def begin_session(self) -> None:
        self.sock.setblocking(False)

    def encrypt(self, pieces: Iterator[memoryview]) -> Iterator[bytes]:
        """Blocks of TLS records for the socket: each has to be sent whole, and in this order."""
        for piece in pieces:
            for start in range(0, len(piece), BLOCK_BYTES):
                block = piece[start : start + BLOCK_BYTES]
                if self.kept is not None:
                    self.kept(block)
                self._sent += self.tls.write(block)
                if self._outgoing.pending >= BLOCK_BYTES:
                    yield self._outgoing.read()
        if self._outgoing.pending:
            yield self._outgoing.read()
        if self.worn and self.kept is None:
            self._advise()

    @property
    def worn(self) -> bool:
        """Whether so many records have been sent under one key that there should be another."""
        return self._sent > ADVISED_BYTES

    def go_on(self, other: "Channel") -> None:
        """Take over another's connection, under the same file descriptor; that one is gone then."""
        other.sock.setblocking(False)
        os.dup2(other.sock.fileno(), self.sock.fileno())
        other.sock.close()
        self.tls, self._encrypted, self._outgoing = other.tls, other._encrypted, other._outgoing
        self._sent, self.failed = other._sent, None

    def again(self, pieces: Iterable[memoryview]) -> Iterator[bytes]:
        """Blocks that say once more what was said before."""
        kept, self.kept = self.kept, None
        try:
            blocks = list(self.encrypt(iter(pieces)))
        finally:
            self.kept = kept
        yield from blocks

    def record(self, data: bytes) -> bytes:
        """One record for the socket, of at most `RECORD_BYTES`; a short one counts as whole towards the advice."""
        if self.kept is not None:
            self.kept(data)
        self.tls.write(data)
        self._sent += RECORD_BYTES
        if self.worn and self.kept is None:
            self._advise()
        return self._outgoing.read()

    def _advise(self) -> None:
        log.warning(
            "%d million TLS records have been sent under one key: end the session and join anew for new keys",
            ADVISED_BYTES // RECORD_BYTES // 10**6,
        )
        self._sent = 0

    def take(self, buffer: memoryview) -> None:
        """Move what the socket holds, one `buffer` at most, to TLS. Raises OSError if the peer is gone."""
        try:
            n = self.sock.recv_into(buffer)
        except BlockingIOError:
            return
        if n == 0:
            raise OSError(errno.ECONNRESET, "Connection closed by peer")
        self._encrypted.write(buffer[:n])

    def read_into(self, view: memoryview) -> int:
        """Decrypt into `view` what has been taken, record after record; the number of bytes, less if it ends.

        Whoever reads is in the midst of a frame: that no more can be read is kept in `failed`, and nothing raised.
        """
        read, at, length = self.tls.read, 0, len(view)
        if again := self.returned:
            at = min(length, len(again))
            view[:at], self.returned = again[:at], again[at:]
            self.received -= at  # counted when it was first read
        if not self.unread:
            self.received += at
            return at  # most often: spares an exception
        try:
            while at < length:
                n: int = read(length - at, view[at:])  # type: ignore[assignment]  # a number, as a buffer is given
                if not n:
                    raise OSError(errno.ECONNRESET, "Connection closed by peer")
                at += n
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            self.failed = error
        self.received += at
        return at

    @property
    def unread(self) -> bool:
        """Whether more has been taken of the socket than was read."""
        return bool(self._encrypted.pending or self.tls.pending())

    def at_once(self, length: int, buffer: memoryview) -> bytes:
        """So many bytes, if one record that has come holds them, or what else could be read; see `returned`."""
        if not self.unread:
            self.take(buffer)
            if not self._encrypted.pending:
                return b""
        try:
            data = self.tls.read(length)
        except ssl.SSLWantReadError:
            return b""
        if not data:
            raise OSError(errno.ECONNRESET, "Connection closed by peer")
        self.received += len(data)
        return data

    # Always.

    def hang_up(self) -> None:
        """Break the connection under a thread that is blocked on it."""
        hang_up(self.sock)

    def close(self) -> None:
        self.sock.close()


def make_context(
    side: int, ca: Path, certificate: Path, key: Path, crl: Path | None = None, passphrase: str | None = None
) -> ssl.SSLContext:
    """TLS 1.3 only; the peer must present a certificate that `ca` issued or holds, whichever `side` it is on.

    `crl`: the authority's list of certificates that it took back. The key's passphrase comes from the environment
    (`certificates.PASSPHRASE`) if it is not given.
    """
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a certificate names a party, not a host: see `Greeter`
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # no resumption: every connection proves itself anew
    secret = os.environ.get(certificates.PASSPHRASE, "") if passphrase is None else passphrase  # "": never ask
    try:
        context.load_cert_chain(certificate, key, secret)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{certificate} and {key} cannot be used ({in_words(error)}): give a PEM certificate and its own "
            f"key; of a key with a passphrase, set {certificates.PASSPHRASE}."
        ) from None
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(f"`ca` {ca} cannot be used ({in_words(error)}): give a PEM certificate.") from None
    if not all(map(certificates.is_authority, certificates.anchors(ca))):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # parties' own certificates: each speaks for itself
    if crl is not None:
        try:
            context.load_verify_locations(crl)
        except ssl.SSLError as error:
            raise ConfigError(f"`crl` {crl} cannot be used ({in_words(error)}): give the authority's list.") from None
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected any more
        sock.shutdown(socket.SHUT_RDWR)


def in_words(error: Exception) -> str:
    """An operating system's or TLS error in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
