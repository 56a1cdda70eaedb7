"""The greeting on a new connection: each side learns who the other is, and that both mean the same session.

After the TLS handshake, which has verified both certificates against the cluster's authority, the
accepting side says HELLO, then the dialing side; the accepting side ends with READY. A HELLO is a
JSON object: protocol, package, party, parties, and whether lost connections are taken up again (who keeps what it sent
needs peers that confirm it); of the dialing side also the token of the connection. Who finds a difference sends REJECT
("error class NUL message") instead, and both raise that error.
"""

import errno
import hmac
import importlib.metadata
import json
import logging
import ssl
from collections.abc import Callable, Mapping

from cryptography import x509

from spuvm.runtime.errors import CertificateError, LinkError, PeerMismatchError, SpuError
from spuvm.runtime.legible import legible
from spuvm.runtime.link import certificates
from spuvm.runtime.link.link import MAX_REASON, Kind
from spuvm.runtime.link.parties import Cluster, Party
from spuvm.runtime.link.tls.channel import Channel
from spuvm.runtime.link.tls.stream import PROTOCOL_VERSION, get_frame, put_frame

SHOWN = 300  # characters of what a peer said, in an error message

log = logging.getLogger(__name__)


class Stopped(LinkError):
    """A peer answered our dialing with the reason why it stopped."""

    def __init__(self, peer: int, origin: str, reason: str) -> None:
        self.peer, self.origin, self.reason = peer, origin, reason
        super().__init__(reason)


