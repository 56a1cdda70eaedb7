"""What each party learns from a program: what it reveals, and a proof for all else that moves.

For every coalition that the protocol's first line admits, and every kernel that is called, it is proved that what the
coalition is sent it could have drawn itself (see `masks`), given what the kernel shows on purpose. What is shown is
listed: reveals of the program; comparisons and places of elements that were shuffled by permutations of which each
coalition lacks one, so that they tell a random order; public control that a dealer follows. Each call has
randomness of its own, so that what holds of each holds of all. Nothing is claimed of what outputs say about inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from spuvm.compiler.expand.choreography import (
    Block,
    Call,
    Choreography,
    Cond,
    Guard,
    KernelSpec,
    Rank,
    Ranks,
    Slot,
    While,
)
from spuvm.compiler.leakage.masks import unproved
from spuvm.compiler.leakage.views import view
from spuvm.runtime.protocols.protocol import Protocol

GUARD = "whether a number left what the ring holds, here or before (the guard's bit)"
REVEAL, ORDER, CONTROL, OPENING, UNPROVED = "reveal", "order", "control", "opening", "not proved"


@dataclass(frozen=True)
class Learned:
    """Something that is shown to `who` (ranks), or that is not proved to be hidden from them."""

    kind: str
    who: Ranks
    what: str
    location: str


@dataclass(frozen=True)
class Statement:
    """Of one program; `parties` are all that take part, by rank, `security` is the protocol's promise."""

    parties: tuple[str, ...]
    security: str
    learned: tuple[Learned, ...]
    coalitions: tuple[Ranks, ...]
    kernels: int  # how many different ones were proved

    @property
    def refused(self) -> tuple[Learned, ...]:
        """What is not proved: nothing, for a program that may run."""
        return tuple(x for x in self.learned if x.kind == UNPROVED)

    def of(self, party: str) -> tuple[Learned, ...]:
        """What one party learns."""
        rank = self.parties.index(party)
        return tuple(x for x in self.learned if rank in x.who)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "security": self.security,
            "coalitions": [[self.parties[r] for r in sorted(c)] for c in self.coalitions],
            "kernels": self.kernels,
            "learns": {
                p: [{"kind": x.kind, "what": x.what, "line": x.location} for x in self.of(p)] for p in self.parties
            },
        }

    def __str__(self) -> str:
        lines = [f"security: {self.security}"]
        for party in self.parties:
            lines.append(
                f"{party} learns" + ("" if self.of(party) else " nothing but its own inputs and what is public")
            )
            lines += [f"  {x.what}  {x.location}".rstrip() for x in dict.fromkeys(self.of(party))]
        if not self.coalitions:
            lines.append("nothing is hidden: the protocol has no security")
        elif self.refused:
            lines.append(f"NOT PROVED: {len(self.refused)} of what is listed above")
        else:
            names = "; ".join(" with ".join(self.parties[r] for r in sorted(c)) for c in self.coalitions)
            lines.append(f"all other messages of {self.kernels} kernels are proved to say nothing to: {names}")
        return "\n".join(lines)

    __repr__ = __str__


def statement(choreography: Choreography, protocol: Protocol, parties: tuple[str, ...]) -> Statement:
    """The statement of a program; every kernel is proved once a process."""
    walk = _Walk(protocol, _guards(choreography.block))
    found = list(dict.fromkeys(walk.block(choreography.block)))
    return Statement(parties, protocol.security, tuple(found), protocol.coalitions, len(walk.proved))


@cache
def failures(spec: KernelSpec, coalition: Ranks) -> tuple[tuple[int, int], ...]:
    """The messages of a kernel, by sender and receiver, that are not proved to say nothing to the coalition."""
    left: tuple[tuple[int, int], ...] = ()
    for distribute in (False, True):
        seen = view(spec, coalition, distribute)
        shown = [r for r, h in zip(seen.results, spec.out_holders) if spec.shows and h & coalition]
        wrong = set(unproved(seen.expressions, seen.messages, [*shown, *seen.openings]))
        left = tuple(s for m, s in zip(seen.messages, seen.sent) if m in wrong) or ((-1, -1),) * bool(wrong)
        if not left:
            return ()
    return left


