"""`spuvm audit`: records of services checked, shown, exported, and the files that a job ran on held against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from spuvm.commands.terminal import say
from spuvm.policy import commitments, record
from spuvm.policy.entries import well_formed
from spuvm.runtime.errors import ConfigError, DataError, InputError
from spuvm.runtime.legible import legible
from spuvm.service import identity
from spuvm.service.exporting import FORMS, lines
from spuvm.service.report import page

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Records of services: whole, genuine, and of one mind?

    \b
      spuvm audit verify alice=alice/record.jsonl,alice.crt bob=bob/record.jsonl,bob.crt
    """


@audit.command()
@click.argument("records", nargs=-1, required=True, metavar="PARTY=RECORD.jsonl,PARTY.crt ...")
def verify(records: tuple[str, ...]) -> None:
    """Check records: every line, and whether several parties' records agree on what ran and what was revealed.

    \b
      spuvm audit verify alice=alice/record.jsonl,alice.crt bob=bob/record.jsonl,bob.crt
    """
    entries = _entries(records)
    for party, told in entries.items():
        say(f"{party}: {len(told)} entries, each follows from the one before and is signed")
    found = record.disagreements(entries)
    for what in found:
        click.echo(legible(what))
    if found:
        raise click.exceptions.Exit(InputError.exit_status)


@audit.command()
@click.argument("records", nargs=-1, required=True, metavar="PARTY=RECORD.jsonl,PARTY.crt ...")
@click.option("-o", "--output", type=FILE, required=True, help="A new file (.html).")
def report(records: tuple[str, ...], output: Path) -> None:
    """Make a page for a security officer: every job, who asked and allowed it, what it showed to whom, how it ended.

    \b
      spuvm audit report alice=alice/record.jsonl,alice.crt -o report.html
    """
    if output.exists():
        raise InputError(f"{output} is there already: give a new file.")
    output.write_text(page(_entries(records)), "utf-8", "backslashreplace")
    say(f"wrote {output}")


@audit.command()
@click.argument("records", nargs=-1, required=True, metavar="PARTY=RECORD.jsonl,PARTY.crt ...")
@click.option("--as", "form", type=click.Choice(FORMS), default="json", show_default=True, help="Lines of this form.")
@click.option("--after", type=click.IntRange(0), default=0, help="Entries after this number: what was exported last.")
def export(records: tuple[str, ...], form: str, after: int) -> None:
    """Print checked entries for a system that collects logs: JSON or syslog (RFC 5424), a line each.

    \b
      spuvm audit export alice=alice/record.jsonl,alice.crt --as syslog --after 1200 | nc -q 0 -u siem 514
    """
    for line in lines(_entries(records), form, after):
        click.echo(line)


@audit.command()
@click.argument("told", metavar="PARTY=RECORD.jsonl,PARTY.crt")
@click.argument("job")
@click.argument("files", nargs=-1, required=True, metavar="ARGUMENT=FILE ...")
@click.option("--salts", type=FILE, required=True, help="The job's `salts.json`, in the party's state folder.")
def inputs(told: str, job: str, files: tuple[str, ...], salts: Path) -> None:
    """Check that files are those which a job ran on. The record alone, without the salts, says nothing about them.

    \b
      spuvm audit inputs alice=state/record.jsonl,alice.crt 3f2a x=patients.csv --salts state/jobs/3f2a.../salts.json
    """
    ((party, entries),) = _entries((told,)).items()
    found = {e.body["job"]: e.body["commitments"] for e in entries if e.event == "inputs"}
    named = [j for j in found if j.startswith(job)] if job else []
    if len(named) != 1:
        raise InputError(f"{len(named) or 'no'} jobs of the record begin with {job!r:.40} and took files of {party}.")
    committed: dict[str, Any] = found[named[0]]
    wrong = False
    for given in files:
        name, equals, path = given.partition("=")
        if not equals or name not in committed:
            known = ", ".join(committed) or "none"
            raise InputError(f"give ARGUMENT=FILE, of which the record has {legible(known, 300)}, got {given!r:.100}.")
        try:
            same = commitments.opens(committed[name], Path(path), salts, name)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        wrong |= not same
        click.echo(f"{name}: {'the job ran on' if same else 'the job did not run on'} {path}")
    if wrong:
        raise click.exceptions.Exit(InputError.exit_status)


def _entries(records: tuple[str, ...]) -> dict[str, list[record.Entry]]:
    """The checked entries of records by party."""
    entries: dict[str, list[record.Entry]] = {}
    for given in records:
        party, equals, files = given.partition("=")
        path, comma, certificate = files.rpartition(",")
        if not (equals and comma and path and certificate):
            raise InputError(f"give PARTY=RECORD.jsonl,PARTY.crt, got {given!r}.")
        if party in entries:
            raise InputError(f"two records of {party} are given: give one of each party.")
        entries[party] = _entries_of(party, Path(path), Path(certificate))
    return entries


def _entries_of(party: str, path: Path, certificate: Path) -> list[record.Entry]:
    if not path.is_file():
        raise ConfigError(f"there is no record {path}.")
    try:
        key = identity.read(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):  # a point that is on no curve, or a curve that nobody knows
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{certificate} is no certificate of a party: `spuvm keys` makes them.")
    try:
        return list(well_formed(record.verified(path, key), party, path))
    except OSError as error:
        raise DataError(f"the record {path} cannot be read: {error.strerror}.") from None
