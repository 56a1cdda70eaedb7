"""Choreography -> the program of one party, or of all at once for the simulator (`party=None`).

Each slot becomes a register where the party holds it. A placed call becomes one task a stage,
its sends become messages of the round. Registers are freed after their last use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count

from spuvm.compiler.expand.choreography import (
    Block,
    Call,
    Check,
    Choreography,
    Cond,
    Guard,
    Loop,
    Port,
    Rank,
    Slot,
    Step,
    While,
)
from spuvm.compiler.project.executables import stage_loader
from spuvm.compiler.project.kernel_plan import KernelPlan
from spuvm.compiler.project.kernels import plan
from spuvm.compiler.project.schedule import Piece, Placed, pieces, reference_plan
from spuvm.runtime.machine.program import (
    BlockProgram,
    CheckStep,
    CondStep,
    GuardStep,
    Hashed,
    HashStep,
    Holders,
    LoopStep,
    Message,
    PartyProgram,
    PortSpec,
    Product,
    ProductStep,
    ProgramStep,
    RankStep,
    Round,
    Stage,
    Straight,
    Task,
    WhileStep,
    partition,
)


def project(
    choreography: Choreography, party: int | None, names: tuple[tuple[str, ...], tuple[str, ...]]
) -> PartyProgram:
    """The program of `party`; `names` are those of the inputs and outputs."""
    block = _Projector(party).block(choreography.block)
    inputs, outputs = (
        tuple(_port(n, p) for n, p in zip(ns, ps, strict=True))
        for ns, ps in zip(names, (choreography.inputs, choreography.outputs))
    )
    return PartyProgram(party, block, inputs, outputs)


def _port(name: str, port: Port) -> PortSpec:
    slot = port.slots[0]
    return PortSpec(name, port.kind, port.owner, len(port.slots), slot.shape, slot.dtype)


def lengths_of(call: Call) -> tuple[int | None, ...]:
    """The compiled lengths that a call needs."""
    if not call.spec.elementwise:
        return (None,)
    return tuple(sorted({length for _, _, length in partition(call.size)}))


def draws_of(call: Call) -> dict[Holders, int]:
    """The 16-byte blocks of each stream that one execution of a call uses."""
    blocks = [length for _, _, length in partition(call.size)] if call.spec.elementwise else [None]
    total: dict[Holders, int] = {}
    for length in blocks:
        for holders, n in plan(call.spec, length).draws.items():
            total[holders] = total.get(holders, 0) + n
    return total


def message_of(call: Call, number: int, register: int) -> Message:
    """The message number `number` of a call's kernel."""
    sent = reference_plan(call).sent[number]
    if not call.spec.elementwise:
        return Message(register, sent.dtype, None, 0, sent.shape)
    reference = plan(call.spec, 64).sent[number]
    elements = 1
    for d in reference.shape:
        elements *= d
    bits = elements * int(reference.dtype.removeprefix("uint")) // 64
    return Message(register, reference.dtype, call.size, bits)


