"""`spuvm flow`: check, cost, run, resume, show and compare flows; simulated, or as one party of several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

import spuvm as spu
from spuvm.commands.flow_network import parties_of, run_network
from spuvm.commands.flow_options import catalog_of, changed, outcome, rich_table
from spuvm.commands.options import timeout_option
from spuvm.commands.terminal import console, say
from spuvm.flow import Flow, grants
from spuvm.flow import run as run_flow
from spuvm.flow.differences import difference, other_data
from spuvm.flow.estimating import rehearse, table, told
from spuvm.flow.records import NodeRun, names, read, versions
from spuvm.runtime.errors import InputError

STATE = "flows"
SEARCH = ("method", "trials", "reveal", "patience", "seed", "state", "workers", "engine")  # of `tune`, by its names
path = click.Path(path_type=Path)


@click.group()
def flow() -> None:
    """Check, cost, run and compare flows: graphs of components that several parties run together.

    \b
      spuvm flow check credit.toml
      spuvm flow cost credit.toml --table loans=a.parquet@alice --table bills=b.parquet@bob
      spuvm flow run credit.toml --table loans=a.parquet@alice --table bills=b.parquet@bob --report credit.html
    Parties on several machines review the flow, allow what it does, and run it:
      spuvm flow approve credit.toml --as alice --until 2027-12-31 -o grants.toml
      spuvm flow run credit.toml --config cluster.toml --as alice --table loans=a.parquet --grants grants.toml
    """


set_option = click.option("--set", "changes", multiple=True, metavar="NODE.PARAMETER=VALUE", help="Another parameter.")


def tables_option(command: Any) -> Any:
    """Where tables lie."""
    one = click.option(
        "--table", "tables", multiple=True, metavar="NAME=FILE[@PARTY]", help="An entry of a party's catalogue."
    )
    many = click.option("--catalog", type=path, help="Catalogues (TOML): [alice] loans = 'a.parquet'.")
    return one(many(set_option(command)))


@flow.command()
@click.argument("file", type=path)
@set_option
def check(file: Path, changes: tuple[str, ...]) -> None:
    """Check a flow: nodes, kinds of inputs, parameters, circles. Nothing runs."""
    found = changed(Flow.load(file), changes)
    console().print(f"flow {found.name}: {len(found)} nodes, hash {found.hash}")
    for owner in sorted({o for n in found.nodes for o in found.owners(n)}):
        grant = grants.asked(found, owner, date.max)
        asked = "; ".join(f"{t}: {', '.join(c)}" for t, c in grant.tables.items())
        console().print(f"{owner}  tables {asked}  uses {', '.join(grant.uses)}")


@flow.command()
@click.argument("file", type=path)
@tables_option
def cost(file: Path, tables: tuple[str, ...], catalog: Path | None, changes: tuple[str, ...]) -> None:
    """Say what a flow costs and reveals, before it runs.

    It is rehearsed in the clear, in this process, on the tables given: yours, and of others samples of the same shape.
    """
    found = changed(Flow.load(file), changes)
    made = rehearse(found, catalog_of(tables, catalog))
    console().print(rich_table(*table(made.nodes, found)))
    total = made.spent
    console().print(f"in all {total.rounds:,} rounds, {total.bytes / 1e6:,.3f} MB sent by all parties")


@flow.command()
@click.argument("file", type=path)
@tables_option
@click.option("--run", "name", metavar="NAME", help="Of the run.  [default: the flow's, and a number]")
@click.option("--state", type=path, default=STATE, show_default=True, help="Checkpoints and records.")
@click.option("--results", type=path, help="Where files that the flow writes go.  [default: below the state]")
@click.option("--config", "config_file", type=path, help="The cluster file: be one party of it.")
@click.option("--as", "me", metavar="PARTY", help="Who this process is.")
@click.option("--grants", "grant_file", type=path, help="What this party allows (TOML).")
@click.option(
    "--approve",
    metavar="HASH|file:SHA256",
    help="Allow all that the flow of this hash does with this party's tables, now.",
)
@click.option("--network", is_flag=True, help="Run each party as a process of this machine, over TLS.")
@timeout_option(60.0)
@click.option("--retries", type=click.IntRange(0, 100), default=0, show_default=True, help="After a peer was lost.")
@click.option("--fresh", is_flag=True, help="Take nothing from before.")
@click.option("--report", type=path, help="Write a page about the run (HTML).")
@click.option("--resume", is_flag=True, hidden=True)
@click.option("--quiet", is_flag=True, help="Say nothing of progress.")
def run(file: Path, **options: Any) -> None:
    """Run a flow. What is the same as in an earlier run is taken from there."""
    found = changed(Flow.load(file), options["changes"])
    if options["network"]:
        return run_network(found, file, options)
    if (options["config_file"] is None) != (options["me"] is None):
        raise InputError("`--config` and `--as` go together.")
    _set_up(found, options)
    try:
        made = run_flow(
            found,
            name=options["name"],
            resume=options["resume"],
            state=options["state"],
            tables=catalog_of(options["tables"], options["catalog"], options["me"]),
            results=dict.fromkeys(_here(options), options["results"]) if options["results"] else None,
            grants=_grants(found, file, options),
            retries=options["retries"],
            fresh=options["fresh"],
            told=None if options["quiet"] else _progress,
        )
        outcome(made)
        if options["report"] is not None:
            from spuvm.flow.page import write_page

            write_page(options["report"], [made.recorded()], made.places.folder(made.places.here[0]))
            say(f"wrote {options['report']}")
    finally:
        spu.shutdown()


@flow.command()
@click.argument("file", type=path)
@click.argument("name")
@click.pass_context
def resume(context: click.Context, /, file: Path, name: str, **options: Any) -> None:
    """Go on with the run NAME of a flow that did not end. Options are those of `run`."""
    context.invoke(run, file=file, **{**options, "name": name, "resume": True})


resume.params += [p for p in run.params if p.name not in ("file", "name", "resume", "fresh")]


@flow.command()
@click.argument("what")
@click.option("--state", type=path, default=STATE, show_default=True)
@click.option("--as", "me", metavar="PARTY", help="Whose records.  [default: the only party's, or the first's]")
@click.option("--svg", type=path, help="Write the graph (SVG).")
@click.option("--report", type=path, help="Write a page about the run (HTML).")
@click.option("--beside", metavar="RUN", help="Another run, beside it on the page.")
def show(what: str, **options: Any) -> None:
    """Show a flow (a file), a run (its name), or all runs ("runs") and versions of flows ("versions")."""
    from spuvm.flow.drawing import svg

    if Path(what).suffix == ".toml":
        found = Flow.load(what)
        for name, node in found.nodes.items():
            console().print(f"{name}: {node.component.name} of {', '.join(node.before) or 'nothing'}")
        if options["svg"] is not None:
            options["svg"].write_text(svg(found))
        return
    folder = _folder(options["state"], options["me"])
    if what == "runs":
        for name in names(folder):
            made = read(folder, name)
            console().print(f"{name}  {made.state}  {made.head['began']}  flow {made.head['flow'][:12]}")
    elif what == "versions":
        for hash, runs in versions(folder).items():
            console().print(f"{hash}  {', '.join(runs)}")
    else:
        _show_run(folder, what, options)


def _show_run(folder: Path, name: str, options: Mapping[str, Any]) -> None:
    from spuvm.flow.drawing import svg
    from spuvm.flow.page import flow_of, write_page

    made = read(folder, name)
    console().print(f"run {name}: {made.state}{': ' + made.why if made.why else ''}, {made.seconds:g} s")
    rows = [(n, r.state, f"{r.seconds:.2f}", f"{r.spent.rounds:,}", "; ".join(told(r))) for n, r in made.nodes.items()]
    console().print(rich_table(("node", "state", "seconds", "rounds", "reveals"), rows))
    if options["svg"] is not None:
        options["svg"].write_text(svg(flow_of(made), made.nodes))
    if options["report"] is not None:
        both = [made, *([read(folder, options["beside"])] if options["beside"] else [])]
        write_page(options["report"], both, folder)


@flow.command()
@click.argument("first")
@click.argument("second")
@click.option("--state", type=path, default=STATE, show_default=True)
@click.option("--as", "me", metavar="PARTY")
@set_option
def diff(first: str, second: str, state: Path, me: str | None, changes: tuple[str, ...]) -> None:
    """Say what changed from one flow to another: files, or runs by name, which also tell of other data.

    `--set` is for the second, if that is a file.
    """
    runs = not any(Path(what).suffix == ".toml" for what in (first, second))
    if changes and Path(second).suffix != ".toml":
        raise InputError(f"`--set` changes a flow's file: {second} is a run, whose parameters are what they were.")
    lines = difference(_text(first, state, me), _text(second, state, me, changes))
    if runs:
        folder = _folder(state, me)
        lines += other_data(read(folder, first), read(folder, second))
    for line in lines or [
        "the two runs are of the same flow and the same data" if runs else "the two flows are the same"
    ]:
        console().print(line)


def _text(what: str, state: Path, me: str | None, changes: tuple[str, ...] = ()) -> Mapping[str, Any]:
    import json

    if Path(what).suffix == ".toml":
        body: Mapping[str, Any] = json.loads(changed(Flow.load(what), changes).text)
        return body
    return read(_folder(state, me), what).text


@flow.command()
@click.argument("file", type=path)
@click.option("--as", "me", metavar="PARTY", required=True, help="Whose tables.")
@click.option("--until", metavar="DATE", help="The last day on which it holds.  [default: in 30 days]")
@click.option("-o", "output", type=path, help="Write it to a file.  [default: show it]")
@set_option
def approve(file: Path, me: str, until: str | None, output: Path | None, changes: tuple[str, ...]) -> None:
    """Write the grant that a flow needs of a party: read it, and give it to `spuvm flow run --grants`."""
    today = datetime.now(UTC).date()
    try:
        last = date.fromisoformat(until) if until else today + timedelta(days=30)
    except ValueError:
        raise InputError(f"`--until` must be a date such as 2027-12-31, got {until!r}.") from None
    if last < today:
        raise InputError(f"`--until` {last} is past (today is {today}, UTC): the grant would allow nothing.")
    text = grants.to_toml([grants.asked(changed(Flow.load(file), changes), me, last)])
    if output is None:
        console().print(text)
    elif output.exists():
        raise InputError(f"{output} is there already: give another name, and join the two by hand.")
    else:
        output.write_text(text)


@flow.command()
@click.argument("file", type=path)
@tables_option
@click.option(
    "--space", "spaces", multiple=True, required=True, metavar="NODE.PARAMETER=VALUES", help="1,2,3 or 0.1..1"
)
@click.option("--score", required=True, metavar="OUTPUT", help="A number, or a report's: quality.auc")
@click.option("--method", type=click.Choice(["grid", "random", "halving", "optuna"]), default="grid", show_default=True)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True)
@click.option("--minimize", is_flag=True, help="The least score is best.")
@click.option("--reveal", type=click.Choice(["each", "best"]), default="each", show_default=True, help="Whose score.")
@click.option("--resource", metavar="NODE.PARAMETER=VALUES", help="Of halving: what costs more and more.")
@click.option("--patience", type=click.IntRange(1), help="End after so many trials without a better one.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Trials that run at once.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where they run: in processes here, or on Ray.",
)
@click.option("--state", type=path, default=STATE, show_default=True)
@click.option("--report", type=path, help="Write a page about the search (HTML).")
def tune(file: Path, **options: Any) -> None:
    """Search for parameters of a flow with the best score, simulated."""
    from spuvm.flow.page import tuning_page
    from spuvm.flow.tuning import tune as search
    from spuvm.flow.tuning import values_of

    found = changed(Flow.load(file), options["changes"])
    spu.init(parties=parties_of(found), address="local")
    resource = values_of(options["resource"]) if options["resource"] else None
    made = search(
        found,
        dict(map(values_of, options["spaces"])),
        options["score"],
        maximize=not options["minimize"],
        resource=resource,  # type: ignore[arg-type]
        told=lambda t: say(f"trial {t.number}: {t.state}{'' if t.score is None else f', {t.score:.6g}'}"),
        tables=catalog_of(options["tables"], options["catalog"]),
        **{k: options[k] for k in SEARCH},
    )
    heads, rows = made.table()
    shown = [tuple("" if c is None else f"{c:.6g}" if isinstance(c, float) else str(c) for c in row) for row in rows]
    console().print(rich_table(heads, shown))
    assert made.best is not None
    best = ", ".join(f"{k} = {v}" for k, v in made.best.parameters.items())
    console().print(f"best: trial {made.best.number}, {made.score} = {made.best.score:.6g} with {best}")
    if options["report"] is not None:
        options["report"].write_text(tuning_page(found.name, made))


# Options --------------------------------------------------------------------------------------------------


def _here(options: Mapping[str, Any]) -> tuple[str, ...]:
    from spuvm import context

    return (options["me"],) if options["me"] else context.here().parties


def _set_up(found: Flow, options: Mapping[str, Any]) -> None:
    if options["me"] is not None:
        spu.init(party=options["me"], config=options["config_file"], timeout=options["timeout"])
    else:
        spu.init(parties=parties_of(found), address="local")


def _grants(found: Flow, file: Path, options: Mapping[str, Any]) -> dict[str, Any] | None:
    me = options["me"]
    approved = options["approve"]
    if approved is not None and approved.startswith("file:"):
        if approved != f"file:{hashlib.sha256(file.read_bytes()).hexdigest()}":
            raise InputError(f"`--approve` is of another content of {file}: look at it again.")
    elif approved is not None and (len(approved) < 12 or not found.hash.startswith(approved)):
        raise InputError(f"`--approve` is of {options['approve']!r}, and this flow is {found.hash}: look at it again.")
    if me is None and options["grant_file"] is not None:
        raise InputError("`--grants` is one party's: say whose by `--as`; a simulated run of all asks nobody.")
    given = {} if options["grant_file"] is None else {me: grants.load(options["grant_file"])}
    if me is not None and options["approve"]:
        today = datetime.now(UTC).date() + timedelta(days=1)
        given[me] = (*given.get(me, ()), grants.asked(found, me, today))
    if me is None:
        return None
    return {me: given.get(me, ())}


def _folder(state: Path, me: str | None) -> Path:
    if me is not None:
        return state / me
    found = sorted(p for p in Path(state).glob("*/runs") if p.is_dir())
    if not found:
        raise InputError(f"{state} has no runs: give `--state`.")
    return found[0].parent


# Showing --------------------------------------------------------------------------------------------------


def _progress(name: str, entry: NodeRun) -> None:
    if entry.state in ("done", "failed", "stopped"):
        say(f"{name}: {entry.state} in {entry.seconds:.1f} s")
    elif entry.state != "not needed":
        say(f"{name}: {entry.state}")
