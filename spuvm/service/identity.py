"""Who a party is: it makes its key where it runs, an authority signs its request, and no key leaves its machine.

    party       new_key, request           alice.key (readable by its owner alone), alice.csr
    authority   make_authority, sign       ca.crt, ca.key; alice.crt
    party       renew                      a request for the key that it has, or for a new one
    authority   revoke                     ca.crl, which all parties load

Keys are ECDSA P-256, certificates X.509 (RFC 5280), requests PKCS #10 (RFC 2986). A key file may have a passphrase.
Three that trust no authority sign their own (`self_signed`) and compare fingerprints.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.certificates import CLOCK_SKEW, UNREADABLE, name_of, of_a_party, whole
from spuvm.runtime.link.parties import party_name

DAYS = 365.0
MAX_DAYS = 825.0
REVOCATION_DAYS = 3650.0  # a list of revoked certificates is replaced, not waited for


def new_key(folder: Path, party: str, passphrase: str | None = None) -> Path:
    """Write a new key to `<party>.key`; its path. A key that is there is never overwritten."""
    party_name(party, "`--party`")
    path = Path(folder) / f"{party}.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_key(path, ec.generate_private_key(ec.SECP256R1()), passphrase)
    return path


def load_key(path: Path, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    """The private key of a file, which others must not be able to read."""
    path = Path(path)
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others can read {path}: run `chmod 600 {path}`.")
        key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read: {error.strerror}.") from None
    except TypeError:
        what = "has a passphrase: give it" if passphrase is None else "has no passphrase: leave it out"
        raise ConfigError(f"the key {path} {what}.") from None
    except UNREADABLE:
        raise ConfigError(f"{path} is no PEM key, or the passphrase is wrong.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic curve key: make one with `spuvm keys new`.")
    return key


def request(key_file: Path, party: str, passphrase: str | None = None) -> Path:
    """Write `<party>.csr`, which asks for a certificate of the key in `key_file`; its path."""
    key = load_key(key_file, passphrase)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name_of(party_name(party, "`--party`")))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(party)]), critical=False)
    path = Path(key_file).with_name(f"{party}.csr")
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


def sign(authority: Path, csr: Path, days: float = DAYS, passphrase: str | None = None) -> x509.Certificate:
    """The certificate that the authority in a folder (`ca.crt`, `ca.key`) issues for a request.

    Raises InputError for a request that is damaged, not signed by its own key, or names no party.
    """
    if not 0 < days <= MAX_DAYS:
        raise InputError(f"`--days` must be more than 0 and at most {MAX_DAYS:g}, got {days:g}.")
    try:
        asked = x509.load_pem_x509_csr(Path(csr).read_bytes())
    except OSError as error:
        raise InputError(f"the request {csr} cannot be read: {error.strerror}.") from None
    except UNREADABLE:
        raise InputError(f"{csr} is no PEM certificate request: make one with `spuvm keys new`.") from None
    try:
        key = asked.public_key()
        genuine = asked.is_signature_valid and isinstance(key, ec.EllipticCurvePublicKey)
    except UNREADABLE:  # a key that is no point of the curve
        genuine = False
    if not genuine:
        raise InputError(f"{csr} is not signed by the key that it is for: it may have been changed on its way.")
    assert isinstance(key, ec.EllipticCurvePublicKey)
    party = party_name(_common_name(asked.subject), f"the request {csr}")
    issuer, issuer_key = _authority(authority, passphrase)
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return of_a_party(party, issuer.subject, key_id, key, days).sign(issuer_key, SHA256())


def self_signed(key_file: Path, party: str, days: float = DAYS, passphrase: str | None = None) -> x509.Certificate:
    """A certificate that the party itself signs, for peers that compare its fingerprint."""
    key = load_key(key_file, passphrase)
    name = name_of(party_name(party, "`--party`"))
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return of_a_party(party, name, key_id, key.public_key(), days).sign(key, SHA256())


def revoke(authority: Path, certificate: Path, passphrase: str | None = None) -> Path:
    """Add a certificate to the authority's `ca.crl`; its path. All parties need the new list."""
    issuer, key = _authority(authority, passphrase)
    taken_back = read(certificate)
    try:
        taken_back.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise InputError(f"{certificate} was not issued by the authority in {authority}.") from None
    path = Path(authority) / "ca.crl"
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(now - CLOCK_SKEW)
    builder = builder.next_update(now + timedelta(days=REVOCATION_DAYS))
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    before = list(x509.load_pem_x509_crl(path.read_bytes())) if path.exists() else []
    builder = builder.add_extension(x509.CRLNumber(len(before) + 1), critical=False)
    entries = {e.serial_number: e for e in before}
    entry = x509.RevokedCertificateBuilder().serial_number(taken_back.serial_number).revocation_date(now)
    entries.setdefault(taken_back.serial_number, entry.build())
    for one in entries.values():
        builder = builder.add_revoked_certificate(one)
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


def read(path: Path) -> x509.Certificate:
    """The certificate of a PEM file."""
    try:
        return whole(Path(path).read_bytes())[0]
    except OSError as error:
        raise ConfigError(f"the certificate {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigError(f"{path} holds no PEM certificate.") from None


def write(path: Path, certificate: x509.Certificate) -> Path:
    Path(path).write_bytes(certificate.public_bytes(Encoding.PEM))
    return Path(path)


def _authority(folder: Path, passphrase: str | None) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    folder = Path(folder)
    if not (folder / "ca.crt").is_file():
        raise ConfigError(f"{folder} holds no authority (`ca.crt`, `ca.key`): make one with `spuvm keys authority`.")
    return read(folder / "ca.crt"), load_key(folder / "ca.key", passphrase)


def _common_name(subject: x509.Name) -> str:
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> None:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:  # created with its final mode: there is no moment in which others could read it
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise InputError(f"{path} is there already, and a key is never overwritten: give another folder.") from None
