"""`spuvm serve`, and what a party's people say to their service: `submit`, `jobs`, `users`, `audit`."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from spuvm.commands.desk import Desk, quoted
from spuvm.commands.terminal import console, say
from spuvm.runtime.errors import InputError, LinkError
from spuvm.runtime.legible import legible
from spuvm.service import settings
from spuvm.service.states import ENDED, STATES

FILE = click.Path(dir_okay=False, path_type=Path)
CONFIG = click.option("--service", "config", type=FILE, default="service.toml", show_default=True, help="Its file.")
TOKEN = click.option("--token", envvar="SPUVM_TOKEN", required=True, help="Yours; better in SPUVM_TOKEN.")
PASSPHRASE = click.option(
    "--passphrase", envvar="SPUVM_KEY_PASSPHRASE", help="Of the key; better in SPUVM_KEY_PASSPHRASE."
)
ANSWER_SECONDS = 30.0
OWN = click.option("--token", envvar="SPUVM_TOKEN", help="Yours; better in SPUVM_TOKEN.")


@click.command()
@click.argument("config", type=FILE)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
@PASSPHRASE
def serve(config: Path, log_level: str, passphrase: str | None) -> None:
    """Be a party all day: take jobs from the parties that the file names, and run what its policy allows.

    Every party runs its own service; no one is the master. A job runs when all its parties have approved,
    by policy or by their people: `spuvm jobs approve`, or the page. `spuvm users add` makes the first user.

    \b
      spuvm users add ann --roles submit,approve,operate --service service.toml
      spuvm serve service.toml
    """
    from spuvm.service.serve import serve as run

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper())
    loaded = settings.load(config)
    where = f"at {loaded.listen}" if loaded.listen is not None else "by its own connections"
    run(loaded, passphrase, lambda: say(f"{loaded.party} serves peers {where}, people at {loaded.page}"))


@click.command()
@click.argument("program", type=FILE)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=DATA[:COLUMNS]@PARTY",
    help="An argument's data, by its name in that party's catalogue; or NAME=NUMBER.",
)
@click.option("--note", default="", help="What it is for: people at all parties read it.")
@click.option("--wait", is_flag=True, help="Wait for the end.")
@click.option("--every", metavar="CRON", help="Ask for it again and again, at these times (UTC), like '0 3 * * *'.")
@click.option("--hash", "only_hash", is_flag=True, help="Print the hash that a policy may name, and submit nothing.")
@CONFIG
@OWN
def submit(
    program: Path,
    inputs: tuple[str, ...],
    note: str,
    wait: bool,
    every: str | None,
    only_hash: bool,
    config: Path,
    token: str | None,
) -> None:
    """Ask all parties of a program (.spux), or of a task (.toml, .py), to run it together.

    Tasks are matching, SQL, boosting, streams and scripts: docs/operate.md says how they are written.

    \b
      spuvm submit correlation.spux --input x=patients:age@alice --input y=visits:cost@bob --note "yearly report"
      spuvm submit match.toml --input alice=patients@alice --input bob=visits@bob --wait
      spuvm submit credit.toml --input loans=loans@alice --input bills=bills@bob --every '0 3 * * 1'
    """
    try:
        text = program.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the program {program} cannot be read: {error}.") from None
    if only_hash:
        from spuvm.service.jobs import read

        return click.echo(read(text).hash)
    if token is None:
        raise InputError("`--token` is missing: yours, or in SPUVM_TOKEN (`spuvm users add` makes one).")
    desk = Desk(config, token)
    body = {"program": text, "inputs": dict(map(_source, inputs)), "note": note}
    if every is not None:
        made = desk.post("/api/schedules", {**body, "cron": every})
        click.echo(made["id"])
        return say(f"runs next on {made['next']}")
    job = desk.post("/api/jobs", body)
    click.echo(job["id"])
    while wait and job["state"] not in ENDED:
        time.sleep(0.5)
        job = desk.get(f"/api/jobs/{job['id']}")
    say(f"{job['state']}{': ' if job['reason'] else ''}{job['reason']}")
    if job["state"] in ("failed", "refused", "cancelled"):
        raise click.exceptions.Exit(LinkError.exit_status)


def _source(given: str) -> tuple[str, dict[str, Any]]:
    name, equals, rest = given.partition("=")
    what, at, party = rest.rpartition("@")
    if equals and name and not at:
        try:
            return name, {"party": None, "data": None, "columns": [], "number": float(rest)}
        except ValueError:
            pass
    data, _, columns = what.partition(":")
    if not (equals and name and at and data and party):
        raise InputError(f"`--input` must be like x=patients:age@alice or rate=0.1, got {given!r}.")
    return name, {"party": party, "data": data, "columns": columns.split(",") if columns else [], "number": None}


@click.group()
def jobs() -> None:
    """Jobs of this party's service.

    \b
      spuvm jobs list
      spuvm jobs show 3f2a
      spuvm jobs approve 3f2a --hash 1b7c...
    """


@jobs.command(name="list")
@CONFIG
@TOKEN
def list_(config: Path, token: str) -> None:
    """All jobs, the newest first."""
    table = Table("job", "state", "asked by", "received", "shows", "why")
    for job in Desk(config, token).get("/api/jobs"):
        table.add_row(
            job["id"][:12], job["state"], job["requester"], job["received"], "\n".join(job["reveals"]), job["reason"]
        )
    console().print(table)


@jobs.command()
@click.argument("job")
@CONFIG
@TOKEN
def show(job: str, config: Path, token: str) -> None:
    """A job whole: what it takes and shows, what each party says, and its program."""
    click.echo(json.dumps(Desk(config, token).job(job), indent=2))


@jobs.command()
@click.argument("job")
@click.option("--hash", "hash_", required=True, help="Of the program that you approve, as `show` prints it.")
@CONFIG
@TOKEN
def approve(job: str, hash_: str, config: Path, token: str) -> None:
    """Let a job run with exactly this program."""
    desk = Desk(config, token)
    say(desk.post(f"/api/jobs/{desk.job(job)['id']}/approve", {"hash": hash_})["state"])


def _ending(name: str, text: str) -> None:
    @jobs.command(name=name, help=text)
    @click.argument("job")
    @CONFIG
    @TOKEN
    def end(job: str, config: Path, token: str) -> None:
        desk = Desk(config, token)
        say(desk.post(f"/api/jobs/{desk.job(job)['id']}/{name}", {})["state"])


_ending("refuse", "Refuse a job that waits for approval.")
_ending("cancel", "End a job that waits or runs.")


@jobs.command()
@click.argument("job")
@click.option("--until", type=click.Choice(STATES), help="This state.  [default: the end]")
@click.option("--seconds", type=click.FloatRange(0), default=3600.0, show_default=True, help="No longer than this.")
@CONFIG
@TOKEN
def wait(job: str, until: str | None, seconds: float, config: Path, token: str) -> None:
    """Wait for a job, which may still be on its way here; exit status 3 if it does not end well, or not in time."""
    desk, end = Desk(config, token), time.monotonic() + seconds
    while True:
        found = desk.beginning(job)
        state = found[0]["state"] if len(found) == 1 else "not known here"
        if state in (until, *ENDED) or time.monotonic() > end:
            break
        time.sleep(0.3)
    why = found[0]["reason"] if len(found) == 1 else ""
    say(f"{state}{': ' if why else ''}{why}")
    if state != (until or "done"):
        raise click.exceptions.Exit(LinkError.exit_status)


@jobs.command()
@click.argument("job")
@CONFIG
@TOKEN
def logs(job: str, config: Path, token: str) -> None:
    """What a job's process printed at this party."""
    desk = Desk(config, token)
    log = desk.raw(f"/api/jobs/{desk.job(job)['id']}/log").decode(errors="replace")
    click.echo(legible(log, lines=True), nl=False)


