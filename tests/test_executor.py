"""Schedules and the executor: shared rounds, messages, registers, control, randomness; and random programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from machine import (
    Raw,
    assert_cost,
    both,
    key,
    module,
    network,
    predicted_cost,
    program,
    run_parties,
    shared_inputs,
    simulate,
    simulated,
    type_of,
    values,
)

from spuvm.compiler.expand.expand import expand
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Value
from spuvm.runtime.errors import PeerMismatchError
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.machine.program import Round, Straight, Task, partition, tasks_of
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.ref2k import ref2k

I64 = type_of("int64", (5,))


def rounds(build: Callable[..., list[Value]], count: int = 2) -> int:
    return predicted_cost(expand(module(build, *[I64] * count), ABY3)).rounds


def two(n: int = 5, seed: int = 0, limit: int = 2**20) -> list[Raw]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-limit, limit, n).astype(np.uint64) for _ in range(2)]


# Rounds ---------------------------------------------------------------------------------------------------


def test_independent_operations_share_rounds() -> None:
    one = rounds(lambda b, x, y: [b.less(x, y)])
    assert rounds(lambda b, x, y: [b.less(x, y), b.less(y, x), b.equal(x, y), b.op("mul", x, y)]) == one
    assert rounds(lambda b, x, y: [b.op("mul", x, x), b.op("mul", b.op("mul", x, y), y)]) == 2


def test_operations_start_as_early_as_they_can() -> None:
    """A chain of products beside a comparison ends before it, whatever the order in the program."""

    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        c = b.less(x, y)
        z = x
        for _ in range(5):
            z = b.op("mul", z, y)
        return [z, c]

    assert rounds(build) == rounds(lambda b, x, y: [b.less(x, y)])
    assert rounds(lambda b, x, y: build(b, x, y)[::-1]) == rounds(build)


def test_one_message_to_each_peer_in_each_round() -> None:
    m = module(lambda b, x, y: [b.op("mul", x, y) for _ in range(4)], I64, I64)
    choreography = expand(m, ABY3)
    _, counters = network(choreography, shared_inputs(choreography, two()))
    for c in counters:
        assert c.rounds == 1
        assert sum(c.messages_sent.values()) == 1
        assert sum(c.bytes_sent.values()) == 4 * 5 * 8


# Sizes ------------------------------------------------------------------------------------------------------


def test_partition_covers_everything_once() -> None:
    for size in [*range(200), 1023, 1024, 1025, 8191, 8193, 32767, 32768, 131071, 131072, 131073, 200000, 400000]:
        at = 0
        for start, count, length in partition(size):
            assert start == at
            assert count <= length
            at += count
        assert at == size


# Registers ---------------------------------------------------------------------------------------------------


class Watch:
    """A listener that counts."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.rounds: list[Round] = []

    def did_run(self, task: Task) -> None:
        self.tasks.append(task)

    def did_exchange(self, round_: Round) -> None:
        self.rounds.append(round_)


def chain(b: Builder, x: Value, y: Value) -> list[Value]:
    for _ in range(6):
        x = b.op("mul", b.add(x, y), y)
    return [x]


@pytest.mark.parametrize("party", [None, 0, 1, 2])
def test_registers_are_freed_at_their_last_use(party: int | None) -> None:
    """Whatever the length of a chain, what is alive at any time is a few registers."""
    made = program(expand(module(chain, I64, I64), ABY3), party)
    alive = {r for r in made.block.params if r is not None} | set(made.block.constants)
    most = 0
    for step in made.block.steps:
        assert isinstance(step, Straight)
        for round_ in step.rounds:
            for task in round_.tasks:
                assert alive >= set(task.inputs)
                alive |= set(task.outputs)
                most = max(most, len(alive))
                assert alive >= set(task.frees)
                alive -= set(task.frees)
            received = {m.register for ms in round_.receives.values() for m in ms}
            assert alive >= {m.register for ms in round_.sends.values() for m in ms}
            alive |= received
            alive -= set(round_.frees)
    assert alive >= {r for r in made.block.results if r is not None}
    assert most <= 18


