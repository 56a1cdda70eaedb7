"""A party's key and certificate: made, signed, renewed, revoked; and everything that is wrong with them."""

from __future__ import annotations

import datetime as dt
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from spuvm.commands.group import cli
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link import certificates
from spuvm.runtime.link.certificates import make_authority
from spuvm.service import identity


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    make_authority(tmp_path / "ca")
    return tmp_path / "ca"


def asked(folder: Path, party: str = "alice", passphrase: str | None = None) -> Path:
    return identity.request(identity.new_key(folder, party, passphrase), party, passphrase)


def test_a_signed_certificate_is_what_tls_accepts(tmp_path: Path, authority: Path) -> None:
    certificate = identity.sign(authority, asked(tmp_path / "a"))
    context = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    path = identity.write(tmp_path / "a" / "alice.crt", certificate)
    context.load_cert_chain(path, tmp_path / "a" / "alice.key")
    certificate.verify_directly_issued_by(identity.read(authority / "ca.crt"))
    assert 364 < certificates.days_left(certificate) <= 365
    assert certificates.ending(certificate) is None


def test_a_certificate_that_has_not_begun_says_so(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As signed where the clock is ahead, or read where it is behind."""
    monkeypatch.setattr(certificates, "CLOCK_SKEW", timedelta(days=-2))
    said = certificates.ending(identity.sign(authority, asked(tmp_path / "a"))) or ""
    assert "it begins at" in said and "clock" in said


def test_the_fingerprint_stays_when_a_certificate_is_renewed(tmp_path: Path, authority: Path) -> None:
    first = identity.sign(authority, asked(tmp_path / "a"), days=10)
    again = identity.sign(authority, identity.request(tmp_path / "a" / "alice.key", "alice"))
    assert certificates.fingerprint(first) == certificates.fingerprint(again)
    assert "ends in" in (certificates.ending(first) or "")
    assert certificates.fingerprint(first) != certificates.fingerprint(identity.sign(authority, asked(tmp_path / "b")))


def test_keys_are_their_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = identity.new_key(tmp_path, "alice")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        identity.new_key(tmp_path, "alice")
    assert path.read_bytes() == before
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        identity.load_key(path)


def test_a_passphrase_is_needed(tmp_path: Path) -> None:
    path = identity.new_key(tmp_path, "alice", "a long one")
    assert b"ENCRYPTED" in path.read_bytes()
    identity.load_key(path, "a long one")
    with pytest.raises(ConfigError, match="has a passphrase"):
        identity.load_key(path)
    with pytest.raises(ConfigError, match="wrong"):
        identity.load_key(path, "another")


def test_a_changed_request_is_refused(tmp_path: Path, authority: Path) -> None:
    csr = asked(tmp_path)
    lines = csr.read_text().splitlines()
    middle = len(lines) // 2
    flipped = "A" if lines[middle][5] != "A" else "B"
    lines[middle] = lines[middle][:5] + flipped + lines[middle][6:]
    csr.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"not signed by|no PEM"):
        identity.sign(authority, csr)


def test_revoked_certificates_are_on_the_list_once(tmp_path: Path, authority: Path) -> None:
    certificate = identity.sign(authority, asked(tmp_path / "a"))
    path = identity.write(tmp_path / "alice.crt", certificate)
    for _ in range(2):
        listed = x509.load_pem_x509_crl(identity.revoke(authority, path).read_bytes())
    assert [entry.serial_number for entry in listed] == [certificate.serial_number]
    make_authority(tmp_path / "other")
    with pytest.raises(InputError, match="not issued by"):
        identity.revoke(tmp_path / "other", path)


@pytest.mark.parametrize("name", ["", "a b", "-x", "a" * 64, "al\nice", "ä"])
def test_names_that_no_party_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name has 1 to 63"):
        identity.new_key(tmp_path, name)


@pytest.mark.parametrize(
    ("names", "shown"), [((), "nobody"), (("b", "a"), "a and b"), (("al\x1b[2J\u202e",), "al?[2J?")]
)
def test_a_certificate_of_whoever_is_shown(tmp_path: Path, names: tuple[str, ...], shown: str) -> None:
    """Also what no command of ours would have made: a name that would move the terminal, none, or several."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + dt.timedelta(days=9))
    identity.write(tmp_path / "their.crt", builder.sign(key, SHA256()))
    ran = CliRunner().invoke(cli, ["keys", "show", f"{tmp_path}/their.crt"])
    assert ran.exit_code == 0 and ran.output.startswith(f"{shown}, sha256:")


def test_from_the_command_line(tmp_path: Path) -> None:
    run = CliRunner()
    steps = [
        ["keys", "authority", f"{tmp_path}/ca"],
        ["keys", "new", f"{tmp_path}/a", "--party", "alice"],
        ["keys", "sign", f"{tmp_path}/a/alice.csr", "--authority", f"{tmp_path}/ca", "-o", f"{tmp_path}/alice.crt"],
        ["keys", "show", f"{tmp_path}/alice.crt"],
        ["keys", "renew", f"{tmp_path}/a", "--party", "alice", "--self-signed"],
        ["keys", "revoke", f"{tmp_path}/alice.crt", "--authority", f"{tmp_path}/ca"],
    ]
    for step in steps:
        result = run.invoke(cli, step)
        assert result.exit_code == 0, result.output
    own = identity.read(tmp_path / "a" / "alice.crt")
    assert certificates.fingerprint(own) == certificates.fingerprint(identity.read(tmp_path / "alice.crt"))