def shapes_of_products(call: Call, of_kernel: KernelPlan) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Of each product of a call that is to be proved, the shapes of x, y and z."""
    for m in of_kernel.multiplied:
        yield tuple((call.size,) for _ in m.shapes) if call.spec.elementwise else m.shapes


@dataclass(eq=False)
class _Projector:
    party: int | None
    fresh: count[int] = field(default_factory=count)
    registers: dict[Slot, int] = field(default_factory=dict)
    hashed: list[Hashed] = field(default_factory=list)  # of the piece at hand
    products: list[Product] = field(default_factory=list)  # likewise

    def holds(self, slot: Slot) -> bool:
        return self.party is None or self.party in slot.holders

    def register(self, slot: Slot) -> int:
        return self.registers[slot]

    def define(self, slots: Iterable[Slot]) -> tuple[int | None, ...]:
        out: list[int | None] = []
        for slot in slots:
            if self.holds(slot):
                self.registers[slot] = next(self.fresh)
            out.append(self.registers.get(slot))
        return tuple(out)

    def held(self, slots: Iterable[Slot]) -> tuple[int | None, ...]:
        return tuple(self.registers[s] if self.holds(s) else None for s in slots)

    # blocks ------------------------------------------------------------------------------------

    def block(self, block: Block) -> BlockProgram:
        inner = _Projector(self.party, self.fresh)
        params = inner.define(block.params)
        constants = {}
        for slot, data in block.constants:
            (register,) = inner.define([slot])
            if register is not None:
                constants[register] = data
        steps = [step for p in pieces(block) for step in inner.step(p)]
        results = inner.held(block.results)
        _free(steps, {r for r in results if r is not None})
        return BlockProgram(params, steps, results, tuple(s.shape for s in block.results), constants)

    def step(self, part: Piece | Step) -> list[ProgramStep]:
        """What is done, and then added to hashes."""
        if not isinstance(part, Piece):
            return [self.control(part)]
        self.hashed, self.products = [], []
        done: list[ProgramStep] = [self.piece(part)]
        if self.hashed:
            done.append(HashStep(self.hashed))
        return [*done, ProductStep(self.products)] if self.products else done

    def control(self, step: Step) -> ProgramStep:
        match step:
            case Loop():
                body = self.block(step.body)
                stacked = step.outputs[len(step.carries) :]
                constants, carries, xs = (self.held(s) for s in (step.constants, step.carries, step.xs))
                return LoopStep(
                    body,
                    step.trips,
                    step.reverse,
                    constants,
                    carries,
                    xs,
                    self.define(step.outputs),
                    tuple(s.shape for s in step.xs),
                    tuple((s.shape, s.dtype) for s in stacked),
                )
            case Cond() if not self.holds(step.index):
                return Straight([], {})  # a dealer that no branch needs
            case Cond():
                branches = [self.block(b) for b in step.branches]
                (index,) = self.held([step.index])
                assert index is not None
                return CondStep(branches, index, self.held(step.operands), self.define(step.outputs))
            case While() if not self.holds(step.condition.results[0]):
                return Straight([], {})
            case While():
                condition, body = self.block(step.condition), self.block(step.body)
                first, second, carries = (
                    self.held(s) for s in (step.condition_constants, step.body_constants, step.carries)
                )
                return WhileStep(condition, body, first, second, carries, self.define(step.outputs))
            case Check():
                return CheckStep(step.parties)
            case Guard() if not self.holds(step.inputs[0]):
                return Straight([], {})
            case Guard():
                return GuardStep(self.register(step.inputs[0]), str(step.location))
            case Rank() if not self.holds(step.outputs[0]):
                return Straight([], {})  # a party that does not compute
            case Rank():
                compare = cache(lambda pairs: self.block(step.batch(pairs)))
                words = self.held(step.inputs)
                (output,) = self.define(step.outputs)
                return RankStep(compare, words, step.rows, step.length, step.wanted, output)
        raise AssertionError(step)

    # straight pieces --------------------------------------------------------------------------------

    def piece(self, piece: Piece) -> Straight:
        simulated = self.party is None
        rounds = [Round() for _ in range(1 if simulated else piece.rounds + 1)]
        draws: dict[Holders, int] = {}
        for placed in piece.calls:
            base = dict(draws)
            for holders, n in draws_of(placed.call).items():
                draws[holders] = draws.get(holders, 0) + n
            self.call(placed, base, rounds)
        return Straight(rounds, draws)

    def call(self, placed: Placed, base: dict[Holders, int], rounds: list[Round]) -> None:
        call, party = placed.call, self.party
        plans = {length: plan(call.spec, length) for length in lengths_of(call)}
        shape = next(iter(plans.values()))
        registers = {i: self.registers[s] for i, s in enumerate(call.inputs) if self.holds(s)}
        if party is not None:
            self._messages(placed, shape, registers, rounds)
        for index, _ in enumerate(shape.stages.get(party, ())):
            task = self._task(call, plans, index, registers, base)
            if task is not None:
                rounds[0 if party is None else placed.round + index].tasks.append(task)
        for slot, value in zip(call.outputs, shape.outputs.get(party, ())):
            if value is not None:
                self.registers[slot] = registers[value]
        if party is not None:
            self._sends(placed, shape, registers, rounds)
            self._confirms(call, shape, registers)
            self._multiplied(call, shape, registers)

    def _messages(self, placed: Placed, shape: KernelPlan, registers: dict[int, int], rounds: list[Round]) -> None:
        for number, sent in enumerate(shape.sent):
            if sent.dst == self.party:
                registers[sent.arrives] = next(self.fresh)
                message = message_of(placed.call, number, registers[sent.arrives])
                rounds[placed.round + sent.stage].receives.setdefault(sent.src, []).append(message)

    def _confirms(self, call: Call, shape: KernelPlan, registers: dict[int, int]) -> None:
        for c in shape.confirmed:
            size = (call.size,) if call.spec.elementwise else c.shape
            if c.by == self.party:
                self.hashed.append(Hashed(c.to, True, registers[c.mine], size))
            if c.to == self.party:
                self.hashed.append(Hashed(c.by, False, registers[c.theirs], size))

    def _multiplied(self, call: Call, shape: KernelPlan, registers: dict[int, int]) -> None:
        if self.party is None:
            return
        for m, shapes in zip(shape.multiplied, shapes_of_products(call, shape)):
            if self.party < len(m.values):
                held = tuple(registers[v] for v in m.values[self.party])
                self.products.append(Product(m.how, held, shapes, m.dtype))

    def _sends(self, placed: Placed, shape: KernelPlan, registers: dict[int, int], rounds: list[Round]) -> None:
        for number, sent in enumerate(shape.sent):
            if sent.src == self.party:
                message = message_of(placed.call, number, registers[sent.value])
                rounds[placed.round + sent.stage].sends.setdefault(sent.dst, []).append(message)

    def _task(
        self,
        call: Call,
        plans: dict[int | None, KernelPlan],
        index: int,
        registers: dict[int, int],
        base: dict[Holders, int],
    ) -> Task | None:
        stages = {length: p.stages[self.party][index] for length, p in plans.items()}
        first = next(iter(stages.values()))
        if not first.outputs:
            return None
        for value in first.outputs:
            registers[value] = next(self.fresh)
        at = f"{'all' if self.party is None else self.party}.{index}"
        unit = reference_plan(call)
        of_unit = (f"{unit.key}.{at}", unit.stages[self.party][index]) if call.spec.elementwise else ()
        return Task(
            stages={
                length or 0: Stage(
                    f"{p.key}.{at}",
                    stage_loader(f"{p.key}.{at}", stages[length], *of_unit),
                    stages[length].randoms,
                    p.draws,
                )
                for length, p in plans.items()
            },
            inputs=tuple(registers[v] for v in first.inputs),
            scalars=tuple(v < len(call.inputs) and call.spec.shapes[v] is not None for v in first.inputs),
            outputs=tuple(registers[v] for v in first.outputs),
            size=call.size if call.spec.elementwise else None,
            shapes=tuple(tuple(a.shape) for a in first.avals[: len(first.inputs)]),
            base=base,
            op=call.op,
            location=str(call.location),
        )


def _free(steps: list[ProgramStep], live: set[int]) -> None:
    """Walk backwards; what is not read later is freed where it is last read or made."""
    for step in reversed(steps):
        if isinstance(step, Straight):
            for round_ in reversed(step.rounds):
                moved = {m.register for ms in (*round_.sends.values(), *round_.receives.values()) for m in ms}
                round_.frees = tuple(moved - live)
                live |= moved
                for task in reversed(round_.tasks):
                    touched = {*task.inputs, *task.outputs}
                    task.frees = tuple(touched - live)
                    live |= touched
        else:
            touched = {r for r in _touched(step) if r is not None}
            step.frees = tuple(touched - live)
            live |= touched


def _touched(step: ProgramStep) -> Iterable[int | None]:
    match step:
        case LoopStep():
            return (*step.constants, *step.carries, *step.xs, *step.outputs)
        case CondStep():
            return (step.index, *step.operands, *step.outputs)
        case WhileStep():
            return (*step.condition_constants, *step.body_constants, *step.carries, *step.outputs)
        case RankStep():
            return (*step.words, step.output)
        case GuardStep():
            return (step.register,)
        case HashStep():
            return [h.register for h in step.hashed]
        case ProductStep():
            return [r for p in step.products for r in p.registers]
    return ()