def test_listeners_see_every_task_and_round() -> None:
    choreography = expand(module(chain, I64, I64), ABY3)
    inputs = shared_inputs(choreography, two(limit=4))
    watches = [Watch() for _ in range(3)]

    def work(rank: int, link: Any) -> int:
        made = program(choreography, rank)
        slots = [s for p in choreography.inputs for s in p.slots]
        mine = [x if rank in s.holders else None for s, x in zip(slots, inputs)]
        Executor(Streams(key, rank), link, watches[rank]).run(made, mine)
        assert watches[rank].tasks == list(tasks_of(made.block))
        return int(link.counters.rounds)

    assert run_parties(work) == [len(w.rounds) for w in watches]
    assert {t.op for t in watches[0].tasks} >= {"mul"}


# Randomness ----------------------------------------------------------------------------------------------------


def test_runs_have_fresh_shares_of_the_same_values() -> None:
    choreography = expand(module(lambda b, x, y: [b.op("mul", x, y)], I64, I64), ABY3)
    raws = two()
    inputs = shared_inputs(choreography, raws)
    streams = Streams(key, None)
    first, second = (simulate(choreography, inputs, streams) for _ in range(2))
    for a, b in zip(first, second):
        assert (a != b).all()
    for out in (first, second):
        np.testing.assert_array_equal(values(choreography, out)[0], raws[0] * raws[1])


