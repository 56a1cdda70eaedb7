"""Who learns what of a join: the one statement that commands print before they run, and results carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spuvm.psi.plan import Plan


def learned(plan: Plan) -> tuple[str, ...]:
    """A line for each party that learns something beside its own rows."""
    owners = " and ".join(plan.owners)
    lines = [
        f"all parties: how many rows {owners} have, the names and types of their columns, whether keys repeat",
        *_MODE[plan.mode](plan),
        *_output(plan),
    ]
    return tuple(lines)


def _helper(plan: Plan) -> list[str]:
    return [
        f"{plan.helper}: which rows have equal keys and how often a key occurs, in a random order: no key, no cell; "
        f"should it collude with an owner, it could test guesses of the others' keys"
    ]


def _oblivious(plan: Plan) -> list[str]:
    return ["matching itself: nothing more, unless two parties collude"]


def _ecdh(plan: Plan) -> list[str]:
    return ["matching itself: nothing more, under the decisional Diffie-Hellman assumption"]


_MODE = {"helper": _helper, "oblivious": _oblivious, "ecdh": _ecdh}


def _output(plan: Plan) -> list[str]:
    output = plan.output
    if output == "shared":
        return ["the result: nothing; it is shared, with a public bound on its rows"]
    if output == "count":
        return ["all parties: how many rows match"]
    if output == "sum":
        return ["all parties: the sum"]
    if output == "owners":
        return [f"{' and '.join(plan.owners)}: which of their rows all owners have"]
    if output == "all":
        return ["all owners: the joined rows"]
    return [f"{output}: the joined rows, or which of its rows match"]
