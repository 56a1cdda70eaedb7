"""`spuvm sgb train` and `spuvm sgb predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import spuvm as spu
from spuvm.commands import sgb_jobs
from spuvm.commands.options import USUAL_PARTIES, NamesType, timeout_option
from spuvm.commands.sgb_jobs import Job
from spuvm.commands.sgb_settings import Settings, read_settings
from spuvm.commands.terminal import say
from spuvm.commands.together import run_together
from spuvm.context import abort_everyone_on_error, agree
from spuvm.data.targets import check_target
from spuvm.network import make_run_folder
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls.connect import decline
from spuvm.runtime.scratch import Scratch
from spuvm.shares import parties_of

FORMATS = (".csv", ".parquet")
COMPUTING = 3
PART = "model.share"
PATIENCE = 300.0  # seconds: the first training compiles while others wait


@click.group()
def sgb() -> None:
    """Gradient boosting on a table that several parties hold.

    \b
      spuvm sgb train params.toml alice=a.csv bob=b.csv carol=c.csv --model models --network
      spuvm sgb predict params.toml alice=a.csv bob=b.csv carol=c.csv --model models --to carol --output risk.csv

    Parameters are in a file that is the same at all parties:

    \b
      label = "malignant"                  # a column of one party
      key = "id"                           # the column, at all parties, that says which row is whose
      [model]                              # as XGBoost's
      n_estimators = 20
      max_depth = 3
      max_bin = 32
      [test]                               # optional: rows held out, scored after each round
      size = 0.25
      [data]                               # optional, of all tables
      frame = "vertical"                   # each party has some columns; or "horizontal": some rows
      parties = ["alice", "bob"]           # who brings one, if not all
      match = "inner"                      # tables have different rows: find those that all have
      drop = ["name"]
      missing = false                      # no cell is missing: faster
      categories = { ward = "public" }     # all may know which there are
    """  # fmt: skip


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Of both commands."""
    for option in reversed(
        [
            click.argument("settings_file", metavar="PARAMS.toml", type=click.Path(path_type=Path)),
            click.argument("data", metavar="[PARTY=]FILE...", nargs=-1),
            click.option(
                "--model",
                "folder",
                required=True,
                type=click.Path(file_okay=False, path_type=Path),
                help="Folder of this party's part of the model; of all parties: their folders are in it.",
            ),
            click.option(
                "--config", "config_file", type=click.Path(path_type=Path), help="The cluster file, to be one party."
            ),
            click.option("--as", "me", metavar="PARTY", help="Who this process is."),
            click.option(
                "--tables", type=NamesType(), help="Who brings a table.  [default: as PARAMS.toml says, or all]"
            ),
            click.option("--network", is_flag=True, help="Run each party as a process of its own, over TLS."),
            timeout_option(otherwise="as in --config, or 300"),
            click.option("--force", is_flag=True, help="Replace what is there."),
            click.option("--quiet", is_flag=True, help="No progress."),
        ]
    ):
        command = option(command)
    return command


@sgb.command()
@shared_options
def train(**options: Any) -> None:
    """Train a model; each party keeps a part of it, which says nothing by itself.

    \b
    Each party by itself, with its own file:
      spuvm sgb train params.toml alice.csv --model alice_model --config cluster.toml --as alice
    All on one machine, simulated or as processes:
      spuvm sgb train params.toml alice=a.csv bob=b.csv carol=c.csv --model models [--network]
    """  # fmt: skip
    _run(Asked("train", **options))


