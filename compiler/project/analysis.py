"""One traced kernel, analysed: who computes which equation, in which stage, and what is sent.

Inputs say who holds them; an equation can be computed by the parties that know all its inputs; `send` adds
its destination. A party's stage of an equation is the number of rounds that it depends on there. What a party
owns and needs, cut at its rounds, becomes one JAX function per stage. A `send` whose source cannot compute the
value, or an output that its declared holder does not know, is a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.expand.choreography import KernelSpec, Ranks
from spuvm.compiler.project.equations import Atom, bind_equation, constant, equations_of, is_variable, named_ranks
from spuvm.compiler.project.kernel_plan import Confirmed, KernelPlan, Multiplied, Sent, StagePlan
from spuvm.compiler.project.stage_function import Equation, Function, Known, StageFunction
from spuvm.runtime.engine.correlated import ranks
from spuvm.runtime.engine.primitives import confirm_p, multiplied_p, random_p, send_p
from spuvm.runtime.errors import ProtocolError
from spuvm.runtime.machine.claims import PARTIES
from spuvm.runtime.machine.program import Holders, Random
from spuvm.runtime.ring.bits import pack, unpack

_Read = tuple[Equation, Sequence[int]]  # an equation, and what a party reads for it


@lru_cache(maxsize=1 << 10)
def struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@lru_cache(maxsize=1 << 10)
def _packing(bits: int, aval: jax.ShapeDtypeStruct) -> tuple[Function, Function, jax.ShapeDtypeStruct]:
    """How words of few bits are packed and unpacked, and what they are meanwhile."""
    packed = jax.eval_shape(lambda x: pack(x, bits), aval)
    return lambda x: [pack(x, bits)], lambda x: [unpack(x, bits)], packed


def _held(values: Sequence[int], party: int) -> Iterator[int]:
    """Of the components of several replicated sharings, those of a party."""
    for i in range(0, len(values), PARTIES):
        yield values[i + party]
        yield values[i + (party + 1) % PARTIES]


class Analysis:
    """The state of one analysis; values are numbered as they are defined."""

    def __init__(self, spec: KernelSpec, jaxpr: Any, consts: Sequence[Any] = ()) -> None:
        self.spec = spec
        rename: dict[Any, Atom] = {v: Known(c) for v, c in zip(jaxpr.constvars, consts)}
        equations = list(equations_of(jaxpr, rename))
        self.parties = sorted(frozenset().union(*spec.holders, *spec.out_holders, *map(named_ranks, equations)))
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
        for var, holders in zip(jaxpr.invars, spec.holders):
            self._define(var, holders, dict.fromkeys(holders, 0))
        for eqn, ins, outs in equations:
            self._equation(eqn, ins, outs)
        self.outputs = [self._output(v if isinstance(v, jex.Literal) else rename.get(v, v)) for v in jaxpr.outvars]
        self.moved = self.sends.keys() | self.unpacked.keys()
        self._check_outputs()

    def _define(self, var: Any, owners: Ranks, stage: dict[int, int]) -> int:
        number = self._number(struct(var.aval.shape, var.aval.dtype), owners, stage)
        self.numbers[var] = number
        return number

    def _number(self, aval: jax.ShapeDtypeStruct, owners: Ranks, stage: dict[int, int]) -> int:
        self.owners.append(owners)
        self.stage.append(stage)
        self.avals.append(aval)
        return len(self.owners) - 1

    def _output(self, atom: Atom) -> int:
        """The number of a result; a constant becomes an equation without inputs, known to all."""
        if is_variable(atom):
            return self.numbers[atom]
        value = constant(atom).value
        aval = jax.ShapeDtypeStruct(np.shape(value), np.result_type(value))
        number = self._number(aval, frozenset(self.parties), dict.fromkeys(self.parties, 0))
        self.equations.append(Equation(lambda: [jnp.asarray(value)], (), (number,)))
        return number

    def _equation(self, eqn: Any, ins: Sequence[Atom], outs: Sequence[Any]) -> None:
        numbered = tuple(self.numbers[a] if is_variable(a) else constant(a) for a in ins)
        values = [v for v in numbered if type(v) is int]
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
        packing, unpacking, short = _packing(bits, aval)
        packed = self._number(short, frozenset({src}), {src: leaves})
        self.equations.append(Equation(packing, (value,), (packed,)))
        arrived = self._number(short, frozenset({src, dst}), {src: leaves, dst: leaves + 1})
        self._message(arrived, packed, src, dst, leaves)
        number = self._define(out, owners, at)
        self.unpacked[number] = (value, dst)
        self.equations.append(Equation(unpacking, (arrived,), (number,)))

    def _confirm(self, eqn: Any, value: int, out: Any) -> None:
        by, to = eqn.params["by"], eqn.params["to"]
        if not {by, to} <= self.owners[value]:
            raise ProtocolError(f"kernel `{self.spec.name}`: parties {by} and {to} do not both know what is confirmed.")
        self.numbers[out] = value
        self.confirms.append((value, by, to))

    def _multiplied(self, eqn: Any, ins: Sequence[Atom], outs: Sequence[Any]) -> None:
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
        while value in self.moved:
            if value in self.sends:
                sent = self.sends[value]
                origin, dst = sent.value, sent.dst
            else:
                origin, dst = self.unpacked[value]
            if party == dst and party not in self.owners[origin]:
                break
            value = origin
        return value

    def _reads(self, party: int | None, equation: Equation) -> Sequence[int]:
        if self.moved.isdisjoint(equation.values):
            return equation.values
        return [self._at(party, v) for v in equation.values]

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
        steps = [(e, self._arguments(party, e)) for e in mine]
        return StageFunction(names, steps, outputs, self.avals)

    def _arguments(self, party: int | None, equation: Equation) -> Sequence[int | Known]:
        if self.moved.isdisjoint(equation.values):
            return equation.ins
        return [self._at(party, v) if type(v) is int else v for v in equation.ins]
