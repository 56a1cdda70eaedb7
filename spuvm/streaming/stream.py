"""`spu.stream`: rows of tables that no memory holds, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from spuvm.context import whereabouts
from spuvm.devices import SPU, default_machine
from spuvm.objects import SPUObject
from spuvm.runtime.errors import InputError
from spuvm.runtime.protocols.registered import usual_parties
from spuvm.streaming.block import MASK, Fold, Step, WriteRows, passes
from spuvm.streaming.grouping import GroupBy, aggregate
from spuvm.streaming.plan import Options, Plan
from spuvm.streaming.run import fold, write
from spuvm.streaming.secrets import checked
from spuvm.streaming.sources import Source
from spuvm.streaming.workers import ENGINES, Home
from spuvm.vm import VM, make_config, simulator

ROWS_PER_BLOCK = 1 << 20
PARTY_NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")


@dataclass(frozen=True)
class Stream:
    """Columns of several parties, row by row. Nothing is read before `fold` or `to_parquet`.

    Functions take columns by the names of their parameters, as arrays [rows] of one block, and must
    treat every row alike, or (`fold`) not care how rows are cut into blocks.
    """

    plan: Plan

    @property
    def vm(self) -> VM:
        return self.plan.vm

    def map(self, function: Callable[..., Any]) -> Stream:
        """New columns: `function(x, y)` gives an array [rows, ...], called `out`, or a dictionary of such."""
        return self._then(Step("map", function))

    def filter(self, function: Callable[..., Any], *, reveal: bool | Literal["count"] = False) -> Stream:
        """Keep the rows for which `function(x, y)`, a bool [rows], is true.

        Nobody learns which rows these are, nor how many: all stay, and what follows gets a secret `mask`. A
        function of `fold` must take it (`jnp.sum(x, where=mask)`).

        Args:
            reveal: "count" shows all parties how many rows of each block are kept, not which: these come out alone, in
                their order, as full blocks for what follows, which gets no `mask`. That is a pass of its own over all
                rows, with about 11 bytes a row and party for each column that is still needed, and 25 more
                (ABY3); the rows kept wait on disk as shares, in the run's folder. Other protocols pay a product
                for each column, row and bit of the number of rows in a block. True shows which rows are kept: all
                stay, with a public `mask`, and what follows costs less. The rows themselves stay secret.
        """
        if not (isinstance(reveal, bool) or reveal == "count"):
            raise InputError(f"`reveal` must be False, True (which rows are kept) or 'count', got {reveal!r}.")
        return self._then(Step("filter", function, reveal))

    def count(self, *, folder: str | Path | None = None) -> Any:
        """How many rows are kept: an int32 [], secret if that depends on what is secret."""
        filtered = any(step.kind == "filter" for step in passes(self.plan.steps)[-1])
        return fold(self.plan, Fold(_count_kept if filtered else _count_all, jnp.int32(0), jnp.add, ()), folder)

    def fold(
        self,
        function: Callable[..., Any],
        init: Any,
        combine: Callable[[Any, Any], Any] | None = None,
        *,
        folder: str | Path | None = None,
    ) -> Any:
        """Reduce all rows to a state that stays secret: `state = function(state, x, y)`, block after block.

        Args:
            init: the state before the first row: a pytree of public numbers and arrays.
            combine: `combine(a, b)` of two states, for a function that aggregates. Blocks are then
                computed independently, each from `init`, and combined in the order of rows: the
                result is the same for any number of workers. Without it blocks follow each other.
            folder: where to keep finished blocks, at every party. The same call goes on where
                the last ended. When it succeeds the folder is removed. Without it nothing is kept.

        Returns:
            SPUObjects in the structure of the state.

        Raises:
            InputError: for files that do not fit each other, and a folder of another program or other data.
        """
        return fold(self.plan, Fold(function, init, combine), folder)

    def group_by(self, key: str, keys: int) -> Grouped:
        """Rows by the integer column `key`, whose values are 0 to keys - 1: see `Grouped.agg`."""
        if isinstance(keys, bool) or not isinstance(keys, int) or keys < 1:
            raise InputError(f"`keys` must be the public number of keys, a positive integer, got {keys!r}.")
        return Grouped(self.plan, key, keys)

    def to_parquet(
        self, path: str | Path, party: str, *, folder: str | Path | None = None, force: bool = False
    ) -> None:
        """Reveal all columns to one party, which writes them in the order of rows.

        Of a filtered stream that party learns which rows were kept, and writes only these. The file
        appears when all is done. An interrupted run goes on where it ended when called again.

        Args:
            path: the file to write; only `party` needs it.
            party: who may see the rows.
            folder: where to keep finished blocks until then, at every party; `path` with `.run` added
                if not given.
            force: replace `path`.

        Raises:
            InputError: see `fold`; and if `path` exists or cannot be written.
        """
        if party not in self.vm.config.parties:
            raise InputError(f"`party` must be one of {', '.join(self.vm.config.parties)}, got {party!r}.")
        write(self.plan, WriteRows(party), Path(path), Path(folder or f"{path}.run"), force)

    def _then(self, step: Step) -> Stream:
        return Stream(replace(self.plan, steps=(*self.plan.steps, step)))

    def __repr__(self) -> str:
        names = ", ".join(f"{n}@{s.party}" for part in self.plan.parts for n, s in part.items())
        names = names if self.plan.secrets is None else ", ".join(self.plan.secrets.columns)
        steps = "".join(f".{s.kind}({s.function.__name__})" for s in self.plan.steps)
        return f"<Stream {names}{steps} on {self.vm!r}>"


@dataclass(frozen=True)
class Grouped:
    """Rows by key; `agg` says what is wanted of them."""

    plan: Plan
    key: str
    keys: int

    def agg(self, *, folder: str | Path | None = None, **wanted: Any) -> dict[str, Any]:
        """Aggregates of all rows, by key: a secret array [keys] for each name.

        Args:
            folder: where to keep finished blocks, as for `fold`.
            wanted: name = (column, "sum" | "min" | "max"), or name = "count". Of a filtered stream,
                rows that were not kept count for nothing.

        Returns:
            SPUObjects of shape [keys] by name: of the column's type, counts int32. A key without rows has sum 0,
            min 2^40 and max -2^40, of integers the greatest and least of their type.

        Raises:
            InputError: for what is not an aggregate, and for a key beyond 0 to keys - 1 that its owner sees. Where
                nobody may see it, its row counts for nothing.
        """
        if not wanted:
            raise InputError("`agg` wants nothing: say what, as in `agg(total=('x', 'sum'), rows='count')`.")
        finish = GroupBy(self.key, self.keys, tuple(map(aggregate, wanted, wanted.values())))
        return fold(self.plan, finish, folder)  # type: ignore[no-any-return]


def stream(
    sources: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    rows_per_block: int = ROWS_PER_BLOCK,
    device: SPU | None = None,
    protocol: str = "aby3",
    fxp_fraction_bits: int | None = None,
    truncation: str = "probabilistic",
    parties: Sequence[str] | None = None,
    workers: int = 1,
    engine: str = "local",
    progress: bool | None = None,
) -> Stream:
    """Rows of tables, of any number: read, shared and computed a block at a time, in bounded memory.

    Args:
        sources: columns by name, each `"file[:columns]@party"`: Parquet, Arrow (`.arrow`, `.feather`), CSV or
            .npy, or a pattern of such files, which follow each other by name. Several columns are
            one argument [rows, columns]. All sources have the same number of rows, which all parties
            learn, and row i of one belongs to row i of the others. A list of such dictionaries, with
            the same names, is for parties that hold different rows: they follow each other. Or secrets by
            name, SPUObjects [rows, ...] of one machine, whose shares are in memory (a joined table has
            `SharedTable.stream`): blocks bound what the computation takes beside them.
        rows_per_block: how many rows are in memory at once.
        device: the SPU to run on. If not given, one of all parties that `spu.init` named; without
            `spu.init`, a simulation of `parties`.
        protocol, fxp_fraction_bits, truncation, parties: of the simulation, as for `spu.jit`.
        workers: processes of each party; worker j of all parties forms a session over some of the blocks. On a
            slow network several workers pay even on one machine: while some wait for the wire, others compute. Not
            for a `fold` without `combine`, whose blocks follow each other.
        engine: where workers run: "local", processes of this machine, or "ray", tasks of the Ray cluster of
            this party (`pip install 'spuvm[ray]'`), whose nodes all see the same files and folder.
        progress: show rows, rate and time left on stderr; if not given, when that is a terminal.

    Returns:
        A Stream, of which nothing is read yet.

    Raises:
        InputError: for sources that are not understood.
    """
    if isinstance(rows_per_block, bool) or not isinstance(rows_per_block, int) or rows_per_block < 1:
        raise InputError(f"`rows_per_block` must be a positive integer, got {rows_per_block!r}.")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InputError(f"`workers` must be a positive integer, got {workers!r}.")
    if engine not in ENGINES:
        raise InputError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
    if isinstance(sources, Mapping) and any(isinstance(s, SPUObject) for s in sources.values()):
        return _of_secrets(sources, rows_per_block, device, workers, progress)
    parts = tuple(_part(x) for x in ([sources] if isinstance(sources, Mapping) else sources))
    if not parts or any(set(part) != set(parts[0]) for part in parts):
        raise InputError("`sources` must be columns by name, or several such with the same names.")
    owners = list(dict.fromkeys(s.party for part in parts for s in part.values()))
    vm = device.vm if device is not None else _machine(protocol, fxp_fraction_bits, truncation, parties, owners)
    for owner in owners:
        if owner not in vm.config.parties:
            raise InputError(f"`sources` name {owner!r}: the parties are {', '.join(vm.config.parties)}.")
    return Stream(Plan(vm, parts, Options(rows_per_block, workers, engine, _home(vm), progress)))


def _of_secrets(
    sources: Mapping[str, Any], rows_per_block: int, device: SPU | None, workers: int, progress: bool | None
) -> Stream:
    if workers > 1:
        raise InputError("`workers` read files: the shares of secrets are in this process alone, use 1.")
    _check_names(sources)
    secrets = checked(sources)
    if device is not None and device.vm is not secrets.vm:
        raise InputError("`sources` are secrets of another machine than `device`: leave it out.")
    return Stream(Plan(secrets.vm, (), Options(rows_per_block, 1, "local", None, progress), secrets=secrets))


def _count_kept(t: Any, mask: Any, **columns: Any) -> Any:
    return t + jnp.sum(mask, dtype=jnp.int32)


def _count_all(t: Any, **columns: Any) -> Any:
    return t + jnp.int32(next(iter(columns.values())).shape[0])


def _part(sources: Mapping[str, Any]) -> dict[str, Source]:
    if not sources:
        raise InputError("`sources` has no columns.")
    _check_names(sources)
    return {n: s if isinstance(s, Source) else Source.parse(str(s), n) for n, s in sources.items()}


def _check_names(sources: Mapping[str, Any]) -> None:
    for name in sources:
        if not isinstance(name, str) or not name.isidentifier() or name == MASK:
            raise InputError(f"`sources`: a column is called by a Python name other than `{MASK}`, got {name!r}.")


def _home(vm: VM) -> Home | None:
    """How to be this party in another process; None in a simulation."""
    found = whereabouts()
    if vm.session.link is None or found is None:
        return None
    party, cluster = found
    return Home(party, str(cluster), vm.session.link.timeout)


def _machine(
    protocol: str, fraction_bits: int | None, truncation: str, parties: Sequence[str] | None, owners: list[str]
) -> VM:
    """The parties of `spu.init`, or a simulation: of the owners, and others as the protocol needs them."""
    found = default_machine()
    if found is not None and parties is None:
        return found
    if parties is None:
        more = [n for n in PARTY_NAMES if n not in owners]
        parties = owners + more[: max(0, usual_parties(protocol) - len(owners))]
        parties = sorted(parties, key=lambda n: (n not in PARTY_NAMES, n in PARTY_NAMES and PARTY_NAMES.index(n)))
    return simulator(make_config(protocol, 64, fraction_bits, None, parties, truncation))
