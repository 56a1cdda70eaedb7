"""Tasks beside compiled programs, as texts that all parties read the same from:

    [job]                                    # a file .toml: matching
    kind = "psi"
    parties = ["alice", "bob", "carol"]      # by rank: all that take part
    to = ["alice"]                           # who gets rows
    how = "intersect"                        # or a kind of join
    key = { alice = ["id"], bob = ["id"] }

    [job]                                    # SQL; what its owners allow is in `sql_policy` of their service.toml
    kind = "sql"
    parties = ["alice", "bob", "carol"]
    to = ["carol"]
    query = "select region, sum(amount) from orders group by region"
    tables = { orders = "alice" }            # whose they are
    key = { orders = ["id"] }                # optional: columns that are unique

    [job]                                    # boosting, beside the parameters of `spuvm sgb`
    kind = "sgb"
    parties = ["alice", "bob", "carol"]
    command = "train"                        # or "predict", with `to`
    tables = ["alice", "bob", "carol"]       # who brings one
    model = "risk"                           # under which name each party keeps its part

    [job]                                    # a flow, whose own table [flow] is as in its file; see docs/workflows.md
    kind = "flow"
    parties = ["alice", "bob", "carol"]
    tables = { loans = "alice" }             # whose they are

    # /// spuvm                              # a file .py: a function over blocks of rows, or a script
    # kind = "stream"                        # or "script"
    # parties = ["alice", "bob", "carol"]
    # function = "score"
    # to = ["carol"]
    # inputs = { age = "alice" }             # of a script: its arguments, and whose they are
    # ///

A file `.py` is code: a policy must name its hash. A script is run as `python script.py PARTY CLUSTER.toml RESULTS
name=path ...` with this party's own data, and leaves results in the folder RESULTS.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.policy.rules import ALL, Reveal
from spuvm.psi.kinds import KINDS as JOIN_KINDS
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.parties import party_name
from spuvm.service.work import Place, Work, hash_of, remembered

BLOCK = re.compile(r"(?m)^# /// spuvm$\s(?P<lines>(^#(| .*)$\s)+)^# ///$")  # PEP 723's form
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
JOINS = ("intersect", *JOIN_KINDS)


def _names(value: Any) -> tuple[str, ...]:
    found = fields.texts(value)
    if len(set(found)) < len(found):
        raise ValueError("a list of different names")
    return found


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("a name: letters, digits and `_`")
    return value


def _query(value: Any) -> str:
    """Lines are joined: what is shown to people is one line."""
    return fields.text(" ".join(value.split()) if isinstance(value, str) else value)


def _columns(value: Any) -> tuple[str, ...]:
    found = _names(value)
    if any(not c.isprintable() or set(c) & set(",:=@") or c.startswith("-") for c in found):
        raise ValueError("a list of columns, without `,`, `:`, `=` and `@`")
    return found


ANY = {"kind": Field(fields.text), "parties": Field(_names)}
TO = Field(_names)
COLUMNS = Field(fields.table_of(_columns), {})
OWNERS = Field(fields.table_of(fields.text))
FIELDS: dict[str, dict[str, Field]] = {
    "psi": {**ANY, "to": TO, "how": Field(fields.one_of(*JOINS), "intersect"), "key": Field(fields.table_of(_columns))},
    "sql": {**ANY, "to": TO, "query": Field(_query), "tables": OWNERS, "key": COLUMNS},
    "sgb": {
        **ANY,
        "command": Field(fields.one_of("train", "predict")),
        "model": Field(_name),
        "tables": Field(_names),
        "to": Field(_names, ()),
    },
    "flow": {**ANY, "to": Field(_names, ()), "tables": OWNERS},
    "stream": {**ANY, "function": Field(_name), "to": TO, "inputs": OWNERS},
    "script": {**ANY, "to": Field(_names, ()), "inputs": OWNERS},
}
CODE = ("stream", "script")


@remembered
def of_task(source: str) -> Work:
    """A task's text. Raises InputError for whatever is wrong with it."""
    table, code = _table(source)
    kind = table.get("kind")
    if kind not in FIELDS or code is not (kind in CODE):
        known = ", ".join(k for k in FIELDS if (k in CODE) is code)
        raise InputError(f"[job] has no kind {kind!r:.40}: {'code' if code else 'a task'} is one of {known}.")
    try:
        job = fields.read(table, FIELDS[kind], "[job]")
        for name in job["parties"]:
            party_name(name, "`parties` of [job]")
    except ConfigError as error:
        raise InputError(str(error)) from None
    if len(job["parties"]) < (2 if kind in ("psi", "script") else 3):
        raise InputError(f"`parties` of [job] must name {'two' if kind in ('psi', 'script') else 'three'} or more.")
    for name in job["to"]:
        if name not in job["parties"]:
            raise InputError(f"`to` of [job] names {name:.64}: `parties` are {', '.join(job['parties'])}.")
    work = KINDS[kind](job, source)
    for name, owner in work.owners.items():
        if owner not in job["parties"]:
            raise InputError(f"[job]: `{name:.64}` is of {owner:.64}: `parties` are {', '.join(job['parties'])}.")
    return work


