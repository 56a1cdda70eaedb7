"""`connect`, and what a connection does: plan, ask the owners' policies, run on the machine, give rows to one party."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from spuvm import context
from spuvm.context import agree
from spuvm.devices import PYU, SPU, PYUObject, fetch
from spuvm.dp.budget import Budget
from spuvm.dp.ledgers import check_budgets
from spuvm.dp.spending import DELTA
from spuvm.marking import reveal
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.sql import machine, matching, memory, noise, scanning, selecting, tallies
from spuvm.sql.analysis import Analysis, analyzed
from spuvm.sql.answers import SHARED, beyond, cells, query_function, revealed
from spuvm.sql.blocks import Blockwise, Streamed, streamed
from spuvm.sql.catalog import Catalog
from spuvm.sql.explanation import Explanation
from spuvm.sql.plan import Expand, nodes
from spuvm.sql.planning import Plan, plan, with_expressions
from spuvm.sql.policy import OwnerPolicy, checked, everything, owner_policy, section
from spuvm.sql.results import Result
from spuvm.sql.shares import NOBODY, SharedColumn, SharedRows, held, shared_rows, table_of
from spuvm.sql.sources import Store
from spuvm.sql.units import protected
from spuvm.sql.verdicts import Ledger, enforce, refusals
from spuvm.utils.testing import cluster_def

Parameters = Sequence[Any] | Mapping[str, Any]
LINK = "0.2ms,1Gbit"
SPARE = ("alice", "bob", "carol", "dave", "erin")


def connect(
    tables: Mapping[str, Mapping[str, Any]],
    policy: Any = None,
    *,
    shares: Mapping[str, Any] | None = None,
    parties: Sequence[str] = (),
    device: SPU | None = None,
    budget: Any = None,
    joins: str = "auto",
) -> Database:
    """A connection to the tables of several owners.

    All parties learn of each table its name, columns, types and number of rows; and, unless its owner's policy says
    `statistics = false`, of each column whether it has NULLs, whether values repeat, and a range of whole half-bytes
    (of text, of 7 bytes) that holds them.

    Args:
        tables: by owner, its tables by name: a path (.parquet, .csv), `sqlite:///file.db`, `duckdb:///file.db`,
            `postgresql://...`, a pandas frame, an arrow table, lists by column, or an object of the owner's PYU; or
            {"source": any of these, "key": column or columns that are unique, "values": {text column: all that it may
            be}, which all parties learn}. In a networked run each owner's are read at that owner alone. A table that
            several owners have under one name is one table, of which each has some rows.
        policy: what the owners allow: a TOML file, or a mapping of its form; see `spuvm.sql.policy`. In a networked run
            each owner's own section counts, in the file of that owner. Without it everything is allowed.
        shares: by name, tables that nobody owns: what `Database.share` or `load_rows` gave, a join of `spuvm.psi` with
            shared output, or secrets by column; see `spuvm.sql.shares.shared_rows`. No owner's policy speaks of them:
            whoever runs the script agrees to what is asked of them.
        parties: of a simulation, if `spu.init` was not called: all that take part; the owners come first if not given.
        device: the SPU that computes; of the first parties of `spu.init` if not given.
        budget: the `spu.dp.Budget` of each owner whose policy has `epsilon`, by owner: queries of its rows get noise,
            and are written into it before they run. In a networked run each owner gives its own.
        joins: how rows are looked up where two owners know the keys: "sort" both sides as secrets, "psi" (obliviously
            by `spuvm.psi`, under ABY3), or "auto", whichever is estimated to cost less. Nobody learns more by one than
            by the other.

    Raises:
        InputError: for tables that cannot be read.
        PeerMismatchError: if the parties' scripts ask for different things.
    """
    if (
        not isinstance(tables, Mapping)
        or not (tables or shares)
        or not all(isinstance(t, Mapping) for t in tables.values())
    ):
        raise InputError(
            "`tables` must map owners to their tables by name: {'alice': {'orders': 'orders.parquet'}, ...}."
        )
    if joins not in matching.JOINS:
        raise InputError(f"`joins` must be one of {', '.join(matching.JOINS)}, got {joins!r}.")
    if context.default_parties() is None:
        spare = [p for p in SPARE if p not in tables and p not in parties]
        names = list(dict.fromkeys([*tables, *parties]))
        context.init(names + spare[: max(0, 3 - len(names))], "local")
    everyone = context.default_parties()
    assert everyone is not None
    for owner in tables:
        if owner not in everyone:
            raise ConfigError(f"`tables` names {owner}: the parties are {', '.join(everyone)}.")
    if device is None:
        device = SPU(cluster_def(everyone[:3]) if len(everyone) > 3 else {"nodes": [{"party": p} for p in everyone]})
    rows = {n.lower(): shared_rows(s, n, device) for n, s in (shares or {}).items()}
    asked = [[owner, sorted(named)] for owner, named in tables.items()]
    agree("sql tables", json.dumps([asked, [[n, len(r), r.names, r.listed] for n, r in rows.items()]]).encode())
    stores = {owner: _opened(owner, named) for owner, named in tables.items()}
    policies = _policies(policy, list(tables))
    ledgers = _ledgers(budget, policies)
    said = {owner: _announced(owner, store, policies[owner]) for owner, store in stores.items()}
    catalog = Catalog(said)
    for name, table in rows.items():
        catalog.add_shares(table_of(name, table))
    checked(policies, catalog)
    return Database(stores, catalog, device, policies, rows, ledgers, joins)


def _policies(policy: Any, owners: Sequence[str]) -> dict[str, OwnerPolicy]:
    """Each owner's section as the owner has it; all may know it."""
    out = {}
    for owner in owners:

        def mine(owner: str = owner) -> np.ndarray:
            return _as_bytes(section(policy, owner, owners))

        tree = _from_bytes(fetch(PYU(owner)(mine)()))
        out[owner] = everything(owner) if tree is None else owner_policy(owner, tree)
    return out


