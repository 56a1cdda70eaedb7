"""One kernel, analysed: who computes which equation, in which stage, and what is sent.

The kernel is traced once over all components. Inputs say who holds them; an equation can be
computed by the parties that know all its inputs; `send` adds its destination. A party's stage
of an equation is the number of rounds that it depends on there. What a party owns and needs,
cut at its rounds, becomes one JAX function per stage. A `send` whose source cannot compute the
value, or an output that its declared holder does not know, is a ProtocolError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.cache import disk
from spuvm.compiler.expand.choreography import KernelSpec, Ranks
from spuvm.compiler.project.content import content
from spuvm.compiler.project.stage_function import Equation, Known, Later, StageFunction
from spuvm.runtime.engine.code import UNIT
from spuvm.runtime.engine.correlated import ranks
from spuvm.runtime.engine.primitives import confirm_p, multiplied_p, random_p, send_p
from spuvm.runtime.errors import ProtocolError
from spuvm.runtime.machine.claims import PARTIES
from spuvm.runtime.machine.program import Holders, Random
from spuvm.runtime.ring.bits import pack, unpack

Atom = Any  # a jaxpr variable or literal
INLINED = {"pjit", "jit", "closed_call", "custom_jvp_call"}


@dataclass(frozen=True)
class Sent:
    """One message: value `value` leaves `src` after stage `stage`; at `dst` it is value `arrives`."""

    value: int
    arrives: int
    src: int
    dst: int
    stage: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class StagePlan:
    """Value numbers that go in and come out; the kernel's own inputs are numbers 0, 1, ..."""

    inputs: tuple[int, ...]
    randoms: tuple[Random, ...]
    outputs: tuple[int, ...]
    avals: tuple[jax.ShapeDtypeStruct, ...]
    function: StageFunction | Later


@dataclass(frozen=True)
class Confirmed:
    """A value that two parties add to a hash: number `mine` at party `by`, who computed it, `theirs` at party `to`."""

    mine: int
    theirs: int
    by: int
    to: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Multiplied:
    """A product to be proved: by party, the numbers of its two components of x, of y and of z."""

    how: str
    values: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]  # of x, y and z
    dtype: str


@dataclass(eq=False)
class KernelPlan:
    """All parties' stages (key None: everything at once). `outputs[party]` are the value numbers of
    the result components, None where the party does not hold one."""

    key: str
    rounds: int
    draws: dict[Holders, int]
    sent: tuple[Sent, ...]
    outputs: dict[int | None, tuple[int | None, ...]]
    stages: dict[int | None, list[StagePlan]]
    confirmed: tuple[Confirmed, ...] = ()
    multiplied: tuple[Multiplied, ...] = ()


class _Fresh:
    """A variable of an equation, of this occurrence alone."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any) -> None:
        self.aval = aval


def _is_variable(atom: Atom) -> bool:
    return not isinstance(atom, jex.Literal | Known)


def _equations(jaxpr: Any, rename: dict[Any, Atom]) -> Iterator[tuple[Any, list[Atom], list[Any]]]:
    """The equations in order, calls of named sub-functions inlined, variables renamed to match."""

    def resolve(atom: Atom) -> Atom:
        return atom if isinstance(atom, jex.Literal) else rename.get(atom, atom)

    for eqn in jaxpr.eqns:
        ins = [resolve(a) for a in eqn.invars]
        if eqn.primitive.name in INLINED:
            closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            inner: dict[Any, Atom] = dict(zip(closed.jaxpr.invars, ins))
            inner |= {v: Known(c) for v, c in zip(closed.jaxpr.constvars, closed.consts)}
            yield from _equations(closed.jaxpr, inner)
            for var, out in zip(eqn.outvars, closed.jaxpr.outvars):
                rename[var] = out if isinstance(out, jex.Literal) else inner.get(out, out)
        else:
            outs = [_Fresh(v.aval) for v in eqn.outvars]  # JAX shares the jaxpr of a function called twice
            rename.update(zip(eqn.outvars, outs))
            yield eqn, ins, outs


def _named_ranks(equation: tuple[Any, list[Atom], list[Any]]) -> Ranks:
    """The ranks that a `send` or `random` names: a dealer holds no component, but takes part."""
    eqn = equation[0]
    if eqn.primitive is send_p:
        return frozenset({eqn.params["src"], eqn.params["dst"]})
    if eqn.primitive is confirm_p:
        return frozenset({eqn.params["by"], eqn.params["to"]})
    return ranks(eqn.params["holders"]) if eqn.primitive is random_p else frozenset()


def bind_equation(eqn: Any, arguments: Sequence[Any]) -> Any:
    """Apply a jaxpr equation; JAX before 0.9 hands sub-functions over separately."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = bound if isinstance(bound, tuple) else ((), bound)
    return eqn.primitive.bind(*subfuns, *arguments, **params)


