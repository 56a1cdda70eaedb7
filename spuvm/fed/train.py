"""`spu.fed.train`: a model of many owners' data, which stays with them; of their updates only an aggregate is shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import spuvm as spu
from spuvm.context import abort_everyone_on_error, agree
from spuvm.data.frame import Frame
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.dp import honest_of
from spuvm.fed.aggregates import Rule, rule, total
from spuvm.fed.asked import check, check_compressed, check_private
from spuvm.fed.compressing import Compression
from spuvm.fed.layout import Personal, layout_of
from spuvm.fed.meeting import given, said
from spuvm.fed.model import Model
from spuvm.fed.plan import Plan
from spuvm.fed.private import EXAMPLE, Private
from spuvm.fed.resuming import resumed, save
from spuvm.fed.rounds import STOP, Rounds
from spuvm.fed.sources import parties_of
from spuvm.fed.strategies import Strategy
from spuvm.fed.strategies import strategy as named
from spuvm.fed.words import FRACTION_BITS, WORD, digits, numbers
from spuvm.fed.worker import described, worker
from spuvm.ml.machine import default_device
from spuvm.runtime.errors import ConfigError, PublicError
from spuvm.vm import VM


def train(
    loss: Any,
    params: Any = None,
    optimizer: Any = None,
    data: Any = None,
    *,
    rounds: int = 10,
    local_steps: int = 1,
    batch_size: int | None = None,
    strategy: str | Strategy = "fedavg",
    aggregate: str | Rule = "secure",
    weights: str = "rows",
    eval: Callable[..., Any] | None = None,
    eval_data: Mapping[str, Any] | None = None,
    personal: Personal = (),
    attend: Mapping[str, Callable[[int], bool]] | None = None,
    min_parties: int = 2,
    bad: str = STOP,
    checkpoint: str | Path | Mapping[str, str | Path] | None = None,
    checkpoint_every: int = 1,
    keep_optimizer: bool = False,
    fraction_bits: int = FRACTION_BITS,
    seed: int | None = None,
    device: SPU | None = None,
    label: str | None = None,
    dp: Private | None = None,
    compress: Compression | None = None,
) -> Any:
    """Train on data of several parties, each of which takes local steps on its own and shows only masked updates.

    Args:
        loss: `loss(params, batch)` or `loss(params, batch, key)`: the mean over a batch, as plain JAX, at each party.
            Or an estimator of `spuvm.ml` (`Sgb`, `LogisticRegression`), which is fitted on the rows of all.
        params: any pytree: of flax, equinox, haiku, dictionaries. The same values at every party.
        optimizer: of the local steps, with optax's `init` and `update`.
        data: by party, arrays [rows, ...] (any pytree), a pandas frame, an Arrow table, a file (dictionaries of
            columns), an iterator of batches, or a function that gives one of these there. In a networked run each
            party's is used at that party alone. The parties may be more than those that compute.
        rounds, local_steps, batch_size: a round is so many steps at each party, on so many rows (None: all).
        strategy: "fedavg", "fedprox", "scaffold", "fedavgm", "fedadam", "fedyogi", "fedadagrad", or `strategy(...)`.
        aggregate: "secure", a sum of masked words; or a robust rule on secret updates, see `median`, `krum`.
        weights: "rows": by how many rows a party has (their sum is shown, at the beginning), or "equal".
        eval: `eval(params, batch)`: a dictionary of means over a batch, or one. Its mean over all parties' rows of
            `eval_data` (of `data` if not given) is shown for each round.
        personal: leaves that stay with their party, by name.
        attend: by party, whether it takes part in a round: `f(round)`, asked there, told to all.
        min_parties: a round of fewer is left out.
        bad: what an update with NaN does: "stop" ends the training, "leave out" goes on without it. How many there
            are is shown, not whose.
        checkpoint: a folder, or one for each party; training goes on at the newest round that all have.
        keep_optimizer: keep its state from one round to the next, at each party.
        fraction_bits: of the words that are added; a party may add 2^31 / parties units of 2^-fraction_bits.
        seed: of the order of rows; None: nobody's but the party's own.
        device: the machine that adds; its parties, not its ring. That of all, or of the first three, if not given.
        label: of an estimator, the label's column.
        compress: fewer numbers a round, what is left waits for the next: `random_k(0.1)`, a tenth of the parameters,
            drawn by a public generator; `top_k(0.1)`, those that changed most when they were last added;
            `low_rank(2)`, matrices by two columns and rows; `sketch(0.2)`, sums of random groups.
        dp: `Private(...)`: bounded updates, noise in every sum, and a budget that is spent.

    Raises:
        ConfigError, InputError: for settings or data that do not fit. Parties whose batches differ in form are named.
        PeerMismatchError: if the parties' scripts differ, or their parameters do.
    """
    if hasattr(loss, "fit"):
        frame = data if isinstance(data, Frame) else spu.data.horizontal(data)
        return loss.fit(frame, label=label)
    with abort_everyone_on_error():
        parties = parties_of(data)
        check(parties, rounds, local_steps, batch_size, weights, bad, min_parties, fraction_bits, optimizer)
        layout = layout_of(params, personal)
        how, combine = named(strategy), rule(aggregate)
        if combine is not None and how.control:
            raise ConfigError("`scaffold` needs the sum of its control variates: use it with aggregate='secure'.")
        check_compressed(compress, how, combine, dp)
        base = device or default_device()
        if dp is not None:
            check_private(dp, layout, how, combine, local_steps, seed, eval, eval_data)
            config = base.vm.config
            fraction_bits = dp.bits(layout.size, honest_of(config.protocol, len(config.parties)))
        weighted = weights == "rows" and combine is None and (dp is None or dp.unit == EXAMPLE)
        room = WORD if dp is None else dp.room(layout.size, fraction_bits, len(parties))
        plan = Plan(
            loss, optimizer, layout, how, parties, local_steps, batch_size, eval, keep_optimizer, weighted,
            fraction_bits, seed, dp, room, compress,
        )  # fmt: skip
    agree("parameters of a federated training", layout.digest())
    workers = _workers(plan, data, eval_data)
    adder = _machine(base, 32)
    total_rows = _weigh(plan, workers, adder)
    ruler = None if combine is None else _machine(base, 64)
    run = Rounds(plan, workers, adder, combine, ruler, bad, min_parties, _metrics(plan, workers), total_rows)
    state = resumed(plan, workers, checkpoint)
    if dp is not None:
        dp.allows(rounds - state.round, parties)
    while state.round < rounds:
        here_now = _attending(plan, workers, attend, state.round)
        if len(here_now) < min_parties:
            state.round += 1
            state.history.append({"parties": float(len(here_now)), "left_out": 0.0, "skipped": 1.0})
        else:
            run.run(state, here_now)
        if checkpoint is not None and (state.round % checkpoint_every == 0 or state.round == rounds):
            save(plan, workers, checkpoint, state)
    if run.metrics:
        run.measure(state, parties)
    return Model(layout, state.vector, tuple(state.history), _learns(run, total_rows), workers)


# before the first round


def _workers(plan: Plan, data: Mapping[str, Any], eval_data: Mapping[str, Any] | None) -> dict[str, PYUObject]:
    """Each party's worker; PublicError if their batches have different forms."""
    made = {}
    for p in plan.parties:
        mine, other = data[p], None if eval_data is None else eval_data.get(p)
        made[p] = given(p, functools.partial(_made, plan, p, other), mine)
    forms = said(plan.parties, "forms of batches", str, lambda w: described(w.data), made)
    if plan.layout.personal or len(set(forms.values())) == 1:
        return made
    usual = max(set(forms.values()), key=list(forms.values()).count)
    first = next(p for p in plan.parties if forms[p] == usual)
    other_party = next(p for p in plan.parties if forms[p] != usual)
    raise PublicError(
        f"the parties' batches have different forms: {first} has {usual}; {other_party} has {forms[other_party]}. "
        "Bring them into one form, or make the layers that read them `personal`."
    )


