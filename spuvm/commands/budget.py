"""`spuvm budget`: what was spent of a data set's privacy."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import click

from spuvm.dp.budget import Budget, Use
from spuvm.dp.spending import Spent


@click.group()
def budget() -> None:
    """Budgets of differential privacy: what of a data set's epsilon is spent, and on what.

    \b
        spuvm budget show patients.ledger
        spuvm budget show patients.ledger --json
    """


@budget.command()
@click.argument("ledger", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(ledger: Path, as_json: bool) -> None:
    """What LEDGER allows, each use, and what is left. A ledger that was changed or restored is refused."""
    shown = Budget.open(ledger)
    uses = shown.uses
    spent = shown.spent_in(uses)
    if as_json:
        terms = {"epsilon": shown.epsilon, "delta": shown.delta, "unit": shown.unit}
        entries = [{"time": u.time, "label": u.label, "spent": [vars(s) for s in u.spent]} for u in uses]
        whole = {**terms, "contributions": shown.contributions, "spent": spent, "uses": entries}
        click.echo(json.dumps(whole, indent=2))
        return
    click.echo(
        f"epsilon {shown.epsilon:g}, delta {shown.delta:g}; neighbours differ by all rows of one {shown.unit}, at most "
        f"{shown.contributions}"
    )
    for use in uses:
        click.echo(_line(use))
    left = max(0.0, shown.epsilon - spent)
    click.echo(f"spent {spent:.6g} in {len(uses)} uses, left {left:.6g}")


def _line(use: Use) -> str:
    at = datetime.datetime.fromtimestamp(use.time, datetime.UTC)
    return f"{use.number:6}  {at:%Y-%m-%d %H:%M:%S}  {_mechanisms(use.spent):32}  {use.label}"


def _mechanisms(spent: Sequence[Spent]) -> str:
    return ", ".join(map(_mechanism, spent))


def _mechanism(s: Spent) -> str:
    sampled = f" of a sample of {s.sampling:g}" if s.sampling < 1 else ""
    return f"{s.mechanism} {s.ratio:.6g}" + (f" x{s.times}" if s.times > 1 else "") + sampled
