"""Whom a run trusts: lists of revoked certificates, pinned keys, passphrases, ends that are near."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from parties import run_threads

from spuvm.runtime.errors import CertificateError, ConfigError, PeerAbortedError
from spuvm.runtime.link import certificates
from spuvm.runtime.link.certificates import free_ports, make_authority, make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls.connect import connect
from spuvm.service import identity

PAIR = ("alice", "bob")


def joined(files: dict[str, Path]) -> dict[str, Any]:
    """Connect all parties in threads; "connected" or the error of each."""

    def join(party: str, path: Path) -> str:
        with connect(load_cluster(path), party, timeout=10) as link:
            link.agree("start", b"")
            return "connected"

    return dict(zip(files, run_threads([partial(join, *item) for item in files.items()], limit=30)))


def pinned(folder: Path, passphrase: str | None = None) -> Path:
    """A cluster of two that trust no authority: each has its own key, and both have both fingerprints."""
    lines, bundle = ['ca = "peers.crt"', 'protocol = "ref2k"'], ""
    for party, port in zip(PAIR, free_ports(2)):
        key = identity.new_key(folder, party, passphrase)
        own = identity.self_signed(key, party, passphrase=passphrase)
        bundle += identity.write(folder / f"{party}.crt", own).read_text()
        lines += [f"[parties.{party}]", f'address = "127.0.0.1:{port}"', f'certificate = "{party}.crt"']
        lines += [f'key = "{party}.key"', f'fingerprint = "{certificates.fingerprint(own)}"']
    (folder / "peers.crt").write_text(bundle)
    (folder / "cluster.toml").write_text("\n".join(lines))
    return folder / "cluster.toml"


def test_two_that_trust_no_authority(tmp_path: Path) -> None:
    path = pinned(tmp_path)
    assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")
    # A renewed certificate has the same key: only the file of certificates changes.
    for party in PAIR:
        identity.write(tmp_path / f"{party}.crt", identity.self_signed(tmp_path / f"{party}.key", party, days=20))
    (tmp_path / "peers.crt").write_text("".join((tmp_path / f"{p}.crt").read_text() for p in PAIR))
    assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")


def test_another_key_under_a_partys_name_is_refused(tmp_path: Path) -> None:
    path = pinned(tmp_path)
    false = tmp_path / "false"
    key = identity.new_key(false, "bob")
    identity.write(false / "bob.crt", identity.self_signed(key, "bob"))
    (false / "peers.crt").write_text((tmp_path / "alice.crt").read_text() + (false / "bob.crt").read_text())
    text = path.read_text().replace('"alice.', '"../alice.')
    was, now = (certificates.fingerprint(identity.read(f / "bob.crt")) for f in (tmp_path, false))
    (false / "cluster.toml").write_text(text.replace(was, now))
    results = joined({"alice": path, "bob": false / "cluster.toml"})
    assert all(isinstance(error, CertificateError | PeerAbortedError) for error in results.values()), results


def test_a_pin_holds_beside_an_authority(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, PAIR, protocol="ref2k")
    pin = certificates.fingerprint(identity.read(tmp_path / "bob.crt"))
    text = path.read_text()
    path.write_text(f'{text}fingerprint = "{pin}"\n')  # bob is the last entry
    assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")
    other = tmp_path / "other.toml"
    other.write_text(f'{text}fingerprint = "sha256:{"0" * 64}"\n')
    results = joined({"alice": other, "bob": path})
    assert isinstance(results["alice"], CertificateError), results
    assert pin in str(results["alice"])
    assert isinstance(results["bob"], CertificateError | PeerAbortedError), results


def test_a_revoked_certificate_ends_the_set_up(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, PAIR, protocol="ref2k")
    make_authority(tmp_path / "other")
    identity.write(tmp_path / "x.crt", identity.sign(tmp_path, identity.request(identity.new_key(tmp_path, "x"), "x")))
    identity.revoke(tmp_path, tmp_path / "x.crt")
    path.write_text('crl = "ca.crl"\n' + path.read_text())
    assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")
    identity.revoke(tmp_path, tmp_path / "bob.crt")
    results = joined(dict.fromkeys(PAIR, path))
    assert all(isinstance(error, CertificateError | PeerAbortedError) for error in results.values()), results
    assert any("revoked" in str(error) and "took it back" in str(error) for error in results.values())


def test_a_key_with_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pinned(tmp_path, "a long one")
    monkeypatch.setenv(certificates.PASSPHRASE, "a long one")
    assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")
    monkeypatch.setenv(certificates.PASSPHRASE, "another")
    with pytest.raises(ConfigError, match=certificates.PASSPHRASE):
        connect(load_cluster(path), "alice", timeout=2)


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_cluster(tmp_path, PAIR, protocol="ref2k")
    certificates.issue(tmp_path, "bob", days=3)
    with caplog.at_level(logging.WARNING):
        assert joined(dict.fromkeys(PAIR, path)) == dict.fromkeys(PAIR, "connected")
    assert [r.message for r in caplog.records if "it ends in" in r.message] == [
        f"the certificate {tmp_path / 'bob.crt'} of bob: it ends in 3 days: renew it with `spuvm keys renew`"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("fingerprint", "fingerprin", 1), "unknown key"),
        (lambda t: t.replace("sha256:", "sha1:"), "64 hexadecimal digits"),
        (lambda t: "\n".join(line for line in t.splitlines() if "fingerprint" not in line), "lacks the `fingerprint`"),
        (lambda t: 'crl = "peers.crt"\n' + t, "leave it out"),
        (lambda t: 'crl = "none.crl"\n' + t, "there is no file"),
        (lambda t: t.replace("peers.crt", "alice.crt"), "no certificate of bob"),
        (lambda t: t.replace("peers.crt", "three.crt"), "certificate of nobody here"),
        (lambda t: t.replace("peers.crt", "alice.key"), "no PEM certificate"),
    ],
)
def test_files_that_cannot_be_trusted(tmp_path: Path, change: Any, message: str) -> None:
    path = pinned(tmp_path)
    key = identity.new_key(tmp_path, "eve")
    own = identity.write(tmp_path / "eve.crt", identity.self_signed(key, "alice"))
    (tmp_path / "three.crt").write_text((tmp_path / "peers.crt").read_text() + own.read_text())
    path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError, match=message):
        load_cluster(path)