@sgb.command()
@click.option("--to", "receiver", metavar="PARTY", required=True, help="Who alone sees the predictions.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the receiver writes them, beside the keys: a .csv or .parquet file.",
)
@click.option("--classes", is_flag=True, help="Classes instead of probabilities.")
@shared_options
def predict(**options: Any) -> None:
    """Predict with a trained model, for one party alone. Tables need not have the label.

    \b
    Each party by itself, with its own file and its part of the model:
      spuvm sgb predict params.toml alice.csv --model alice_model --to carol --config cluster.toml --as alice
      spuvm sgb predict params.toml carol.csv --model carol_model --to carol --output risk.csv \\
                --config cluster.toml --as carol
    All on one machine:
      spuvm sgb predict params.toml alice=a.csv bob=b.csv carol=c.csv --model models --to carol --output risk.csv
    """  # fmt: skip
    _run(Asked("predict", **options))


# What was asked for ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A command line. `receiver`, `output` and `classes` are of `predict`."""

    command: str
    settings_file: Path
    data: tuple[str, ...]
    folder: Path
    config_file: Path | None
    me: str | None
    tables: tuple[str, ...] | None
    network: bool
    timeout: float | None
    force: bool
    quiet: bool
    receiver: str | None = None
    output: Path | None = None
    classes: bool = False

    def check_output(self, me: str | None, parties: Sequence[str]) -> None:
        """That the receiver, and no other, has a place to write to. `me` None: all parties are here."""
        if self.receiver is None:
            return
        if self.receiver not in parties:
            raise InputError(f"`--to` must be one of {', '.join(parties)}, got {self.receiver!r}.")
        if me not in (None, self.receiver):
            if self.output is not None:
                raise InputError(f"`--output`: {self.receiver} alone sees the predictions, and writes them.")
            return
        if self.output is None:
            raise InputError(f"`--output` is missing: {self.receiver} sees the predictions, and writes them to a file.")
        check_target(self.output, self.force, FORMATS)

    def job(
        self,
        settings: Settings,
        computing: Sequence[str],
        sources: Mapping[str, Path | None],
        folders: Mapping[str, Path],
    ) -> Job:
        """What is to be done here; `folders` of those parties that this process is."""
        return Job(
            settings,
            computing,
            sources,
            folders,
            self.force,
            self.quiet,
            self.receiver or "",
            self.output,
            self.classes,
        )

    def check_model(self, folder: Path) -> None:
        """That a part can be written to this folder, before the work begins."""
        if self.command == "train":
            folder.mkdir(parents=True, exist_ok=True)
            check_target(folder / PART, self.force, formats=())

    def as_party(self, party: str, config: Path, sources: Mapping[str, Path]) -> list[str]:
        """The command line of one party's process."""
        line = ["sgb", self.command, str(self.settings_file), "--model", str(self.folder / party)]
        line += ["--config", str(config), "--as", party, "--tables", ",".join(sources)]
        line += [str(sources[party])] if party in sources else []
        line += [o for o, on in (("--force", self.force), ("--quiet", self.quiet), ("--classes", self.classes)) if on]
        line += ["--to", self.receiver] if self.receiver else []
        line += ["--output", str(self.output)] if party == self.receiver else []
        return [sys.executable, "-m", "spuvm", *line]


@dataclass(frozen=True)
class Local:
    """All parties on this machine: who brings which file, who computes, and all who take part."""

    sources: dict[str, Path]
    computing: tuple[str, ...]
    parties: tuple[str, ...]


# Which processes there are ---------------------------------------------------------------------------------


def _run(asked: Asked) -> None:
    if (asked.config_file is None) != (asked.me is None):
        raise click.UsageError("`--config` and `--as` belong together.")
    if asked.me is not None and asked.network:
        raise click.UsageError("`--network` runs all parties: leave out `--as` and `--config`.")
    if asked.me is not None and asked.config_file is not None:
        _be(asked, asked.me, asked.config_file)
        return
    settings = read_settings(asked.settings_file)
    local = _local(settings, asked)
    asked.check_output(None, local.parties)
    for party in local.parties:
        asked.check_model(asked.folder / party)
    (_processes if asked.network else _simulate)(asked, settings, local)


