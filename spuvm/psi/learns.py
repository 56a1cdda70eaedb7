"""Who learns what of a join: the one statement that commands print before they run, and results carry."""

from __future__ import annotations

from collections.abc import Sequence


def learned(
    owners: Sequence[str], mode: str, helper: str | None, output: str, to: Sequence[str] = ()
) -> tuple[str, ...]:
    """A line for everything that parties learn beside their own rows.

    Args:
        output: "shared", "owners" (each of `to` which of its rows match), "count", "sum", "all", or a party.
        to: the owners that are told; all if not given.
    """
    everybody = " and ".join(owners)
    return (
        f"all parties: how many rows {everybody} have, names and types of columns, whether keys repeat",
        _MODES[mode].format(helper=helper),
        _OUTPUTS.get(output, "{party}: the result").format(to=" and ".join(to or owners), party=output),
    )


_MODES = {
    "helper": "{helper}: which rows have equal keys and how often a key occurs, in a random order; no key and no cell. "
    "Should it collude with an owner, it can test guesses of the other's keys: all of a small domain, such as "
    "birthdays or telephone numbers",
    "oblivious": "matching: tells nobody anything, unless two parties collude",
    "ecdh": "matching: tells nobody anything more, under the decisional Diffie-Hellman assumption",
}
_OUTPUTS = {
    "shared": "the result: is shared, and tells nobody anything; a public bound stands for its rows",
    "owners": "{to}: which of their rows all owners have, and so how many these are",
    "count": "all parties: how many rows match",
    "sum": "all parties: the sum",
    "all": "all parties: the joined rows",
}