@jobs.command()
@click.argument("job")
@click.argument("result")
@click.option("-o", "--output", type=FILE, required=True, help="A new file (.npy, .parquet).")
@CONFIG
@TOKEN
def result(job: str, result: str, output: Path, config: Path, token: str) -> None:
    """Fetch a result that this party may see."""
    if output.exists():
        raise InputError(f"{output} is there already: give a new file.")
    desk = Desk(config, token)
    output.write_bytes(desk.raw(f"/api/jobs/{desk.job(job)['id']}/results/{quoted(result)}"))
    say(f"wrote {output}")


@jobs.command()
@click.argument("job")
@CONFIG
@TOKEN
def erase(job: str, config: Path, token: str) -> None:
    """Erase what a job left at this party: results, what it printed, shares that it kept. The record stays."""
    desk = Desk(config, token)
    desk.post(f"/api/jobs/{desk.job(job)['id']}/erase", {})


@jobs.command()
@click.argument("data")
@click.option("--undo", is_flag=True, help="Let jobs use them again, as policy says.")
@CONFIG
@TOKEN
def withdraw(data: str, undo: bool, config: Path, token: str) -> None:
    """Take data of this party's catalogue back: jobs that use them end, what these left here is erased, and no new
    one is allowed."""
    found = Desk(config, token).post(f"/api/data/{quoted(data)}/{'grant' if undo else 'withdraw'}", {})
    for job in found.get("jobs", ()):
        click.echo(job)


@jobs.command()
@CONFIG
@TOKEN
def schedules(config: Path, token: str) -> None:
    """What this party asks for again and again (`spuvm submit --every`)."""
    table = Table("schedule", "times", "by", "next", "last job", "note")
    for s in Desk(config, token).get("/api/schedules"):
        table.add_row(s["id"], s["cron"], s["user"], s["next"], s["last"][:12], s["note"])
    console().print(table)


@jobs.command()
@click.argument("schedule")
@CONFIG
@TOKEN
def unschedule(schedule: str, config: Path, token: str) -> None:
    """End a schedule; a job that it began goes on."""
    Desk(config, token).post(f"/api/schedules/{quoted(schedule)}/remove", {})


@click.group()
def users() -> None:
    """Who of this party's people may do what: submit, approve, operate.

    \b
      spuvm users add ann --roles submit,approve
    """


@users.command()
@click.argument("name")
@click.option("--roles", required=True, help="Of submit, approve, operate, with commas between.")
@click.option(
    "--days", type=click.FloatRange(0.001, 3650), default=90.0, show_default=True, help="Until the token ends."
)
@CONFIG
def add(name: str, roles: str, days: float, config: Path) -> None:
    """Add a user, or give one a new token: it is printed once, and kept as a hash."""
    click.echo(_store(config).add_user(name, tuple(r for r in roles.split(",") if r), days))


@users.command()
@click.argument("name")
@CONFIG
def remove(name: str, config: Path) -> None:
    """Remove a user: the token is worth nothing from now on."""
    _store(config).remove_user(name)


@users.command(name="list")
@CONFIG
def list_users(config: Path) -> None:
    """All users, their roles, and when their tokens end."""
    table = Table("name", "roles", "ends")
    for name, roles, ends in _store(config).users():
        table.add_row(name, roles, time.strftime("%Y-%m-%d", time.gmtime(ends)))
    console().print(table)


def _store(config: Path) -> Any:
    from spuvm.service.store import Store

    state = settings.load(config).state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Store(state / "service.sqlite")
