"""Whom a party believes: an authority, or each party's own key; and a name for meetings that outsiders cannot guess."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link import certificates


def check_trust(ca: Path, crl: Path | None, pins: Mapping[str, str | None], where: str) -> None:
    """Without an authority (`ca` holds parties' own certificates) every party's key must be pinned, and be there."""
    trusted = certificates.anchors(ca)
    if all(map(certificates.is_authority, trusted)):
        return
    if crl is not None:
        raise ConfigError(
            f"`crl` in {where} is an authority's, and `ca` holds parties' own certificates: leave it out."
        )
    there = {certificates.fingerprint(c): certificates.names(c.public_bytes(Encoding.DER)) for c in trusted}
    for name, pin in pins.items():
        if pin is None:
            raise ConfigError(
                f"{where} lacks the `fingerprint` of {name}: `ca` holds parties' own certificates, which anybody can "
                "make, so each party's key must be named. `spuvm keys show` prints it."
            )
        if name not in there.get(pin, ()):
            raise ConfigError(f"`ca` in {where} holds no certificate of {name} with the `fingerprint` {pin}: add it.")
    if strangers := there.keys() - set(pins.values()):
        raise ConfigError(f"`ca` in {where} holds the certificate of nobody here, {min(strangers)}: take it out.")


def parse_fingerprint(text: str, where: str) -> str:
    if not certificates.FINGERPRINT.fullmatch(text):
        raise ConfigError(
            f"`fingerprint` of {where} must be `sha256:` and 64 hexadecimal digits, as `spuvm keys show` prints it, "
            f"got {text!r}."
        )
    return text


def meeting(ca: Path, names: Collection[str]) -> str:
    """A name for meetings of these parties, which only who has the file `ca` knows."""
    trusted = sorted(c.public_bytes(Encoding.DER) for c in certificates.anchors(ca))
    return hashlib.sha256(b"\0".join([*trusted, *(name.encode() for name in names)])).hexdigest()[:32]