def _constant(atom: Atom) -> Known:
    return Known(atom.val) if isinstance(atom, jex.Literal) else atom


def kernel_avals(spec: KernelSpec, length: int | None) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The arguments' types at one block length."""
    shapes = [(length,) if s is None else s for s in spec.shapes]
    return tuple(jax.ShapeDtypeStruct(s, np.dtype(d)) for s, d in zip(shapes, spec.dtypes))


@lru_cache(maxsize=4096)
def plan(spec: KernelSpec, length: int | None) -> KernelPlan:
    """The analysis of `spec` at one block length (None: its exact shapes), from disk if it is there.

    An element-wise kernel is analysed for one unit of elements; longer blocks follow from that.
    """
    key = _key(spec, length)
    if length is not None and length > UNIT and length % UNIT == 0:
        return _longer(spec, plan(spec, UNIT), length, key)
    stored = disk.read(key + ".plan")
    if stored is not None:
        return _restored(spec, length, key, json.loads(stored))
    made = analyse(spec, length)
    disk.write(key + ".plan", json.dumps(_stored(made)).encode())
    return made


def _longer(spec: KernelSpec, unit: KernelPlan, length: int, key: str) -> KernelPlan:
    """The plan at several units: whole cache lines of randomness a unit, so that all places are multiples."""
    times = length // UNIT

    def shape(of_unit: tuple[int, ...]) -> tuple[int, ...]:
        return (of_unit[0] * times, *of_unit[1:]) if of_unit else ()

    def stage(party: int | None, index: int, s: StagePlan) -> StagePlan:
        randoms = tuple(Random(r.holders, r.offset * times, shape(r.shape), r.dtype) for r in s.randoms)
        avals = tuple(jax.ShapeDtypeStruct(shape(a.shape), a.dtype) for a in s.avals)
        return StagePlan(s.inputs, randoms, s.outputs, avals, _later(spec, length, party, index))

    return KernelPlan(
        key,
        unit.rounds,
        {holders: n * times for holders, n in unit.draws.items()},
        tuple(replace(s, shape=shape(s.shape)) for s in unit.sent),
        unit.outputs,
        {p: [stage(p, i, s) for i, s in enumerate(stages)] for p, stages in unit.stages.items()},
        unit.confirmed,
        unit.multiplied,
    )


def _later(spec: KernelSpec, length: int | None, party: int | None, index: int) -> Later:
    def made() -> StageFunction:
        function = analyse(spec, length).stages[party][index].function
        assert isinstance(function, StageFunction)
        return function

    return Later(made)


@lru_cache(maxsize=256)  # it holds the traced kernel
def analyse(spec: KernelSpec, length: int | None) -> KernelPlan:
    """Trace the kernel and cut it into stages."""
    avals = kernel_avals(spec, length)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(spec.function)(*avals)
        return _Analysis(spec, closed).plan(_key(spec, length))