def _simulate(asked: Asked, settings: Settings, local: Local) -> None:
    spu.init(parties=local.parties, address="local")
    try:
        folders = {p: asked.folder / p for p in local.parties}
        kept = sgb_jobs.JOBS[asked.command](asked.job(settings, local.computing, local.sources, folders))
    finally:
        spu.shutdown()
    if kept is not None:
        raise kept


def _processes(asked: Asked, settings: Settings, local: Local) -> None:
    with Scratch() as folder:
        members = spu.Config(parties=local.computing, others=local.parties[len(local.computing) :])
        config = make_run_folder(folder, members, timeout=asked.timeout or PATIENCE)
        commands = {p: asked.as_party(p, config, local.sources) for p in local.parties}
        run_together(commands, _relay)


def _relay(party: str, stream: str, line: str) -> None:
    click.echo(f"{party}: {line}", err=stream == "stderr")


def _be(asked: Asked, me: str, config_file: Path) -> None:
    """One party. What is wrong with its own command is found before it connects, and the others are told."""
    cluster = load_cluster(config_file)
    cluster.rank(me)
    parties = cluster.names
    try:
        settings = read_settings(asked.settings_file)
        sources = _mine(asked.tables or settings.parties or parties, asked.data, me, parties)
        asked.check_output(me, parties)
        asked.check_model(asked.folder)
    except BaseException:
        decline(cluster, me, "its parameters or files cannot be used")
        raise
    if not asked.quiet:
        say(f"waiting for {', '.join(n for n in parties if n != me)}")
    spu.init(party=me, config=config_file, timeout=asked.timeout)
    try:
        with abort_everyone_on_error():
            agree("parameters", settings.canonical)
            agree("parties with tables", ",".join(sources).encode())
            agree("command", f"{asked.command} {asked.receiver} {asked.classes}".encode())
            folders = {me: asked.folder}
            kept = sgb_jobs.JOBS[asked.command](asked.job(settings, cluster.config.parties, sources, folders))
    finally:
        spu.shutdown()
    if kept is not None:  # when the others are done: they need not stop
        raise kept


def _local(settings: Settings, asked: Asked) -> Local:
    sources: dict[str, Path] = {}
    for item in asked.data:
        party, equals, path = item.partition("=")
        if not equals or not party or not path:
            raise InputError(f"{item!r} must be like alice=alice.csv: all parties' files are given here.")
        if party in sources:
            raise InputError(f"two files of {party} are given: bring one.")
        sources[party] = Path(path)
    if not sources:
        raise InputError("no files are given: say alice=alice.csv bob=bob.csv ...")
    bringing = asked.tables or settings.parties or tuple(sources)
    if set(bringing) != set(sources):
        raise InputError(f"the parameters say that {', '.join(bringing)} bring tables, not {', '.join(sources)}.")
    parts = sorted(asked.folder.glob(f"*/{PART}")) if asked.command == "predict" else []
    if parts:
        computing = parties_of(parts[0])
    else:
        spare = [p for p in USUAL_PARTIES if p not in sources]
        computing = (*bringing, *spare)[:COMPUTING]
    others = [p for p in bringing if p not in computing]
    return Local({p: sources[p] for p in bringing}, computing, (*computing, *others))


def _mine(bringing: Sequence[str], data: Sequence[str], me: str, parties: Sequence[str]) -> dict[str, Path | None]:
    """The sources as this party gives them."""
    unknown = [p for p in bringing if p not in parties]
    if unknown:
        raise InputError(f"`parties` of the parameters names {unknown[0]}: the cluster file has {', '.join(parties)}.")
    if me in bringing and len(data) != 1:
        raise InputError(f"{me} brings one table, got {len(data)} files: or name in `[data]` the `parties` that do.")
    if me not in bringing and data:
        raise InputError(f"{me} brings no table, say the parameters: leave out {data[0]}.")
    return {p: Path(data[0]) if p == me else None for p in bringing}
