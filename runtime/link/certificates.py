"""Certificates: made for local runs and tests, read for checks and error messages.

A cluster has one authority, and each party a certificate whose name is the party's. Keys are
ECDSA P-256 and readable by their owner alone. For runs between companies, each makes its own key
and has only the certificate signed; `make_cluster` puts all keys into one folder, which is fine
on one machine only.
"""

import hashlib
import json
import os
import re
import socket
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.legible import legible

DEFAULT_DAYS = 365.0
SHOWN = 300  # characters of a name in a certificate, which may come from anybody
CLOCK_SKEW = timedelta(minutes=5)
WARN_DAYS = 30.0
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
PASSPHRASE = "SPUVM_KEY_PASSPHRASE"  # the environment variable with that of a party's key file


def make_authority(folder: str | Path, days: float = 10 * DEFAULT_DAYS) -> Path:
    """Write `ca.crt` and `ca.key` to the folder; the path of the certificate."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = name_of("spuvm authority")
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _write(folder, "ca", builder.sign(key, SHA256()), key)


def issue(folder: str | Path, party: str, days: float = DEFAULT_DAYS) -> Path:
    """Write `<party>.crt` and `<party>.key`, signed by the folder's authority; the path of the certificate.

    Negative `days` make a certificate that has expired, for tests.
    """
    folder = Path(folder)
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        authority_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing: run make_authority({str(folder)!r}) first.") from None
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = of_a_party(party, authority.subject, issuer_key_id, key.public_key(), days)
    return _write(folder, party, builder.sign(authority_key, SHA256()), key)


def of_a_party(
    party: str,
    issuer: x509.Name,
    issuer_key_id: x509.SubjectKeyIdentifier,
    key: ec.EllipticCurvePublicKey,
    days: float,
) -> x509.CertificateBuilder:
    """A party's certificate, not yet signed: for both ends of a connection, and for nothing else."""
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _builder(name_of(party), issuer, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(party)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False)
    )


def make_cluster(
    folder: str | Path,
    parties: list[str] | tuple[str, ...],
    host: str = "127.0.0.1",
    ports: list[int] | tuple[int, ...] | None = None,
    timeout_seconds: float = 60,
    *,
    protocol: str | None = None,
    dealer: str | None = None,
    compute: list[str] | tuple[str, ...] | None = None,
) -> Path:
    """Write an authority, all parties' keys and certificates and `cluster.toml`; the path of the latter.

    `protocol`, `dealer` and `compute` (who computes, if not all do) go into the file if given; a dealer who
    is not among `parties` is added to them, and has the last of `ports`.
    All keys lie in one folder: for processes on one machine, not for parties that distrust each other.
    """
    folder = Path(folder)
    everyone = (*parties, dealer) if dealer is not None and dealer not in parties else tuple(parties)
    make_authority(folder)
    lines = ['ca = "ca.crt"', f"timeout_seconds = {timeout_seconds:g}"]
    lines += [f'{key} = "{value}"' for key, value in (("protocol", protocol), ("dealer", dealer)) if value]
    if compute is not None:
        lines.append(f"compute = {json.dumps(list(compute))}")
    for party, port in zip(everyone, ports or free_ports(len(everyone), host), strict=True):
        issue(folder, party)
        lines += [
            "",
            f"[parties.{party}]",
            f'address = "{host}:{port}"',
            f'certificate = "{party}.crt"',
            f'key = "{party}.key"',
        ]
    path = folder / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on just now."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def names(der: bytes) -> frozenset[str]:
    """The parties that a certificate names: its DNS names, or if it has none its common names (RFC 6125, 6.4.4)."""
    certificate = x509.load_der_x509_certificate(der)
    with suppress(x509.ExtensionNotFound):
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if found := extension.value.get_values_for_type(x509.DNSName):
            return frozenset(found)
    return frozenset(str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo): the same when the certificate is renewed for the same key."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(key).hexdigest()


def days_left(certificate: x509.Certificate) -> float:
    return (certificate.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def ending(certificate: x509.Certificate) -> str | None:
    """A warning, if the certificate ends soon, has ended, or has not begun."""
    left = days_left(certificate)
    begins = certificate.not_valid_before_utc
    if begins > datetime.now(UTC):
        return f"it begins at {begins:%Y-%m-%d %H:%M} UTC: this machine's clock, or that of who signed it, is wrong"
    if left < 0:
        return f"it ended {-left:.0f} days ago: renew it with `spuvm keys renew`"
    return f"it ends in {left:.0f} days: renew it with `spuvm keys renew`" if left < WARN_DAYS else None


def anchors(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file that are trusted: an authority's, or the parties' own."""
    try:
        return whole(path.read_bytes())
    except ValueError:
        raise ConfigError(f"{path} holds no PEM certificate: give the authority's, or those of all parties.") from None


def whole(content: bytes) -> list[x509.Certificate]:
    """The certificates of PEM text, one at least. ValueError if one is none, or has a key or names that are none."""
    try:
        found = x509.load_pem_x509_certificates(content)
        for one in found:
            fingerprint(one), one.extensions, one.subject.rfc4514_string(), one.issuer.rfc4514_string()
    except UNREADABLE as error:
        raise ValueError(str(error)) from None
    return found


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign others."""
    with suppress(x509.ExtensionNotFound):
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    return False


def describe(der: bytes) -> str:
    """Whose certificate it is, who issued it, and when it is valid, for an error message."""
    certificate = x509.load_der_x509_certificate(der)
    subject, issuer = (legible(n.rfc4514_string(), SHOWN) for n in (certificate.subject, certificate.issuer))
    return (
        f"subject {subject}, issued by {issuer}, "
        f"valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
        f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    )


def read_der(path: Path) -> bytes:
    """The first certificate of a PEM file."""
    try:
        return whole(path.read_bytes())[0].public_bytes(Encoding.DER)
    except ValueError:
        raise ConfigError(f"{path} holds no PEM certificate: give the file that the authority issued.") from None


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + timedelta(days=days)
    start = min(datetime.now(UTC), end - timedelta(days=1)) - CLOCK_SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    path = folder / f"{stem}.key"
    path.unlink(missing_ok=True)
    # Created with its final mode: there is no moment in which others could read it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path = folder / f"{stem}.crt"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path