def _stored(made: KernelPlan) -> dict[str, Any]:
    """A plan as JSON, without its functions."""

    def stage(s: StagePlan) -> list[Any]:
        avals = [(a.shape, a.dtype.name) for a in s.avals]
        return [s.inputs, [astuple(r) for r in s.randoms], s.outputs, avals]

    return {
        "rounds": made.rounds,
        "draws": list(made.draws.items()),
        "sent": [astuple(s) for s in made.sent],
        "outputs": list(made.outputs.items()),
        "confirmed": [astuple(c) for c in made.confirmed],
        "multiplied": [astuple(m) for m in made.multiplied],
        "stages": [(party, [stage(s) for s in stages]) for party, stages in made.stages.items()],
    }


def _restored(spec: KernelSpec, length: int | None, key: str, stored: dict[str, Any]) -> KernelPlan:
    """A plan from JSON; its functions trace the kernel when (and only if) they are called."""

    def stage(party: int | None, index: int, s: list[Any]) -> StagePlan:
        inputs, randoms, outputs, avals = s
        return StagePlan(
            tuple(inputs),
            tuple(Random(tuple(h), offset, tuple(shape), dtype) for h, offset, shape, dtype in randoms),
            tuple(outputs),
            tuple(jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for shape, dtype in avals),
            _later(spec, length, party, index),
        )

    return KernelPlan(
        key,
        stored["rounds"],
        {tuple(h): n for h, n in stored["draws"]},
        tuple(Sent(v, a, src, dst, at, tuple(shape), dtype) for v, a, src, dst, at, shape, dtype in stored["sent"]),
        {party: tuple(values) for party, values in stored["outputs"]},
        {p: [stage(p, i, s) for i, s in enumerate(stages)] for p, stages in stored["stages"]},
        tuple(Confirmed(mine, theirs, by, to, tuple(shape)) for mine, theirs, by, to, shape in stored["confirmed"]),
        tuple(
            Multiplied(how, tuple(map(tuple, values)), tuple(map(tuple, shapes)), dtype)
            for how, values, shapes, dtype in stored["multiplied"]
        ),
    )