_MACHINES: WeakKeyDictionary[VM, dict[int, SPU]] = WeakKeyDictionary()  # which keep what they compiled


def _machine(base: SPU, ring: int) -> SPU:
    """The same parties with words of `ring` bits."""
    made = _MACHINES.setdefault(base.vm, {})
    return made[ring] if ring in made else made.setdefault(ring, _of_ring(base, ring))


def _of_ring(base: SPU, ring: int) -> SPU:
    config = base.vm.config
    nodes = [{"party": p} for p in config.parties]
    return SPU(
        {"nodes": nodes, "runtime_config": {"protocol": config.protocol, "field": ring}},
        truncation=config.truncation,
        optimize=config.optimize,
    )


def _made(plan: Plan, party: str, eval_data: Any, data: Any) -> Any:
    return worker(plan, party, data, eval_data)


def _weigh(plan: Plan, workers: Mapping[str, PYUObject], adder: SPU) -> int | None:
    """Tell each worker its weight: its rows by the parties' mean. The sum is shown; None if all weigh the same."""
    if not plan.weighted:
        return None
    counts = [{"head": PYU(p)(lambda w: digits([w.rows]))(workers[p])} for p in plan.parties]
    (rows,) = numbers(spu.reveal(adder(total)(*counts))["head"])
    for p in plan.parties:
        PYU(p)(_weighs)(workers[p], rows / len(plan.parties))
    return rows