def _as_bytes(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _from_bytes(value: Any) -> Any:
    return json.loads(np.asarray(value).tobytes())


def _opened(owner: str, named: Mapping[str, Any]) -> PYUObject:
    objects = {n: t for n, t in named.items() if isinstance(t, PYUObject)}
    plain = {n: t for n, t in named.items() if n not in objects}
    return PYU(owner)(lambda *values: Store(owner, {**plain, **dict(zip(objects, values))}))(*objects.values())


def _announced(owner: str, store: PYUObject, policy: OwnerPolicy) -> Any:
    ranges = {name: table.ranges for name, table in policy.tables.items()}
    return _from_bytes(fetch(PYU(owner)(lambda s: _as_bytes(s.announced(policy.statistics, ranges)))(store)))


def _ledgers(budget: Any, policies: Mapping[str, OwnerPolicy]) -> dict[str, Budget]:
    """The ledgers of the owners that are here and ask for noise.

    Raises:
        ConfigError: for one that is missing, of others, or with other terms than the policy's.
    """
    check_budgets("budget", budget)
    given: Mapping[str, Budget] = {} if budget is None else budget
    if isinstance(budget, Budget):
        raise ConfigError("`budget` must be by owner: {'alice': spu.dp.Budget(...)}.")
    for owner in given:
        if owner not in policies or not policies[owner].epsilon:
            raise ConfigError(f"`budget` has {owner}, whose policy has no `epsilon`: nothing would be spent in it.")
    found = {}
    with context.abort_everyone_on_error():
        for owner, policy in policies.items():
            if not policy.epsilon or not PYU(owner).is_here:
                continue
            if owner not in given:
                raise ConfigError(f"the policy of {owner} has `epsilon`: give its ledger, `budget={{{owner!r}: ...}}`.")
            found[owner] = given[owner]
            if given[owner].contributions != policy.contributions:
                raise ConfigError(
                    f"the ledger of {owner} is of {given[owner].contributions} rows a unit, its policy's "
                    f"`contributions` are {policy.contributions}: state the same."
                )
    return found


class Database:
    """A connection; made by `connect`."""

    def __init__(
        self,
        stores: Mapping[str, PYUObject],
        catalog: Catalog,
        device: SPU,
        policies: Mapping[str, OwnerPolicy],
        shares: Mapping[str, SharedRows],
        ledgers: Mapping[str, Budget] | None = None,
        joins: str = "auto",
    ) -> None:
        self.stores = stores
        self.catalog = catalog
        self.device = device
        self.policies = policies
        self.shares = shares
        self.ledgers = ledgers or {}
        self.joins = joins
        self._functions: dict[Any, Any] = {}
        self._running = False

    @property
    def members(self) -> tuple[str, ...]:
        return self.device.vm.config.members

    def plan(self, sql: str, to: str, *, parameters: Parameters = (), join_rows: int | None = None) -> Plan:
        """The plan of a query whose rows are for `to`; see `spuvm.sql.plan`."""
        return self._planned(sql, self._receiver(to), parameters, join_rows)

    def _planned(self, sql: str, receiver: str, parameters: Parameters, join_rows: int | None) -> Plan:
        out = plan(
            self.catalog,
            sql,
            parameters,
            join_rows,
            lambda n, b: protected(n, b, self.policies, receiver),
            receiver != SHARED,
            [o for o, p in self.policies.items() if p.given and o != receiver],
        )
        for scan in out.scans:
            if scan.owner in self.policies:
                scan.ranges = dict(self.policies[scan.owner].ranges(scan.table))
        noise.mark(out.root, self.policies, receiver)
        tallies.choose(out.root, self.catalog.values())
        matching.choose(out.root, self.device.vm.config, self.joins)
        return out

    def compile(self, sql: str, to: str, *, parameters: Parameters = (), join_rows: int | None = None) -> Any:
        """The program of a query: its text, hash, and cost; nothing runs."""
        return self._program(self.plan(sql, to, parameters=parameters, join_rows=join_rows), to)

    def explain(
        self, sql: str, to: str, *, parameters: Parameters = (), join_rows: int | None = None, cost: bool = True
    ) -> Explanation:
        """What a query would do, cost and tell: nothing runs, and no party is asked.

        Args:
            cost: whether to compile it, for rounds and bytes; it takes some seconds.

        Raises:
            InputError: for what is wrong with the query. A query that is not allowed is explained.
        """
        chosen_plan = self.plan(sql, to, parameters=parameters, join_rows=join_rows)
        against = refusals(chosen_plan.root, chosen_plan.sql, self.policies, to)
        price = self._price(chosen_plan, to) if cost else None
        joins = matching.compared(chosen_plan.root, self.members)
        found = self._streamed(chosen_plan, to, lambda flag: flag)
        bytes_here = memory.needed(chosen_plan.root, self.device.vm, to, found)
        reveals = self._reveals(chosen_plan, to)
        return Explanation(chosen_plan, to, tuple(against), reveals, price, joins, bytes_here)

    def sql(self, sql: str, to: str, *, parameters: Parameters = (), join_rows: int | None = None) -> Result:
        """Run a query; its rows are for the party `to` alone.

        Args:
            parameters: values of `?`, or by name of `:name`.
            join_rows: how many rows a join has at most whose keys are unique on neither side.

        Raises:
            InputError: for what is wrong with the query.
            PolicyError: if an owner does not allow it: whose rule, of which column, and what would be allowed.
            PeerMismatchError: if the parties ask for different queries, or plan them differently.
        """
        chosen_plan = self.plan(sql, to, parameters=parameters, join_rows=join_rows)
        started = time.perf_counter()
        out = self._run(chosen_plan, to)
        return self._result(chosen_plan, to, out, time.perf_counter() - started)

    def analyze(
        self,
        sql: str,
        to: str,
        *,
        parameters: Parameters = (),
        join_rows: int | None = None,
        link: str = LINK,
    ) -> Analysis:
        """Run a query one relation after another, each measured beside what was predicted of it; `.result` has the
        rows.

        A query as a whole shares rounds among its relations, and is compiled as one: `sql` takes less.

        Args:
            link: for what links it is said how long the network alone takes.

        Raises:
            InputError, PolicyError, PeerMismatchError: as `sql`.
        """
        chosen_plan = self.plan(sql, to, parameters=parameters, join_rows=join_rows)
        started = time.perf_counter()
        with self._agreed(chosen_plan, to):
            out, steps = analyzed(
                self.device, chosen_plan, partial(self._given, chosen_plan), lambda o: revealed(o, to), link
            )
        result = self._result(chosen_plan, to, out, time.perf_counter() - started)
        return Analysis(steps, result)

    def cancel(self) -> None:
        """From another thread: the query that runs, if any, ends with a CancelledError, and nothing of it is shown.

        A simulation goes on as if it had not been asked. In a network the session ends at all parties, who are told:
        begin anew with `spu.init` and `connect`.
        """
        if self._running:
            self.device.vm.session.cancelled.set()

    def share(
        self,
        sql: str,
        *,
        parameters: Parameters = (),
        join_rows: int | None = None,
        expressions: Sequence[str] = (),
    ) -> SharedRows:
        """Run a query whose rows nobody sees: a table of shares, for further queries (`connect(shares=...)`), or for
        `spuvm.jit`. Its order is lost.

        Owners' policies are asked as if the rows were shown to everyone (their rule for `"*"`): what is done with the
        shares later, they do not see.

        Args:
            expressions: what later queries may ask that only an owner can compute, as "name like 'A%'": computed
                now, shared as further columns, and found wherever a query says the same.

        Raises:
            InputError, PolicyError, PeerMismatchError: as `sql`.
        """
        listed: tuple[str, ...] = ()
        if expressions:
            sql, listed = with_expressions(sql, parameters, expressions)
            parameters = ()
        chosen_plan = self._planned(sql, SHARED, parameters, join_rows)
        out = self._secret(self._run(chosen_plan, SHARED))
        self._fits(chosen_plan, out)
        columns = tuple(
            SharedColumn(label.name, label.type, tuple(words), valid, None, values)
            for label, (words, valid), values in zip(
                chosen_plan.labels, out["columns"], tallies.texts(chosen_plan.root, self.catalog.values())
            )
        )
        names = dict(zip(chosen_plan.root.names, chosen_plan.columns))
        keys = tuple(frozenset(names[c] for c in key) for key in chosen_plan.root.unique)
        rows = columns[0].words[0].shape[0] if columns else chosen_plan.root.bound
        return SharedRows(rows, columns, out["there"], keys, listed)

    def _secret(self, out: Any) -> Any:
        """What one owner computed alone is its own still: shared, it is nobody's."""
        leaves, tree = jax.tree.flatten(out, is_leaf=lambda x: isinstance(x, SPUObject))
        own = [i for i, x in enumerate(leaves) if isinstance(x.type.visibility, int)]
        for i, shared in zip(own, self.device.vm.convert([leaves[i] for i in own], "share", "secret") if own else ()):
            leaves[i] = shared
        return jax.tree.unflatten(tree, leaves)

    def _run(self, chosen_plan: Plan, to: str) -> Any:
        """Agreed on, allowed by all owners, and computed."""
        with self._agreed(chosen_plan, to, True) as found:
            given = self._given(chosen_plan)
            if found is not None:
                return Blockwise(self.device, chosen_plan, to, found, self._functions).run(given)
            return self.device(self._function(chosen_plan, to))(given)

    @contextmanager
    def _agreed(self, chosen_plan: Plan, to: str, in_blocks: bool = False) -> Iterator[Streamed | None]:
        """The query runs in the body: agreed on by all parties' scripts, and allowed by all owners. What of it comes in
        blocks, if it can."""
        cancelled = self.device.vm.session.cancelled
        self._running = True
        try:
            agree("sql", json.dumps([chosen_plan.text, chosen_plan.sql, to]).encode())
            found = self._streamed(chosen_plan, to, context.anyone) if in_blocks else None
            with context.abort_everyone_on_error():
                memory.check(chosen_plan.root, self.device.vm, to, found)
            self._allowed(chosen_plan, to)
            with jax.enable_x64(True):
                yield found
        finally:
            self._running = False
            cancelled.clear()

    def _streamed(self, chosen_plan: Plan, to: str, anyone: Callable[[bool], bool]) -> Streamed | None:
        """What comes in blocks: of one table always; of joins if the whole does not fit into memory at any party."""
        found = streamed(chosen_plan.root)
        if found is not None:
            return found
        found = streamed(chosen_plan.root, joins=True)
        if found is None or not anyone(memory.needed(chosen_plan.root, self.device.vm, to) > memory.limit()):
            return None
        return found

    def _receiver(self, to: str) -> str:
        if to not in self.members:
            raise InputError(f"`to` must be one of {', '.join(self.members)}, got {to!r}.")
        return to

    def _allowed(self, chosen_plan: Plan, to: str) -> None:
        """Every owner asks its own policy, where it runs; if one refuses, all stop."""
        with context.abort_everyone_on_error():
            mine = [o for o in self.policies if PYU(o).is_here]
            enforce(chosen_plan.root, chosen_plan.sql, self.policies, to, mine)
            costs = {o: cost for o in self.ledgers if (cost := noise.spent(chosen_plan.root, o))}
            for owner, cost in costs.items():
                self.ledgers[owner].allows(cost)
        # Nobody goes on before all have agreed.
        agree("sql: every owner allows it", chosen_plan.text.encode())
        with context.abort_everyone_on_error():
            for owner, cost in costs.items():
                self.ledgers[owner].spend(cost, f"sql for {to}: {chosen_plan.sql}")
        if any(p.epsilon for p in self.policies.values()):
            agree("sql: every owner has spent", chosen_plan.text.encode())
        for owner in mine:
            Ledger(self.policies[owner]).answered(chosen_plan.sql, to)

    def _reveals(self, chosen_plan: Plan, to: str) -> tuple[str, ...]:
        columns = ", ".join(chosen_plan.columns)
        out = [f"to {to}: up to {chosen_plan.root.bound:,} rows of {columns}, and how many there are"]
        out += [
            f"to all parties: whether a join has at most {n.bound:,} rows"
            for n in nodes(chosen_plan.root)
            if isinstance(n, Expand) and n.limited
        ]
        out += ["to all parties: whether `values` of shares hold"] * any(map(tallies.declared, nodes(chosen_plan.root)))
        for owner in self.policies:
            for s in noise.spent(chosen_plan.root, owner):
                cost = f"delta {s.ratio:g}" if s.mechanism == DELTA else f"epsilon {s.epsilon:g} for each row of a unit"
                out.append(f"with noise: {owner}'s ledger is charged {cost}")
        return tuple(out)

    # On the machine -----------------------------------------------------------------------------------------------

    def _scan(self, chosen_plan: Plan, scan: Any) -> Any:
        wanted, spelled = _wanted(scan), machine.dictionaries(chosen_plan.root)
        if scan.owner == NOBODY:
            return held(self.shares[scan.table], scan.items, spelled)
        run = PYU(scan.owner)(lambda s: scanning.scanned(s, scan, wanted, spelled))
        return run(self.stores[scan.owner])

    def _given(self, chosen_plan: Plan, measured: Any = selecting.unmeasured) -> Any:
        """What the query's function takes: scans, and what was selected by owners' keys before."""
        scans = {s.name: self._scan(chosen_plan, s) for s in chosen_plan.scans}
        found = selecting.selected(chosen_plan.root, scans, self.device.vm.config, measured)
        return {"scans": scans, "matched": found}

    def _program(self, chosen_plan: Plan, to: str) -> Any:
        with jax.enable_x64(True):
            return self.device(self._function(chosen_plan, to)).compile(self._shapes(chosen_plan))

    def _shapes(self, chosen_plan: Plan) -> Any:
        """As `_given`, of owners' rows by shapes."""
        spelled = machine.dictionaries(chosen_plan.root)
        scans: dict[str, Any] = {}
        for scan in chosen_plan.scans:
            if scan.owner == NOBODY:
                scans[scan.name] = self._scan(chosen_plan, scan)
                continue
            struct = scanning.inputs(_wanted(scan), scan.bound, scan.filtered, spelled)
            scans[scan.name] = jax.tree.map(lambda x, s=scan: Marked(x, s.owner), struct)
        found = {
            name: jax.tree.map(Marked, *selecting.inputs(sides, self.members))
            for name, sides in matching.matchings(chosen_plan.root).items()
        }
        return {"scans": scans, "matched": found}

    def _price(self, chosen_plan: Plan, to: str) -> Any:
        """The cost of the query's program, or of its blocks, and of what is selected before it."""
        found = self._streamed(chosen_plan, to, lambda flag: flag)
        if found is None:
            return matching.with_selections(self._program(chosen_plan, to).cost, chosen_plan.root)
        with jax.enable_x64(True):
            made = Blockwise(self.device, chosen_plan, to, found, self._functions).cost(self._shapes(chosen_plan))
        return matching.with_selections(made, chosen_plan.root)

    def _function(self, chosen_plan: Plan, to: str) -> Any:
        key = (chosen_plan.text, chosen_plan.ordered, to)
        return self._functions.setdefault(key, query_function(chosen_plan, to, self.device.vm.config.fxp_fraction_bits))

    def _result(self, chosen_plan: Plan, to: str, out: Any, seconds: float) -> Result:
        self._fits(chosen_plan, out)
        values = None
        if PYU(to).is_here:
            shown = jax.tree.map(lambda x: x.known_value(), {"columns": out["columns"], "there": out["there"]})
            values = cells(chosen_plan, shown)
        return Result(to, chosen_plan.labels, self._reveals(chosen_plan, to), values, seconds)

    def _fits(self, chosen_plan: Plan, out: Any) -> None:
        if out["fits"] is not None and not bool(reveal(out["fits"])):
            raise InputError(f"{beyond(chosen_plan.root)} Nothing was shown.")


def _wanted(scan: Any) -> dict[str, Any]:
    return {f.name: (f.type, f.nullable) for f in scan.fields}