def _key(spec: KernelSpec, length: int | None) -> str:
    """What tells compiled forms apart: types and holders of the components, and what the function does with them."""
    types = (spec.shapes, spec.dtypes, spec.holders, spec.out_holders, spec.limbs, length)
    text = repr((spec.name, types, content(spec.function)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_Read = tuple[Equation, list[int]]  # an equation, and what a party reads for it


def _held(values: Sequence[int], party: int) -> Iterator[int]:
    """Of the components of several replicated sharings, those of a party."""
    for i in range(0, len(values), PARTIES):
        yield values[i + party]
        yield values[i + (party + 1) % PARTIES]


class _Analysis:
    """The state of one analysis; values are numbered as they are defined."""

    def __init__(self, spec: KernelSpec, closed: Any) -> None:
        self.spec = spec
        rename: dict[Any, Atom] = {v: Known(c) for v, c in zip(closed.jaxpr.constvars, closed.consts)}
        equations = list(_equations(closed.jaxpr, rename))
        self.parties = sorted(frozenset().union(*spec.holders, *spec.out_holders, *map(_named_ranks, equations)))
        self.everyone = frozenset(self.parties)
        self.numbers: dict[Any, int] = {}
        self.owners: list[Ranks] = []
        self.stage: list[dict[int, int]] = []  # the stage from which on each owner knows a value
        self.avals: list[jax.ShapeDtypeStruct] = []
        self.equations: list[Equation] = []
        self.randoms: dict[int, Random] = {}
        self.sends: dict[int, Sent] = {}
        self.unpacked: dict[int, tuple[int, int]] = {}  # what `dst` unpacks -> (the value sent, dst)
        self.draws: dict[Holders, int] = {}
        self.confirms: list[tuple[int, int, int]] = []  # value, by, to
        self.products: list[tuple[str, tuple[int, ...]]] = []  # the components of x, y and z
        for var, holders in zip(closed.jaxpr.invars, spec.holders):
            self._define(var, holders, dict.fromkeys(holders, 0))
        for eqn, ins, outs in equations:
            self._equation(eqn, ins, outs)
        self.outputs = [self._output(rename.get(v, v) if isinstance(v, jex.Var) else v) for v in closed.jaxpr.outvars]
        self._check_outputs()

    def _define(self, var: Any, owners: Ranks, stage: dict[int, int]) -> int:
        number = self._number(jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype), owners, stage)
        self.numbers[var] = number
        return number

    def _number(self, aval: jax.ShapeDtypeStruct, owners: Ranks, stage: dict[int, int]) -> int:
        self.owners.append(owners)
        self.stage.append(stage)
        self.avals.append(aval)
        return len(self.owners) - 1

    def _output(self, atom: Atom) -> int:
        """The number of a result; a constant becomes an equation without inputs, known to all."""
        if _is_variable(atom):
            return self.numbers[atom]
        value = _constant(atom).value
        aval = jax.ShapeDtypeStruct(np.shape(value), np.result_type(value))
        number = self._number(aval, frozenset(self.parties), dict.fromkeys(self.parties, 0))
        self.equations.append(Equation(lambda: [jnp.asarray(value)], (), (number,)))
        return number

    def _equation(self, eqn: Any, ins: list[Atom], outs: list[Any]) -> None:
        values = [self.numbers[a] for a in ins if _is_variable(a)]
        if eqn.primitive is random_p:
            return self._random(eqn, outs[0])
        if eqn.primitive is send_p:
            return self._send(eqn, values[0], outs[0])
        if eqn.primitive is confirm_p:
            return self._confirm(eqn, values[0], outs[0])
        if eqn.primitive is multiplied_p:
            return self._multiplied(eqn, ins, outs)
        owners, stage = self._known(values)
        if not owners:
            raise ProtocolError(f"kernel `{self.spec.name}`: no party knows all inputs of `{eqn.primitive}`.")
        several = eqn.primitive.multiple_results

        def apply(*arguments: Any) -> Sequence[Any]:
            result = bind_equation(eqn, arguments)
            return list(result) if several else [result]

        numbered = tuple(self.numbers[a] if _is_variable(a) else _constant(a) for a in ins)
        defined = tuple(self._define(v, owners, stage) for v in outs)
        self.equations.append(Equation(apply, numbered, defined, eqn.primitive, eqn.params))

    def _known(self, values: Sequence[int]) -> tuple[Ranks, dict[int, int]]:
        """Who knows all the values, and from which stage on; nobody changes what is returned."""
        if not values:
            return self.everyone, dict.fromkeys(self.parties, 0)
        owners, stage = self.owners[values[0]], self.stage[values[0]]
        for v in values[1:]:
            if self.stage[v] is not stage:
                owners &= self.owners[v]
                stage = {p: max(stage[p], self.stage[v][p]) for p in owners}
        return owners, stage

    def _random(self, eqn: Any, out: Any) -> None:
        holders = eqn.params["holders"]
        who = ranks(holders)
        number = self._define(out, who, dict.fromkeys(who, 0))
        offset = self.draws.get(holders, 0)
        aval = self.avals[number]
        self.randoms[number] = Random(holders, offset, tuple(aval.shape), eqn.params["dtype"])
        self.draws[holders] = offset + -(-self.randoms[number].nbytes // 64) * 4  # whole cache lines

    def _send(self, eqn: Any, value: int, out: Any) -> None:
        src, dst, bits = eqn.params["src"], eqn.params["dst"], eqn.params["bits"]
        if src not in self.owners[value]:
            raise ProtocolError(
                f"kernel `{self.spec.name}`: party {src} cannot send what only {sorted(self.owners[value])} know."
            )
        leaves = self.stage[value][src]
        at = {**self.stage[value], dst: self.stage[value].get(dst, leaves + 1)}
        owners = self.owners[value] | {dst}
        if not bits or dst in self.owners[value]:
            self._message(self._define(out, owners, at), value, src, dst, leaves)
            return
        aval = self.avals[value]
        short = jax.eval_shape(lambda x: pack(x, bits), aval)
        packed = self._number(short, frozenset({src}), {src: leaves})
        self.equations.append(Equation(lambda x: [pack(x, bits)], (value,), (packed,)))
        arrived = self._number(short, frozenset({src, dst}), {src: leaves, dst: leaves + 1})
        self._message(arrived, packed, src, dst, leaves)
        number = self._define(out, owners, at)
        self.unpacked[number] = (value, dst)
        self.equations.append(Equation(lambda x: [unpack(x, bits)], (arrived,), (number,)))

    def _confirm(self, eqn: Any, value: int, out: Any) -> None:
        by, to = eqn.params["by"], eqn.params["to"]
        if not {by, to} <= self.owners[value]:
            raise ProtocolError(f"kernel `{self.spec.name}`: parties {by} and {to} do not both know what is confirmed.")
        self.numbers[out] = value
        self.confirms.append((value, by, to))

    def _multiplied(self, eqn: Any, ins: list[Atom], outs: list[Any]) -> None:
        """Party i has components i and i + 1 of a replicated sharing."""
        numbers = tuple(self._output(a) for a in ins)
        for i, value in enumerate(numbers):
            missing = {i % PARTIES, (i - 1) % PARTIES} - self.owners[value]
            if missing:
                raise ProtocolError(f"kernel `{self.spec.name}`: parties {sorted(missing)} lack a part of a product.")
        self.numbers.update(zip(outs, numbers[2 * PARTIES :]))
        self.products.append((eqn.params["how"], numbers))

    def _message(self, number: int, value: int, src: int, dst: int, stage: int) -> None:
        aval = self.avals[number]
        self.sends[number] = Sent(value, number, src, dst, stage, tuple(aval.shape), aval.dtype.name)

    def _check_outputs(self) -> None:
        for i, (value, holders) in enumerate(zip(self.outputs, self.spec.out_holders, strict=True)):
            missing = holders - self.owners[value]
            if missing:
                raise ProtocolError(
                    f"kernel `{self.spec.name}`: parties {sorted(missing)} should hold component {i} but cannot."
                )

    # what each party needs -------------------------------------------------------------------------

    def _at(self, party: int | None, value: int) -> int:
        """The value that stands for `value` at a party: only its receiver sees a message as a new one."""
        while True:
            if value in self.sends:
                sent = self.sends[value]
                origin, dst = sent.value, sent.dst
            elif value in self.unpacked:
                origin, dst = self.unpacked[value]
            else:
                return value
            if party == dst and party not in self.owners[origin]:
                return value
            value = origin

    def _reads(self, party: int | None, equation: Equation) -> list[int]:
        return [self._at(party, v) for v in equation.ins if isinstance(v, int)]

    def _needs(self) -> dict[int | None, set[int]]:
        """Per party, the values that it computes or receives, by walking back from the outputs."""
        producer = {n: e for e in self.equations for n in e.outs}
        needed: dict[int | None, set[int]] = {p: set() for p in (*self.parties, None)}
        work: list[tuple[int | None, int]] = [(None, v) for v in self.outputs]
        for value, holders in zip(self.outputs, self.spec.out_holders):
            work.extend((p, value) for p in holders)
        work.extend((p, value) for value, *both in self.confirms for p in both)
        work.extend((p, value) for p in range(PARTIES) for _, values in self.products for value in _held(values, p))
        while work:
            party, value = work.pop()
            value = self._at(party, value)
            if value in needed[party]:
                continue
            needed[party].add(value)
            if value in self.sends:
                work.append((self.sends[value].src, self.sends[value].value))
            elif value in producer:
                work.extend((party, v) for v in self._reads(party, producer[value]))
        return needed

    def _step(self, party: int | None, value: int) -> int:
        """The stage in which a party can use the value."""
        return 0 if party is None else self.stage[value][party]

    # stages ------------------------------------------------------------------------------------------

    def plan(self, key: str) -> KernelPlan:
        needed = self._needs()
        sent = tuple(
            Sent(self._at(s.src, s.value), n, s.src, s.dst, s.stage, s.shape, s.dtype)
            for n, s in self.sends.items()
            if n in needed[s.dst]
        )
        rounds = max((s.stage + 1 for s in sent), default=0)
        held = self.spec.out_holders
        stages: dict[int | None, list[StagePlan]] = {}
        outputs: dict[int | None, tuple[int | None, ...]] = {}
        for party in (None, *self.parties):
            holds = [party is None or party in h for h in held]
            outputs[party] = tuple(self._at(party, v) if h else None for v, h in zip(self.outputs, holds))
            hashed = [self._at(party, v) for v, *both in self.confirms if party in both]
            if party is not None:
                hashed += [self._at(party, v) for _, values in self.products for v in _held(values, party)]
            leaving = hashed + [v for v in outputs[party] if v is not None] + [s.value for s in sent if s.src == party]
            stages[party] = self._stages(party, needed[party], leaving, 0 if party is None else rounds)
        confirmed = tuple(
            Confirmed(self._at(by, v), self._at(to, v), by, to, tuple(self.avals[v].shape))
            for v, by, to in self.confirms
        )
        multiplied = tuple(
            Multiplied(
                how,
                tuple(tuple(self._at(p, v) for v in _held(values, p)) for p in range(PARTIES)),
                tuple(tuple(self.avals[values[i]].shape) for i in range(0, len(values), PARTIES)),
                self.avals[values[0]].dtype.name,
            )
            for how, values in self.products
        )
        return KernelPlan(key, rounds, self.draws, sent, outputs, stages, confirmed, multiplied)

    def _stages(self, party: int | None, needed: set[int], leaving: Sequence[int], rounds: int) -> list[StagePlan]:
        """The stages of one party; what leaves them is `leaving` (results and messages), and what later ones read."""
        mine: list[list[_Read]] = [[] for _ in range(rounds + 1)]
        last: dict[int, int] = {}  # by value, the last stage that reads it
        for e in self.equations:
            if not needed.isdisjoint(e.outs):
                index = self._step(party, e.outs[0])
                reads = self._reads(party, e)
                mine[index].append((e, reads))
                last.update((v, max(index, last.get(v, 0))) for v in reads if v not in self.randoms)
        return [self._stage(party, index, equations, leaving, last) for index, equations in enumerate(mine)]

    def _stage(
        self, party: int | None, index: int, mine: list[_Read], leaving: Sequence[int], last: dict[int, int]
    ) -> StagePlan:
        made = dict.fromkeys(o for e, _ in mine for o in e.outs)
        read = dict.fromkeys(v for _, reads in mine for v in reads if v not in made)
        through = [v for v in leaving if v in self.randoms and index == 0]
        randoms = list(dict.fromkeys([v for v in read if v in self.randoms] + through))
        inputs = tuple(v for v in read if v not in self.randoms)
        wanted = dict.fromkeys([*leaving, *(v for v in made if last.get(v, 0) > index)])
        outputs = tuple(v for v in wanted if v in made or v in through)
        names = (*inputs, *randoms)
        return StagePlan(
            inputs,
            tuple(self.randoms[v] for v in randoms),
            outputs,
            tuple(self.avals[v] for v in names),
            self._function(party, [e for e, _ in mine], names, outputs),
        )

    def _function(
        self, party: int | None, mine: list[Equation], names: Sequence[int], outputs: Sequence[int]
    ) -> StageFunction:
        steps = [(e, [self._at(party, v) if isinstance(v, int) else v for v in e.ins]) for e in mine]
        return StageFunction(names, steps, outputs, self.avals)
