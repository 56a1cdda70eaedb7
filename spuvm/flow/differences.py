"""What changed from one flow to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spuvm.flow.records import Recorded

Text = Mapping[str, Any]  # of a flow, read


def difference(first: Text, second: Text) -> list[str]:
    """A line for every node that is new, gone or changed, and one for all that run anew because of these."""
    before, after = ({n["node"]: n for n in text["nodes"]} for text in (first, second))
    out = [f"- {n} ({before[n]['component']})" for n in before if n not in after]
    out += [f"+ {n} ({after[n]['component']})" for n in after if n not in before]
    changed = {n for n in after if n not in before}
    for n in after:
        if n in before:
            found = _changes(before[n], after[n])
            changed |= {n} if found else set()
            out += [f"  {n}: {line}" for line in found]
    for what in ("flow", "parties", "outputs"):
        if first[what] != second[what]:
            out.append(f"  {what}: {first[what]} -> {second[what]}")
    followers = [n for n in after if n not in changed and _follows(n, after, changed)]
    return out + ([f"  runs anew, as it follows: {', '.join(followers)}"] if followers else [])


def other_data(first: Recorded, second: Recorded) -> list[str]:
    """A line for every table that two runs took by the same node, and that was another: keys of nodes say so."""
    before, after = ({n["node"]: n for n in run.text["nodes"]} for run in (first, second))
    both = [n for n in after if after[n] == before.get(n) and not after[n]["inputs"]]
    keys = [{n: run.nodes[n].key for n in both if n in run.nodes} for run in (first, second)]
    changed = {n for n in both if keys[0].get(n) != keys[1].get(n)}
    followers = [n for n in after if n not in changed and _follows(n, after, changed)]
    out = [f"  {n}: its table holds other data, or the parties' settings are others" for n in both if n in changed]
    return out + ([f"  runs anew, as it follows: {', '.join(followers)}"] if followers else [])


def _changes(a: Text, b: Text) -> list[str]:
    out = [f"{what} {a[what]} -> {b[what]}" for what in ("component", "retries") if a[what] != b[what]]
    if a["code"] != b["code"]:
        out.append("the component's code changed")
    for what in ("parameters", "inputs"):
        for key in dict.fromkeys([*a[what], *b[what]]):
            one, other = a[what].get(key, "nothing"), b[what].get(key, "nothing")
            if one != other:
                out.append(f"{key} {one!r} -> {other!r}")
    return out


def _follows(name: str, nodes: Mapping[str, Text], changed: set[str]) -> bool:
    work, seen = [name], set()
    while work:
        for edges in nodes[work.pop()]["inputs"].values():
            for before, _ in edges:
                if before in changed:
                    return True
                if before not in seen and before in nodes:
                    seen.add(before)
                    work.append(before)
    return False