def _weighs(worker: Any, mean: float) -> None:
    worker.weight = worker.rows / mean


def _metrics(plan: Plan, workers: Mapping[str, PYUObject]) -> tuple[str, ...]:
    """The metrics' names, which all must have alike."""
    if plan.evaluate is None:
        return ()
    start = plan.layout.vector(plan.layout.leaves)
    names = said(plan.parties, "metrics", str, lambda w: json.dumps(list(w.evaluate(start))), workers)
    if len(set(names.values())) > 1:
        raise PublicError("`eval` gives metrics of different names at different parties: give the same everywhere.")
    return tuple(json.loads(next(iter(names.values()))))


def _attending(
    plan: Plan, workers: Mapping[str, PYUObject], attend: Mapping[str, Callable[[int], bool]] | None, round_: int
) -> tuple[str, ...]:
    if not attend:
        return plan.parties
    unknown = [p for p in attend if p not in plan.parties]
    if unknown:
        raise ConfigError(f"`attend` names {', '.join(unknown)}, who brings no data.")
    comes = said(tuple(attend), f"who attends round {round_}", bool, lambda f: bool(f(round_)), attend)
    return tuple(p for p in plan.parties if comes.get(p, True))


# what is learned


def _learns(run: Rounds, rows: int | None) -> tuple[str, ...]:
    plan = run.plan
    how = "the weighted mean of the updates" if run.rule is None else f"{run.rule.name} of the updates"
    out = ["all parties: the model's form, who takes part in each round, the form of a batch"]
    if rows is not None:
        out.append("all parties: how many rows there are in all, not how many anybody has")
    if plan.private is not None:
        out.append(f"all parties: the sum of clipped updates with noise of {plan.private.noise:g} times the norm")
    else:
        out.append(f"all parties: {how}, each round; no single one")
        out.append("all parties: how many updates had NaN or did not fit, not whose")
    if plan.compress is not None:
        out.append(plan.compress.said)
    if run.metrics and plan.private is not None:
        out.append("metrics of `eval_data` are as they are, without noise")
    if run.metrics:
        out.append(f"all parties: the mean of {', '.join(run.metrics)} over all rows, each round")
    if plan.layout.personal:
        out.append("personal leaves: nobody but their party")
    if len(plan.parties) == 2:
        out.append("with two parties the mean tells each the other's update")
    return tuple(out)
