"""`spuvm keys`: who a party is."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from spuvm.commands.terminal import say
from spuvm.runtime.errors import InputError
from spuvm.runtime.legible import legible
from spuvm.runtime.link import certificates
from spuvm.service import identity

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
PASSPHRASE = click.option(
    "--passphrase", envvar="SPUVM_KEY_PASSPHRASE", help="Of the key file; better in SPUVM_KEY_PASSPHRASE."
)
DAYS = click.option("--days", type=float, default=identity.DAYS, show_default=True, help="How long it is valid.")


@click.group()
def keys() -> None:
    """Keys and certificates: each party makes its own key, and no key leaves its machine.

    \b
    At each party:      spuvm keys new keys --party alice        (sends alice.csr to the authority)
    At the authority:   spuvm keys authority ca
                        spuvm keys sign alice.csr --authority ca -o alice.crt
    Without authority:  spuvm keys new keys --party alice --self-signed
                        (all compare fingerprints, by telephone for instance, and put them into cluster.toml)
    """


@keys.command()
@click.argument("folder", type=FOLDER)
@click.option("--party", required=True, help="The party's name.")
@click.option("--self-signed", is_flag=True, help="Sign it with the key itself: peers pin its fingerprint.")
@DAYS
@PASSPHRASE
def new(folder: Path, party: str, self_signed: bool, days: float, passphrase: str | None) -> None:
    """Make a key, and a request that an authority signs."""
    key = identity.new_key(folder, party, passphrase)
    say(f"wrote {key}: keep it here, and to yourself")
    _ask(key, party, self_signed, days, passphrase)


@keys.command()
@click.argument("folder", type=FOLDER)
@click.option("--party", required=True, help="The party's name.")
@click.option("--self-signed", is_flag=True, help="Sign it with the key itself.")
@DAYS
@PASSPHRASE
def renew(folder: Path, party: str, self_signed: bool, days: float, passphrase: str | None) -> None:
    """Ask for a new certificate of the key that is there; its fingerprint stays the same."""
    _ask(folder / f"{party}.key", party, self_signed, days, passphrase)


def _ask(key: Path, party: str, self_signed: bool, days: float, passphrase: str | None) -> None:
    if self_signed:
        certificate = identity.self_signed(key, party, days, passphrase)
        say(f"wrote {identity.write(key.with_suffix('.crt'), certificate)}, {certificates.fingerprint(certificate)}")
    else:
        say(f"wrote {identity.request(key, party, passphrase)}: send it to the authority")


@keys.command()
@click.argument("folder", type=FOLDER)
def authority(folder: Path) -> None:
    """Make an authority: ca.crt for all parties, ca.key for nobody."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: give a new folder, so that no key is overwritten.")
    say(f"wrote {certificates.make_authority(folder)}: give it to all parties, and ca.key to nobody")


@keys.command()
@click.argument("request", type=FILE)
@click.option("--authority", type=FOLDER, required=True, help="The folder with ca.crt and ca.key.")
@click.option("-o", "--output", type=FILE, required=True, help="The certificate.")
@DAYS
@PASSPHRASE
def sign(request: Path, authority: Path, output: Path, days: float, passphrase: str | None) -> None:
    """Sign a party's request. Make sure first that it comes from that party: compare what this prints."""
    certificate = identity.sign(authority, request, days, passphrase)
    identity.write(output, certificate)
    say(f"wrote {output}: {_described(certificate)}")


@keys.command()
@click.argument("certificate", type=FILE)
@click.option("--authority", type=FOLDER, required=True, help="The folder with ca.crt and ca.key.")
@PASSPHRASE
def revoke(certificate: Path, authority: Path, passphrase: str | None) -> None:
    """Take a certificate back: all parties get the new ca.crl (`crl` in cluster.toml)."""
    say(f"wrote {identity.revoke(authority, certificate, passphrase)}: give it to all parties")


@keys.command()
@click.argument("certificate", type=FILE)
def show(certificate: Path) -> None:
    """Whose certificate it is, its fingerprint, and when it ends."""
    loaded = identity.read(certificate)
    click.echo(_described(loaded))
    if (warning := certificates.ending(loaded)) is not None:
        say(f"warning: {warning}")


def _described(certificate: Certificate) -> str:
    name = " and ".join(sorted(certificates.names(certificate.public_bytes(Encoding.DER)))) or "nobody"
    end = certificate.not_valid_after_utc
    return f"{legible(name)}, {certificates.fingerprint(certificate)}, until {end:%Y-%m-%d}"