def _table(source: str) -> tuple[Mapping[str, Any], bool]:
    """The table of a text, and whether the text is code."""
    blocks = list(BLOCK.finditer(source))
    if source.count("# /// spuvm") > 1:
        raise InputError("code has one block `# /// spuvm`, got several.")
    lines = source if not blocks else "\n".join(line[2:] for line in blocks[0]["lines"].splitlines())
    try:
        body = tomllib.loads(lines)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"this is neither a program (.spux), nor a task: {error!s:.200}.") from None
    table = body if blocks else body.get("job")
    if not isinstance(table, dict):
        raise InputError("a task has a table [job]; code has a block `# /// spuvm` that says what it is.")
    return table, bool(blocks)


def _work(job: Mapping[str, Any], source: str, owners: Mapping[str, str], shows: str, **more: Any) -> Work:
    return Work(
        kind=job["kind"],
        hash=hash_of(source),
        members=job["parties"],
        machine={"compute": list(job["parties"][:3])} if len(job["parties"]) > 3 else _pair(job["parties"]),
        owners=owners,
        rows=dict.fromkeys(owners),
        reveals=tuple(Reveal(shows, to, None) for to in job["to"]),
        code=job["kind"] in CODE,
        **more,
    )


def _pair(parties: tuple[str, ...]) -> Mapping[str, Any]:
    """Two parties alone have no third that computes: the protocol of one that is not used."""
    return {"protocol": "ref2k"} if len(parties) == 2 else {}


# The kinds ----------------------------------------------------------------------------------------------------


def _psi(job: Mapping[str, Any], source: str) -> Work:
    owners = {p: p for p in job["key"]}  # each brings one table: the argument has its name
    if len(owners) < 2:
        raise InputError("`key` of [job] must name the key columns of two parties or more.")

    def command(place: Place) -> list[str]:
        line = ["psi", "run", "--config", str(place.config), "--as", place.party, "--how", job["how"], "--quiet"]
        line += ["--receivers", ",".join(job["to"]), "--folder", str(place.folder / "run"), "--force"]
        if place.party in place.data:
            line.append(f"t={place.data[place.party]}:{','.join(job['key'][place.party])}")
        return [*line, *(["--output", str(place.result("rows.parquet"))] if place.party in job["to"] else [])]

    shows = "which of its own rows all have" if job["how"] == "intersect" else "the joined rows"
    results = {"rows": ("rows.parquet", job["to"])}
    whole = job["how"] != "intersect"
    return _work(job, source, owners, shows, results=results, command=command, whole=whole, columns=job["key"])


def _sql(job: Mapping[str, Any], source: str) -> Work:
    if len(job["to"]) != 1:
        raise InputError("`to` of [job] names the one party that gets the rows of a query.")

    def command(place: Place) -> list[str]:
        line = ["sql", job["query"], "--config", str(place.config), "--as", place.party, "--to", job["to"][0]]
        line += ["--policy", str(place.sql_policy)] if place.sql_policy is not None else []
        for name, owner in job["tables"].items():
            key = ":" + ",".join(job["key"][name]) if name in job["key"] else ""
            line += ["--table", f"{name}={place.data.get(name, 'elsewhere.parquet')}@{owner}{key}"]
        return [*line, *(["--output", str(place.result("rows.parquet"))] if place.party in job["to"] else [])]

    results = {"rows": ("rows.parquet", job["to"])}
    return _work(job, source, job["tables"], f"rows of: {job['query']}", results=results, command=command, whole=True)


