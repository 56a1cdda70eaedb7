"""The command `spuvm bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from spuvm.bench import calls, kernels, measure, report
from spuvm.bench.measure import NETWORKED, ON_DEVICE, SIMULATED, Plan, Result
from spuvm.bench.operations import OPERATIONS, Sizes
from spuvm.bench.peer import PYTHON_VARIABLE
from spuvm.bench.peer import peer_python as find_peer
from spuvm.bench.workers import BenchmarkError
from spuvm.runtime.engine.device import found
from spuvm.runtime.ring.native import features

WIDE = 200  # columns of a table that goes to a file or a pipe
POSITIVE = click.IntRange(min=1)
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


def _operations(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    """The names of `--ops`, all of them if none are given."""
    names = tuple(OPERATIONS) if text is None else tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise click.BadParameter(f"unknown: {', '.join(unknown)}. There are {', '.join(OPERATIONS)}.")
    return names


@click.command()
@click.argument(
    "what", required=False, type=click.Choice(["kernels", "applications"]), metavar="[kernels|applications]"
)
@click.option("--ops", callback=_operations, metavar="NAME,NAME", help="Operations to time; all if not given.")
@click.option("--size", default=1_000_000, show_default=True, type=POSITIVE, help="Elements of most operations.")
@click.option("--matrix", default=512, show_default=True, type=POSITIVE, help="Rows and columns of a matrix.")
@click.option("--sort-size", default=100_000, show_default=True, type=POSITIVE, help="Elements of what is sorted.")
@click.option(
    "--repeat",
    default=5,
    show_default=True,
    type=POSITIVE,
    help="Timed runs, after one that is not; more of what takes less than a second in all.",
)
@click.option("--simulated/--no-simulated", default=True, show_default=True, help="All parties in one process.")
@click.option("--network/--no-network", default=True, show_default=True, help="Three processes over mutual TLS.")
@click.option("--device", metavar="NAME", help="Simulated on a device of JAX's, too: gpu, cpu:0 or the like.")
@click.option("--against", type=click.Choice(["spu"]), help="A peer to run in turn: SecretFlow SPU 0.9.5.")
@click.option(
    "--peer-python",
    envvar=PYTHON_VARIABLE,
    metavar="PATH",
    help=f"A Python that has the peer; else an environment is made once. Also {PYTHON_VARIABLE}.",
)
@click.option("--first-call", is_flag=True, help="Only the first call of a logistic regression in new processes.")
@click.option("--timeout", default=600.0, show_default=True, type=click.FloatRange(min=1), help="Seconds, of one step.")
@click.option("--json", "json_path", type=OUTPUT, help="Write the figures there.")
@click.option("--markdown", "markdown_path", type=OUTPUT, help="Write the tables there as a page.")
@click.option("--check", is_flag=True, help="Exit with status 1 if a goal against the peer is missed.")
def bench(
    what: str | None,
    ops: tuple[str, ...],
    size: int,
    matrix: int,
    sort_size: int,
    repeat: int,
    simulated: bool,
    network: bool,
    device: str | None,
    against: str | None,
    peer_python: str | None,
    first_call: bool,
    timeout: float,
    json_path: Path | None,
    markdown_path: Path | None,
    check: bool,
) -> None:
    """Time operations on secret data, from shared inputs to shared outputs, compiled and warm.

    Each is timed simulated and as three processes over mutual TLS on this machine. Rounds and bytes
    are those of one run, the error is against float64, and the time of a billion rows is the median
    scaled up. With `--against spu` the peer runs each operation right after, on the same inputs and
    for the same second at least: ratios above 1 say that spuvm is faster, best run against best. With
    `applications`, a logistic regression and two networks are timed as whole calls, from arrays to arrays.
    With `--device`, each is simulated once more with all stages on that device, by XLA.
    With `kernels`, only the native kernels are timed, beside what stands in for them where they are not built.

    \b
    Examples:
      spuvm bench --ops multiply,less --size 100000 --no-network
      spuvm bench --against spu --json results.json
      spuvm bench --ops matmul,less --device gpu --no-network
      spuvm bench --first-call
      spuvm bench applications --against spu
      spuvm bench kernels
    """
    console, progress = Console(), Console(stderr=True, markup=False)
    if not console.is_terminal:
        console = Console(width=WIDE)
    if what == "kernels":
        rows = kernels.kernels()
        console.print(kernels.table(rows))
        _write(json_path, {"machine": measure.machine(), "features": features(), "kernels": kernels.as_dicts(rows)})
        return
    if device is not None:
        found(device)
    about = measure.machine()
    modes = [mode for mode, on in ((SIMULATED, simulated), (NETWORKED, network)) if on]
    python = find_peer(peer_python, progress.print) if against else None
    if what == "applications":
        measured = list(calls.measure(modes, repeat, timeout, python, progress.print))
        for table in calls.tables(measured):
            console.print(table)
        _write(json_path, {"machine": about, "applications": calls.as_dicts(measured)})
        return
    results: list[Result] = []
    first: list[dict[str, Any]] = []
    if first_call:
        first = measure.first_calls(timeout)
        console.print(report.first_call_table(first))
    else:
        modes += [] if device is None else [ON_DEVICE]
        plan = Plan(ops, Sizes(size, matrix, sort_size), repeat, modes, timeout, python, device)
        results = run(plan, progress)
        for table in report.tables(results):
            console.print(table)
    _write(json_path, report.as_dict(about, results, first))
    if markdown_path is not None:
        markdown_path.write_text(report.page(about, results, first))
    misses = report.missed(results)
    for miss in misses:
        progress.print(miss)
    if check and misses:
        raise BenchmarkError(f"{len(misses)} of the goals were missed.")


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


def run(plan: Plan, progress: Console) -> list[Result]:
    """All results, telling which operation is at work."""
    results = []
    with ExitStack() as stack:
        say: Callable[[str], None] = progress.print
        if progress.is_terminal:
            say = stack.enter_context(progress.status("starting")).update
        for result in stack.enter_context(measure.measuring(plan, say)):
            results.append(result)
            if result.ours.failure is not None:
                progress.print(f"{result.operation}, {result.mode}: {result.ours.failure}")
            if result.peer is not None and result.peer.failure is not None:
                progress.print(f"{result.operation}, {result.mode}, peer: {result.peer.failure}")
    return results
