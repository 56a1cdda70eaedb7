"""All parties of a command as processes: what they print is shown, and of a failure its cause, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from spuvm.network import Listener, Outcome, PartiesFailed, run_parties
from spuvm.runtime.errors import LinkError

ERROR = "error: "  # how the last words of a process begin


def run_together(commands: Mapping[str, Sequence[str]], show: Listener) -> None:
    """Run one process per party; `show` gets their lines, but for errors.

    Raises:
        PartiesFailed: if one failed, with the words of the party that is the cause; not of those who lost it.
    """
    if (click.get_current_context().obj or {}).get("debug"):
        run_parties(commands, on_line=show)
        return
    failing: set[str] = set()

    def line(party: str, stream: str, text: str) -> None:
        if stream == "stderr" and text.startswith(ERROR):
            failing.add(party)
        if stream != "stderr" or party not in failing:
            show(party, stream, text)

    try:
        run_parties(commands, on_line=line)
    except PartiesFailed as failed:
        outcomes = list(failed.outcomes.values())
        raise PartiesFailed(outcomes, cause(outcomes)) from None


def cause(outcomes: Sequence[Outcome]) -> str:
    """What those say, in the order in which they ended, who failed by themselves; if nobody did, the first of those
    who do not only repeat what another told them.
    """
    failed = [o for o in outcomes if o.failed and not o.stopped]
    told = tuple(f"{o.party} stopped" for o in outcomes)
    first = [o for o in failed if not _last_words(o).startswith(told)] or failed
    own = [o for o in failed if o.status != LinkError.exit_status] or first[:1]
    said: dict[str, list[str]] = {}
    for outcome in own or outcomes:
        said.setdefault(_last_words(outcome), []).append(outcome.party)
    return "\n".join(f"{' and '.join(parties)}: {words}" for words, parties in said.items())


def _last_words(outcome: Outcome) -> str:
    _, begun, words = f"\n{outcome.stderr}".rpartition(f"\n{ERROR}")
    return words.strip() if begun else str(outcome).removeprefix(f"{outcome.party} ")