def _sgb(job: Mapping[str, Any], source: str) -> Work:
    training = job["command"] == "train"
    if training is bool(job["to"]) or len(job["to"]) > 1:
        raise InputError("`to` of [job] names the one party that gets predictions; training has none.")

    def command(place: Place) -> list[str]:
        path = place.folder / "params.toml"
        path.write_text(source)
        line = ["sgb", job["command"], str(path), "--model", str(place.models / job["model"]), "--quiet"]
        line += ["--config", str(place.config), "--as", place.party, "--tables", ",".join(job["tables"])]
        line += [str(place.data[place.party])] if place.party in place.data else []
        line += ["--to", job["to"][0]] if job["to"] else []
        return [*line, *(["--output", str(place.result("predictions.parquet"))] if place.party in job["to"] else [])]

    owners = {p: p for p in job["tables"]}
    results = {} if training else {"predictions": ("predictions.parquet", job["to"])}
    more = {"whole": True, "model": job["model"] if training else None}
    return _work(job, source, owners, "a prediction of each row", results=results, command=command, **more)


def _flow(job: Mapping[str, Any], source: str) -> Work:
    """Nodes that finished are kept beside the models: the same job, asked for again, goes on after them."""
    nodes = _nodes(tomllib.loads(source).get("flow"))

    def command(place: Place) -> list[str]:
        path = place.folder / "flow.toml"
        path.write_text(source)
        line = ["flow", "run", str(path), "--config", str(place.config), "--as", place.party]
        line += ["--approve", f"file:{hash_of(source)}", "--state", str(place.models / "flows")]
        run = place.folder.name  # one record a job, which its later runs go on with
        line += ["--run", run, *(["--resume"] if record_of(place.models, place.party, run).exists() else [])]
        line += ["--results", str(place.folder / "results"), "--report", str(place.result("report.html"))]
        for name, file in place.data.items():
            line += ["--table", f"{name}={file}"]
        return line

    results = {"report": ("report.html", job["parties"])}
    work = _work(job, source, job["tables"], "", results=results, command=command, whole=True)
    shown = [Reveal(f"what node {n} gives", str(node["to"]), None) for n, node in nodes.items() if node.get("to")]
    found = Reveal(f"reports and numbers of {len(nodes)} nodes, which spuvm flow cost lists", ALL, None)
    return replace(work, reveals=(found, *shown))


def record_of(models: Path, party: str, job: str) -> Path:
    """Where a job that is a flow has the record of its run."""
    return models / "flows" / party / "runs" / f"{job}.jsonl"


def _nodes(flow: Any) -> Mapping[str, Mapping[str, Any]]:
    nodes = flow.get("nodes") if isinstance(flow, dict) else None
    if not isinstance(nodes, dict) or not nodes or not all(isinstance(n, dict) for n in nodes.values()):
        raise InputError(
            "a job of kind flow has a table [flow] with [flow.nodes.NAME], as a flow's file has [nodes.NAME]."
        )
    return nodes


def _stream(job: Mapping[str, Any], source: str) -> Work:
    if len(job["to"]) != 1:
        raise InputError("`to` of a stream names the one party that gets its rows.")

    def command(place: Place) -> list[str]:
        path = place.folder / "task.py"
        path.write_text(source)
        output = place.result("rows.parquet") if place.party in job["to"] else "elsewhere.parquet"
        line = ["stream", f"{path}:{job['function']}", "--config", str(place.config), "--as", place.party]
        line += ["--output", f"{output}@{job['to'][0]}", "--folder", str(place.folder / "run"), "--quiet"]
        for name, owner in job["inputs"].items():
            columns = place.columns[name] or (name,)
            line += ["--input", f"{name}={place.data.get(name, 'elsewhere.parquet')}:{','.join(columns)}@{owner}"]
        return line

    results = {"rows": ("rows.parquet", job["to"])}
    shows = f"rows of {job['function']}"
    return _work(job, source, job["inputs"], shows, results=results, command=command)


def _script(job: Mapping[str, Any], source: str) -> Work:
    def command(place: Place) -> list[str]:
        path = place.folder / "task.py"
        path.write_text(source)
        data = [f"{name}={file}" for name, file in place.data.items()]
        return [str(path), place.party, str(place.config), str(place.folder / "results"), *data]

    return _work(job, source, job["inputs"], "what the script shows", results={}, command=command, whole=True)


KINDS: dict[str, Callable[[Mapping[str, Any], str], Work]] = {
    "psi": _psi,
    "sql": _sql,
    "sgb": _sgb,
    "flow": _flow,
    "stream": _stream,
    "script": _script,
}


def argv(work: Work, place: Place) -> list[str]:
    """The command line of a party's part, after `python`."""
    line = work.command(place)
    return line if work.kind == "script" else ["-m", "spuvm", *line]


def toml(table: Mapping[str, Any]) -> list[str]:
    """Lines of TOML; numbers, texts and lists are as in JSON."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