class Greeter:
    """`party`'s side of every greeting. `refusal` says why it has stopped, if it has, before it hears who calls.

    Methods raise `CertificateError` and `PeerMismatchError` for what concerns a known party, and
    OSError for a stranger or a broken connection. `told` collects the ranks that know of a failure.
    """

    def __init__(self, cluster: Cluster, party: str, refusal: Callable[[], tuple[str, str] | None]) -> None:
        self.party = party
        self.told: set[int] = set()
        self._cluster = cluster
        self._refusal = refusal
        self._certificate, key = cluster.credentials(party)
        self.key_files = (cluster.ca, self._certificate, key)
        own = x509.load_der_x509_certificate(certificates.read_der(self._certificate))
        if (warning := certificates.ending(own)) is not None:
            log.warning("the certificate %s of %s: %s", self._certificate, party, warning)

    def dial(self, channel: Channel, peer: int, session: str = "", resume: str = "") -> bytes:
        """Greet the party that we dialed, which must be `peer`; what it says at the end.

        `session`: the token of this connection; `resume`: that of one which was lost, and which this one goes on.
        """
        entry = self._cluster.parties[peer]
        try:
            channel.handshake()
        except ssl.SSLCertVerificationError as error:
            raise self._unverified(peer, error) from None
        if entry.name not in certificates.names(channel.certificate()):
            raise self._reject(
                channel, self._misnamed(channel, f"the party at {self._cluster.where(entry.name)}", entry.name)
            )
        self._check_pin(channel, entry)
        try:
            theirs = self._hear_hello(channel, peer)
        except ssl.SSLError as error:
            raise self._alert(peer, error) from None
        self._compare(channel, theirs, entry.name)
        put_frame(channel, Kind.HELLO, self._hello({"session": session} if session else {"resume": resume}))
        return self._hear(channel, Kind.READY, peer)

    def answer(self, channel: Channel, admit: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Greet whoever dialed us: find out who it is, which its certificate must prove; the rank and its token.

        `admit` is called once that is known, before the other side is told that it is in.
        """
        peer, theirs = self._meet(channel)
        if theirs.get("resume"):
            raise self._reject(
                channel,
                PeerMismatchError(
                    f"{self.party} was started anew: it cannot go on with the session of {self._cluster.names[peer]}."
                ),
            )
        admit()
        put_frame(channel, Kind.READY, b"")
        return peer, str(theirs.get("session", ""))

    def answer_again(self, channel: Channel, tokens: Mapping[int, str]) -> int:
        """Greet a peer that dials again in mid-session, which its token proves; the rank. Others are turned away."""
        peer, theirs = self._meet(channel)
        token = tokens.get(peer, "")
        if not token or not hmac.compare_digest(str(theirs.get("resume", "")).encode(), token.encode()):
            raise OSError(errno.EACCES, "it is of another session")
        return peer

    def _meet(self, channel: Channel) -> tuple[int, dict[str, object]]:
        """Who dialed us, and its greeting."""
        channel.handshake()
        der = channel.certificate()
        known = certificates.names(der) & (set(self._cluster.names) - {self.party})
        if not known:
            self._reject(channel, self._misnamed(channel, "a peer"))
            which = certificates.describe(der)
            raise OSError(errno.EACCES, f"its certificate names no party of the cluster ({which})")
        guess = self._cluster.rank(sorted(known)[0])
        if (stopped := self._refusal()) is not None:
            if guess in self.told or self._cluster.names[guess] == stopped[0]:
                # It comes for its next session, and tries again until this one has ended.
                raise OSError(errno.ECONNABORTED, "it knows that this party has stopped")
            put_frame(channel, Kind.ABORT, "\0".join(stopped).encode())
            self.told.add(guess)
            raise OSError(errno.ECONNABORTED, "this party has stopped")
        put_frame(channel, Kind.HELLO, self._hello())
        theirs = self._hear_hello(channel, guess)
        claimed = str(theirs.get("party"))
        if claimed not in known:
            raise self._reject(channel, self._misnamed(channel, "a peer", claimed))
        self._check_pin(channel, self._cluster.parties[self._cluster.rank(claimed)])
        self._compare(channel, theirs, claimed)
        return self._cluster.rank(claimed), theirs

    # What is said.

    def _hello(self, more: Mapping[str, str] | None = None) -> bytes:
        try:
            package = importlib.metadata.version("spuvm")
        except importlib.metadata.PackageNotFoundError:
            package = "unknown"
        hello = {
            "protocol": PROTOCOL_VERSION,
            "package": package,
            "parties": list(self._cluster.names),
            "party": self.party,
            "grace_seconds": "some" if self._cluster.grace_seconds else "none",
            **(more or {}),
        }
        return json.dumps(hello).encode()

    def _compare(self, channel: Channel, theirs: dict[str, object], name: str) -> None:
        mine = json.loads(self._hello())
        for key in ("protocol", "package", "parties", "party", "grace_seconds"):
            due = name if key == "party" else mine[key]
            if theirs.get(key) != due:
                raise self._reject(
                    channel,
                    PeerMismatchError(
                        f"{self.party} and {name} differ in `{key}`: {self.party} has {due}, {name} has "
                        f"{legible(str(theirs.get(key)), SHOWN)}. Give both the same version of spuvm and "
                        "the same cluster file."
                    ),
                )

    def _hear_hello(self, channel: Channel, peer: int) -> dict[str, object]:
        body = self._hear(channel, Kind.HELLO, peer)
        try:
            hello = json.loads(body)
        except (ValueError, RecursionError):
            hello = None
        if not isinstance(hello, dict):
            raise OSError(errno.EPROTO, "it sent a malformed greeting")
        return hello

    def _hear(self, channel: Channel, kind: Kind, peer: int) -> bytes:
        got, body = get_frame(channel)
        if got is kind:
            return body
        first, _, text = (legible(part, MAX_REASON) for part in body.decode(errors="replace").partition("\0"))
        self.told.add(peer)
        if got is Kind.REJECT:
            raise (CertificateError if first == "CertificateError" else PeerMismatchError)(text)
        if got is Kind.ABORT:
            raise Stopped(peer, first, text)
        raise OSError(errno.EPROTO, "it sent an unexpected frame")

    def _reject(self, channel: Channel, error: SpuError) -> SpuError:
        put_frame(channel, Kind.REJECT, f"{type(error).__name__}\0{error}".encode())
        return error

    # What is wrong with a certificate.

    def _misnamed(self, channel: Channel, who: str, expected: str | None = None) -> CertificateError:
        due = "" if expected is None else f" (expected: {legible(expected, SHOWN)})"
        return CertificateError(
            f"{self.party} rejected the certificate of {who}{due}: it is another party's "
            f"({certificates.describe(channel.certificate())}). "
            "Give each party the certificate that names it (DNS name, or common name if it has none)."
        )

    def _check_pin(self, channel: Channel, entry: Party) -> None:
        """A party whose fingerprint is in the file has that key and no other, whoever signed its certificate."""
        certificate = x509.load_der_x509_certificate(channel.certificate())
        found = certificates.fingerprint(certificate)
        if entry.fingerprint not in (None, found):
            raise self._reject(
                channel,
                CertificateError(
                    f"{self.party} rejected the certificate of {entry.name}: its key has the fingerprint {found}, the "
                    f"cluster file says {entry.fingerprint}. Ask {entry.name} whether its key is new, and compare."
                ),
            )

    def _unverified(self, peer: int, error: ssl.SSLCertVerificationError) -> CertificateError:
        entry = self._cluster.parties[peer]
        try:  # OpenSSL does not show what it refused: read it again, to describe it and for nothing else
            if entry.address is None or self._cluster.session is not None:
                raise OSError(errno.EHOSTUNREACH, "it has no address of its own")
            pem = ssl.get_server_certificate((entry.address.host, entry.address.port), timeout=1.0)
            which = certificates.describe(ssl.PEM_cert_to_DER_cert(pem))
        except (OSError, ValueError):
            which = "it could not be read again"
        problem = (
            f"The certificate that {entry.name} presents at {self._cluster.where(entry.name)} is not valid: "
            f"{error.verify_message} ({which}). "
        )
        return self._invalid(problem, error.verify_message)

    def _alert(self, peer: int, error: ssl.SSLError) -> Exception:
        """What a failed first read means: the peer checks our certificate after our handshake."""
        reason = (error.reason or "").replace("_", " ").lower()
        if "alert" not in reason or not ("certificate" in reason or "unknown ca" in reason):
            return error
        problem = reason.partition("alert ")[2].replace("unknown ca", "issued by an authority unknown there")
        mine = certificates.describe(certificates.read_der(self._certificate))
        return self._invalid(
            f"{self._cluster.names[peer]} rejected the certificate of {self.party}: {problem} "
            f"({self._certificate.name}: {mine}). ",
            problem,
            told=f"{self._cluster.names[peer]} rejected the certificate of {self.party}: {problem} ({mine}). ",
        )

    def _invalid(self, message: str, problem: str, told: str | None = None) -> CertificateError:
        """What is wrong and its cure; peers are told no name of a file."""
        here = _cure(problem, f"`ca`, here {self._cluster.ca.name}")
        return CertificateError(message + here, (told or message) + _cure(problem, "`ca`"))


def _cure(problem: str, authority: str) -> str:
    if "expired" in problem:
        return "Issue a new certificate, and check the clocks."
    if "not yet valid" in problem:
        return "Check the clocks of both machines."
    if "revoked" in problem:
        return "The authority took it back (`crl`): ask it for a new one."
    if "CRL" in problem:
        return "The list `crl` must be the authority's newest: `spuvm keys revoke` writes it."
    return f"All parties' certificates must come from the same authority ({authority})."