def test_the_same_keys_give_the_same_shares() -> None:
    choreography = expand(module(lambda b, x, y: [b.less(x, y)], I64, I64), ABY3)
    inputs = shared_inputs(choreography, two())
    first, second = (simulate(choreography, inputs) for _ in range(2))
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", [0, 1 << 40])
def test_prefetching_changes_no_share(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choreography = expand(module(lambda b, x, y: [b.op("mul", x, y), b.less(x, y)], I64, I64), ABY3)
    inputs = shared_inputs(choreography, two())
    usual = simulate(choreography, inputs)
    monkeypatch.setattr("spuvm.runtime.machine.executor.PREFETCH_BYTES", limit)
    for a, b in zip(usual, simulate(choreography, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_are_not_changed() -> None:
    """Components that a caller keeps are the same after any number of runs."""
    m = module(lambda b, x, y: [b.add(x, y), b.op("mul", x, y), x], I64, I64)
    choreography = expand(m, ABY3)
    inputs = shared_inputs(choreography, two())
    copies = [np.array(x) for x in inputs]
    simulate(choreography, inputs, runs=3)
    for x, copy in zip(inputs, copies):
        np.testing.assert_array_equal(x, copy)


# Parties that do not fit together --------------------------------------------------------------------------------


def test_programs_of_different_sizes_do_not_pass_for_each_other() -> None:
    """The session compares hashes first; but even without, a message of the wrong size is an error."""

    def work(rank: int, link: Any) -> None:
        n = 6 if rank == 1 else 5
        choreography = expand(module(lambda b, x: [b.op("mul", x, x)], type_of("int64", (n,))), ABY3)
        (port,) = choreography.inputs
        mine = [np.zeros(n, np.uint64) if rank in s.holders else None for s in port.slots]
        Executor(Streams(key, rank), link).run(program(choreography, rank), mine)

    with pytest.raises(PeerMismatchError):
        run_parties(work)


# Random programs --------------------------------------------------------------------------------------------------


def random_module(seed: int, size: int = 40) -> Module:
    """Integers, bools, vectors and scalars, of all visibilities, in a random order and nesting."""
    rng = np.random.default_rng(seed)

    def build(b: Builder, *inputs: Value) -> list[Value]:
        pool = list(inputs)
        while len(pool) < size:
            grow(b, pool)
        chosen = rng.choice(len(pool), 8, replace=False)
        return [pool[i] for i in chosen] + [b.op("reveal", pool[-1], to="public")]

    def pick(pool: list[Value], kind: str) -> Value:
        fitting = [v for v in pool if v.type.kind == kind]
        return fitting[int(len(fitting) * max(rng.random(2)))]  # later ones more often: deep programs

    def grow(b: Builder, pool: list[Value]) -> None:
        x, y, c, d = pick(pool, "int"), pick(pool, "int"), pick(pool, "bool"), pick(pool, "bool")
        name = rng.choice(["add", "sub", "mul", "less", "equal", "select", "xor", "and", "bool", "shift", "sum", "not"])
        match name:
            case "add" | "sub" | "mul" | "less" | "equal":
                pool.append(b.op(name, x, y))
            case "select":
                pool.append(b.select(c, x, y))
            case "xor" | "and":
                pool.append(b.op(name, c, d) if rng.random() < 0.7 else b.op(name, x, y))
            case "bool":
                pool.append(b.convert(c, "int64"))
            case "shift":
                pool.append(b.op("shift_right_arithmetic", x, bits=int(rng.integers(0, 64))))
            case "sum":
                total = b.sum(b.op("mul", x, y) if rng.random() < 0.5 else x, (0,))
                pool.append(b.broadcast(total, x.shape))
            case "not":
                pool.append(b.not_(c) if rng.random() < 0.5 else b.op("rev", x, axes=(0,)))

    n = int(rng.choice([1, 5, 9]))
    types = [type_of("int64", (n,), who) for who in ("secret", "secret", "public", 0, 2)]
    types += [type_of("bool", (n,), who) for who in ("secret", "public", 1)]
    return module(build, *types)


def random_inputs(m: Module) -> list[Raw]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 2 if p.type.kind == "bool" else 2**63, p.shape, np.uint64) for p in m.body.params]


@pytest.mark.parametrize("small", [1, 4096])
@pytest.mark.parametrize("seed", range(8))
def test_random_programs_as_parties(seed: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `small` 1 local operations are grouped as those on many elements are."""
    monkeypatch.setattr("spuvm.compiler.project.schedule.SMALL", small)
    m = random_module(seed)
    raws = random_inputs(m)
    got = both(m, ABY3, raws)
    for z, want in zip(got, evaluate(m, raws), strict=True):
        np.testing.assert_array_equal(z.astype(np.uint64), want)


@pytest.mark.parametrize("seed", range(100, 130))
def test_random_programs_in_the_clear(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spuvm.compiler.project.schedule.SMALL", 4096 if seed % 2 else 1)
    m = random_module(seed, 60)
    raws = random_inputs(m)
    got = simulated(m, ref2k(3), raws)
    for z, want in zip(got, evaluate(m, raws), strict=True):
        np.testing.assert_array_equal(z.astype(np.uint64), want)


def test_a_compiled_random_program() -> None:
    m = random_module(3)
    raws = random_inputs(m)
    for z, want in zip(both(m, ABY3, raws), evaluate(m, raws), strict=True):
        np.testing.assert_array_equal(z.astype(np.uint64), want)


def test_many_elements_and_few_at_once() -> None:
    """Element-wise groups of blocks beside whole-array groups, feeding each other."""

    def build(b: Builder, x: Value, y: Value, s: Value) -> list[Value]:
        z = b.add(x, b.op("mul", x, y))
        total = b.sum(z, (0,))
        t = b.op("mul", b.add(total, s), s)
        w = b.sub(z, b.broadcast(t, z.shape))
        return [
            w,
            b.slice(b.op("mul", w, x), 0, 0, 10),
            t,
            b.op("rev", b.op("xor", b.less(x, y), b.less(y, x)), axes=(0,)),
        ]

    n = 10000
    types = [type_of("int64", (n,)), type_of("int64", (n,)), type_of("int64")]
    m = module(build, *types)
    raws = [*two(n), np.array(3, np.uint64)]
    for z, want in zip(both(m, ABY3, raws), evaluate(m, raws), strict=True):
        np.testing.assert_array_equal(z.astype(np.uint64), want)


def test_costs_add_up_over_runs() -> None:
    choreography = expand(module(chain, I64, I64), ABY3)
    _, counters = network(choreography, shared_inputs(choreography, two(limit=4)), runs=3)
    assert_cost(predicted_cost(choreography), counters, runs=3)


def test_results_that_are_inputs() -> None:
    """Passed through, twice, reordered and as constants, no work done."""

    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        return [y, x, y, b.const(np.arange(3), "int64"), b.op("share", b.const(np.ones(3, int), "int64"), to="secret")]

    m = module(build, I64, type_of("int64", (5,), 1))
    raws = two()
    for z, want in zip(both(m, ABY3, raws), evaluate(m, raws), strict=True):
        np.testing.assert_array_equal(z, want)