@cache
def shuffles(spec: KernelSpec, coalition: Ranks) -> bool:
    """Whether all that a kernel gives of its operands is in an order that depends on a permutation unknown to them."""
    seen = view(spec, coalition)
    leaves = [seen.expressions.leaves[r] for r in seen.results]
    rearranged = [x & seen.orders for x in leaves if x & seen.inputs]
    return bool(rearranged) and all(rearranged)


class _Walk:
    def __init__(self, protocol: Protocol, guards: frozenset[Slot] = frozenset()) -> None:
        self.protocol, self.guards = protocol, guards
        self.proved: set[KernelSpec] = set()
        self.made: dict[Slot, Call] = {}

    def block(self, block: Block) -> Iterator[Learned]:
        for step in block.walk():
            match step:
                case Call():
                    self.made.update((s, step) for s in step.outputs)
                    yield from self.call(step)
                case Rank():
                    for spec in (step.compare, step.opened):
                        yield from self.kernel(spec, step.op, str(step.location))
                    yield self.order(step.inputs, step.outputs[0].holders, str(step.location))
                case Cond() | While():
                    pass  # control is public, or was revealed by an operation of its own

    def call(self, call: Call) -> Iterator[Learned]:
        if not call.spec.communicates:
            return
        yield from self.kernel(call.spec, call.op, str(call.location))
        if not call.spec.shows:
            return
        shown, who = call.outputs[0], call.outputs[0].holders
        if call.op == "sort":
            yield self.order(call.inputs, who, str(call.location))
        elif shown in self.guards:
            yield Learned(REVEAL, who, GUARD, str(call.location))
        elif self.protocol.dealer in who:
            yield Learned(
                CONTROL,
                frozenset({self.protocol.dealer}),
                "which branch is taken, whether a loop goes on",
                str(call.location),
            )
        else:
            yield Learned(REVEAL, who, f"the revealed {_described(shown)}", str(call.location))

    def kernel(self, spec: KernelSpec, op: str, location: str) -> Iterator[Learned]:
        if not self.protocol.coalitions or spec in self.proved:
            return
        self.proved.add(spec)
        for coalition in self.protocol.coalitions:
            for src, dst in failures(spec, coalition):
                text = f"UNPROVED: what {spec.name} sends from rank {src} to rank {dst}"
                yield Learned(UNPROVED, coalition, text, location)
            if view(spec, coalition).openings:
                text = f"words that {spec.name} opens, uniform for the reason that its kernel states"
                yield Learned(OPENING, coalition, text, location)

    def order(self, slots: list[Slot], who: Ranks, location: str) -> Learned:
        if self.protocol.coalitions and not all(self.shuffled(s) for s in slots):
            return Learned(UNPROVED, who, "UNPROVED: comparisons of elements that were not shuffled", location)
        return Learned(ORDER, who, "comparisons of elements in a secret random order", location)

    def shuffled(self, slot: Slot) -> bool:
        """Whether a slot comes from a shuffle, by nothing but local work on it alone."""
        call = self.made.get(slot)
        if call is None:
            return False
        if not call.spec.communicates:
            return bool(call.inputs) and all(self.shuffled(s) for s in call.inputs)
        return all(shuffles(call.spec, c) for c in self.protocol.coalitions)


def _guards(block: Block) -> frozenset[Slot]:
    """The bits that stop a guarded program, and what is told of them."""
    found: set[Slot] = set()
    for step in reversed(list(block.walk())):
        if isinstance(step, Guard) or (isinstance(step, Call) and not found.isdisjoint(step.outputs)):
            found.update(step.inputs if isinstance(step, Guard) or step.op == "guarded" else ())
    return frozenset(found)


def _described(slot: Slot) -> str:
    word = "bool" if slot.dtype == "uint8" else "number"
    dims = ",".join(map(str, slot.shape))
    return f"{word}[{dims}]"
