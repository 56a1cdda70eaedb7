"""Running kernels, IR modules and choreographies: simulated, and as parties over links in memory.

`both` is the workhorse: it runs a module in both ways with the same stream keys, asserts that every
share is bit-identical and that rounds and bytes are those that `cost` predicts, and returns the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.cost import Cost, cost
from spuvm.compiler.expand import choreography as ch
from spuvm.compiler.expand.expand import expand
from spuvm.compiler.expand.expander import Expander, Shared, group
from spuvm.compiler.expand.rules import EXPAND
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Type, Value
from spuvm.compiler.ir.ops import check, parse_element
from spuvm.compiler.project.equations import bind_equation
from spuvm.compiler.project.project import project
from spuvm.runtime.engine.primitives import PERMUTATION, random_p, send_p
from spuvm.runtime.link.link import Counters
from spuvm.runtime.link.memory_link import MemoryLink, memory_links
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.machine.program import Holders, PartyProgram
from spuvm.runtime.protocols.algebra import Algebra, Summands
from spuvm.runtime.protocols.protocol import Kernel, Protocol
from spuvm.runtime.protocols.ranking import ranking
from spuvm.runtime.protocols.sharings import element, reconstruct, slots
from spuvm.runtime.ring import elements
from spuvm.runtime.ring.elements import RING_DTYPE, WIDE, Word, limbs

Raw = NDArray[Any]
Components = list[Any]

EDGES = (0, 1, -1, 2**61, -(2**61), 2**62 - 1, -(2**62), 2**63 - 1, -(2**63))
TIMEOUT = 60.0
SUMMANDS = Summands(1)  # to reconstruct, of any number


# IR modules ------------------------------------------------------------------------------------------


def type_of(element: str, shape: Sequence[int] = (), visibility: int | str = "secret") -> Type:
    return parse_element(element).with_(shape=tuple(shape), visibility=visibility)


def module(build: Callable[..., Sequence[Value]], *types: Type, frac: int = 18, ring: int = 64) -> Module:
    """The checked module of `build(b, *inputs)`, which returns the results."""
    b = Builder(frac, ring)
    params = [Value(t) for t in types]
    b.region.params = params
    b.region.results = list(build(b, *params))
    inputs, outputs = (tuple(f"{c}{i}" for i in range(len(vs))) for c, vs in (("x", params), ("y", b.region.results)))
    made = Module("main", b.region, inputs, outputs, config={"ring_bits": ring, "fxp_fraction_bits": frac})
    check(made)
    return made


# Shares ----------------------------------------------------------------------------------------------


def key(holders: Holders) -> bytes:
    """Stream keys for tests: known to all, equal in simulated and networked runs."""
    return bytes([len(holders), *(h % 251 for h in holders)]).ljust(16, b"k")[:16]


def split(raw: Raw, kind: str, algebra: Algebra, rng: np.random.Generator, bits: int = 64) -> Components:
    """The slots of a random sharing of `raw`: ring elements, or words of `bits` significant bits."""
    if kind in "pv":
        return list(limbs(raw))

    def draw() -> Any:
        if raw.dtype == WIDE:
            return Word(*(rng.integers(0, 2**64 - 1, raw.shape, np.uint64, endpoint=True) for _ in range(2)))
        high = min(bits if kind == "b" else 64, 8 * raw.dtype.itemsize)
        if high < 64:
            return rng.integers(0, 2**high, raw.shape, raw.dtype, endpoint=False)
        return rng.integers(0, 2**64 - 1, raw.shape, np.uint64, endpoint=True)

    with np.errstate(over="ignore"):
        return slots(algebra.split(kind, element(limbs(raw)), draw))


def words(values: Sequence[int], ring: int = 64) -> Raw:
    """Python integers modulo 2^ring."""
    return elements.words(np.array(values, object), ring)


def random_words(rng: np.random.Generator, n: int, ring: int = 64) -> Raw:
    """`n` ring elements: the edge cases first, then uniform ones."""
    raw = np.frombuffer(rng.bytes(n * ring // 8), RING_DTYPE[ring]).copy()
    edges = words(EDGES if ring == 64 else edges_of(ring), ring)[:n]
    raw[: len(edges)] = edges
    return raw


def edges_of(ring: int) -> tuple[int, ...]:
    """The numbers where something changes: signs, the limits of truncation, and the limbs' borders."""
    k = ring
    return tuple(s * 2**e + d for e in (0, k // 2, k - 3, k - 2, k - 1) for s in (1, -1) for d in (0, -1))


def signed(x: Any) -> NDArray[Any]:
    """Ring elements as signed integers; bools and narrow words as those of the ring of 64 bits."""
    raw = np.asarray(x)
    return elements.signed(raw if raw.dtype in RING_DTYPE.values() else raw.astype(np.uint64))


# Running ---------------------------------------------------------------------------------------------


def program(choreography: ch.Choreography, party: int | None) -> PartyProgram:
    names = [tuple(str(i) for i in range(len(ps))) for ps in (choreography.inputs, choreography.outputs)]
    made = project(choreography, party, (names[0], names[1]))
    made.prepare()
    return made


def shared_inputs(
    choreography: ch.Choreography, raws: Sequence[Raw], bits: int = 64, algebra: Algebra | None = None
) -> Components:
    """The flat components of the inputs, the same for every party and run; they add up if no algebra says else."""
    rng = np.random.default_rng(1)
    out: Components = []
    for port, raw in zip(choreography.inputs, raws, strict=True):
        raw = np.asarray(raw)
        if raw.dtype != WIDE:
            raw = raw.astype(port.slots[0].dtype)
        assert raw.shape == port.slots[0].shape
        used = algebra or Summands(len(port.slots) // len(limbs(raw)), masked=len(port.slots) - 1)
        if port.kind == "h":  # the value, then what the others hold of it
            out += [raw, *split(raw.astype(np.uint64), "m", used, rng)]
            continue
        out += split(raw, port.kind, used, rng, 1 if raw.dtype == np.uint8 and bits >= 32 else bits)
    return out


def values(choreography: ch.Choreography, components: Components, algebra: Algebra = SUMMANDS) -> list[Raw]:
    """The results from all their components."""
    out, at = [], 0
    wide = any(isinstance(s, ch.Call) and s.spec.limbs == 2 for s in choreography.block.walk())
    for port in choreography.outputs:
        n = len(port.slots)
        masked = port.kind == "h"  # the value itself is the first component
        each = 2 if wide and port.slots[-1].dtype == "uint64" else 1
        got = reconstruct(algebra, "m" if masked else port.kind, components[at + masked : at + n], each)
        out.append(got.astype(port.slots[0].dtype) if masked else got)
        at += n
    return out


def simulate(
    choreography: ch.Choreography, inputs: Components, streams: Streams | None = None, runs: int = 1
) -> Components:
    """The output components of the last of `runs` simulated runs."""
    executor = Executor(streams or Streams(key, None))
    made = program(choreography, None)
    for _ in range(runs):
        out = executor.run(made, inputs)
    return [np.asarray(x) for x in out]


def run_parties(work: Callable[[int, MemoryLink], Any], n: int = 3, timeout: float = TIMEOUT) -> list[Any]:
    """`work(rank, link)` at every party, each in a thread; the first cause is raised if one fails."""
    links = memory_links(tuple(f"party{i}" for i in range(n)), timeout=timeout)

    def guarded(rank: int) -> Any:
        try:
            return work(rank, links[rank])
        except BaseException as e:
            links[rank].abort(f"{type(e).__name__}: {e}")
            raise

    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(guarded, rank) for rank in range(n)]
    errors = [e for f in futures if (e := f.exception()) is not None]
    if errors:
        raise min(errors, key=lambda e: "Peer" in type(e).__name__)
    return [f.result() for f in futures]


def network(
    choreography: ch.Choreography,
    inputs: Components,
    runs: int = 1,
    streams: Callable[[int], Streams] = lambda party: Streams(key, party),
    n: int | None = None,
) -> tuple[list[Components], list[Counters]]:
    """Each party's output components of the last run (None: not held), and the links' counters of all."""
    slots = [s for port in choreography.inputs for s in port.slots]
    n = n or len(frozenset().union(*(s.holders for s in all_slots(choreography.block))))

    def work(rank: int, link: MemoryLink) -> tuple[Components, Counters]:
        made = program(choreography, rank)
        mine = [x if rank in s.holders else None for s, x in zip(slots, inputs, strict=True)]
        executor = Executor(streams(rank), link)
        for _ in range(runs):
            out = executor.run(made, mine)
        return [None if x is None else np.asarray(x) for x in out], link.counters

    results = run_parties(work, n)
    return [r for r, _ in results], [c for _, c in results]


def all_slots(block: ch.Block) -> Iterator[ch.Slot]:
    yield from block.params
    yield from (s for s, _ in block.constants)
    for step in block.walk():
        yield from step.outputs


def assert_same_shares(choreography: ch.Choreography, whole: Components, parties: list[Components]) -> None:
    """Every party holds exactly the components that it should, with the bits of the simulated run."""
    slots = [s for port in choreography.outputs for s in port.slots]
    for rank, held in enumerate(parties):
        for slot, simulated, mine in zip(slots, whole, held, strict=True):
            if rank not in slot.holders:
                assert mine is None, f"party {rank} holds a component that it should not"
            else:
                assert mine is not None
                assert mine.shape == simulated.shape
                np.testing.assert_array_equal(mine, simulated)


def assert_cost(predicted: Cost, counters: list[Counters], runs: int = 1) -> None:
    """What the links counted is what was predicted, for every party."""
    assert [c.rounds for c in counters] == (runs * predicted.party_rounds).tolist()
    assert [sum(c.bytes_sent.values()) for c in counters] == (runs * predicted.bytes_sent).tolist()


def predicted_cost(choreography: ch.Choreography, n: int = 3) -> Cost:
    return cost(choreography, tuple(f"party{i}" for i in range(n)))


def ranks(protocol: Protocol) -> int:
    """How many take part: parties, others, and a dealer."""
    return protocol.world_size + protocol.others + (protocol.dealer is not None)


def both(program_: Module | ch.Choreography, protocol: Protocol, raws: Sequence[Raw], bits: int = 64) -> list[Raw]:
    """Simulated and networked: shares are identical, costs as predicted. The values of the results."""
    choreography = expand(program_, protocol) if isinstance(program_, Module) else program_
    inputs = shared_inputs(choreography, raws, bits, protocol.algebra)
    whole = simulate(choreography, inputs)
    parties, counters = network(choreography, inputs, n=ranks(protocol))
    assert_same_shares(choreography, whole, parties)
    if (predicted := predicted_cost(choreography, len(parties))).exact:
        assert_cost(predicted, counters)
    return values(choreography, whole, protocol.algebra)


def simulated(program_: Module | ch.Choreography, protocol: Protocol, raws: Sequence[Raw], bits: int = 64) -> list[Raw]:
    """The values of the results of a simulated run."""
    choreography = expand(program_, protocol) if isinstance(program_, Module) else program_
    inputs = shared_inputs(choreography, raws, bits, protocol.algebra)
    return values(choreography, simulate(choreography, inputs), protocol.algebra)


# Single kernels --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A kernel of a protocol's table with one choice of parameters. `width`: bits of a boolean element."""

    kernel: Kernel
    params: tuple[tuple[str, Any], ...]
    width: int
    ring: int = 64

    def input_bits(self, position: int) -> int:
        """Of an element of the operand's array."""
        kind = self.kernel.inputs[position]
        boolean = kind == "b" or (kind == "v" and self.kernel.output == "b")
        return max(self.width, 8) if boolean else self.ring

    def input_dtype(self, position: int) -> np.dtype[Any]:
        """On the host."""
        bits = self.input_bits(position)
        return WIDE if bits == 128 else np.dtype(f"uint{bits}")

    def __str__(self) -> str:
        return "-".join([self.kernel.name, *(f"{k}={v}" for k, v in self.params if k != "dims")])


# What the parameters of kernels may be; a kernel with a parameter of another name needs a line here.
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "owner": (0, 1, 2),
    "dims": ((((1,), (0,)), ((), ())),),
    "weights": (
        tuple((round(a * 2**40), round(-a * 2**38)) for a in (0.9, 0.4, -0.001, 3e-6)),
    ),  # words of 64, 48, 40 and 32 bits
    "step": (1, 2),
    "factors": ((1, -2),),  # the first alone, of one bool
    "tops": ((0, 5),),
    "frac": (18, 57),
}
WIDTHS = {"and_bb": (1, 2, 4, 8, 16, 32, 64)}  # boolean kernels take bools and words if not here
TRUNCATIONS = {32: (1, 8, 20), 64: (1, 18, 31, 32, 45), 128: (1, 26, 40, 63, 64, 80)}
ONE_BIT = ("power_b", "position_b")  # kernels on words of one bit
BOOLS = ("bit2a", "exp2_ab", "exp2_abb")  # kernels without `bits` on bools


def _choices(kernel: Kernel, name: str, ring: int) -> tuple[Any, ...]:
    if name == "ring":
        return (ring,)
    if name != "bits":
        return PARAMETERS[name]
    if "b" not in kernel.inputs + kernel.output:
        return TRUNCATIONS[ring]
    return (*(w for w in WIDTHS.get(kernel.name, (1,)) if w < ring), ring)


def cases(protocol: Protocol, ring: int = 64) -> list[Case]:
    """Every kernel of the protocol with every choice of its parameters."""
    out = []
    for kernel in protocol.kernels.values():
        parameters = inspect.signature(kernel.function).parameters.values()
        names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        for chosen in product(*(_choices(kernel, n, ring) for n in names)):
            params = dict(zip(names, chosen))
            width = 1 if kernel.name in BOOLS else params.get("bits", ring)
            boolean = "b" in kernel.inputs + kernel.output
            out.append(Case(kernel, tuple(sorted(params.items())), width if boolean else ring, ring))
    return out


def flat_avals(case: Case, protocol: Protocol, shapes: Sequence[tuple[int, ...]]) -> list[jax.ShapeDtypeStruct]:
    """The types of all components of the operands."""
    owner = dict(case.params).get("owner")
    return [
        jax.ShapeDtypeStruct(shape, limb.dtype)
        for i, (kind, shape) in enumerate(zip(case.kernel.inputs, shapes, strict=True))
        for _ in protocol.components(kind, owner)
        for limb in limbs(np.empty((), case.input_dtype(i)))
    ]


def traced(case: Case, protocol: Protocol, shapes: Sequence[tuple[int, ...]]) -> Any:
    """The kernel's closed jaxpr over the components of its operands."""
    counts = tuple(len(limbs(np.empty((), case.input_dtype(i)))) for i in range(len(case.kernel.inputs)))
    arity = tuple(len(protocol.components(kind, 0)) * n for kind, n in zip(case.kernel.inputs, counts))
    return _traced(case, counts, arity, tuple(flat_avals(case, protocol, shapes)))


@functools.lru_cache(maxsize=256)  # all kernels of a protocol: tests go through them again and again
def _traced(case: Case, counts: tuple[int, ...], arity: tuple[int, ...], avals: tuple[Any, ...]) -> Any:
    def flat(*arrays: Any) -> Any:
        return case.kernel.function(*group(arrays, arity, counts), **dict(case.params))

    with jax.enable_x64(True):
        return jax.make_jaxpr(flat)(*avals)


def shapes_of(case: Case, n: int) -> list[tuple[int, ...]]:
    """Operands of about `n` elements."""
    kinds = case.kernel.inputs
    if case.kernel.elementwise:
        return [(n,)] * len(kinds)
    left: tuple[int, ...] = (n // 8, 8)
    right: tuple[int, ...] = (8, 5)
    return {"vma": [left, left, right], "avm": [left, right, right]}.get(kinds, [left, right])


def kernel_choreography(case: Case, protocol: Protocol, shapes: Sequence[tuple[int, ...]]) -> ch.Choreography:
    """A program of one call."""
    ex = Expander(EXPAND, protocol, case.ring)
    kernel, owner = case.kernel, dict(case.params).get("owner")
    operands = []
    for i, (kind, shape) in enumerate(zip(kernel.inputs, shapes, strict=True)):
        dtype = limbs(np.empty((), case.input_dtype(i)))[0].dtype.name
        slots = tuple(ex.slots(shape, dtype, protocol.components(kind, owner)))
        operands.append(Shared(kind, slots, owner if kind in "vm" else None))
    like = shapes_of(case, 8) if kernel.elementwise else shapes  # so that sizes share what is traced
    result = traced(case, protocol, like).out_avals[0]
    out = ex.emit(
        kernel.name,
        kernel.function,
        operands,
        kernel.output,
        shape=tuple(np.broadcast_shapes(*shapes)) if kernel.elementwise else tuple(result.shape),
        dtype=result.dtype.name,
        owner=owner if kernel.output in "vm" else None,
        elementwise=kernel.elementwise,
        communicates=True,
        params=case.params,
    )
    ports = [ch.Port(x.kind, x.owner, x.slots) for x in operands]
    ex.block.params = [s for x in operands for s in x.slots]
    ex.block.results = list(out.slots)
    return ch.Choreography(ex.block, ports, [ch.Port(out.kind, out.owner, out.slots)])


def random_operands(case: Case, shapes: Sequence[tuple[int, ...]], seed: int = 0) -> list[Raw]:
    """Plain operands: edge cases and uniform values of the case's dtypes and widths."""
    rng = np.random.default_rng(seed)
    out: list[Raw] = []
    for i, shape in enumerate(shapes):
        raw = random_words(rng, int(np.prod(shape, dtype=int)), case.ring)
        raw = np.roll(raw, i * 3).reshape(shape)  # so that edge cases meet others
        if case.input_bits(i) != case.ring:
            raw = rng.integers(0, 2**case.width - 1, shape, np.uint64, endpoint=True).astype(case.input_dtype(i))
        if case.kernel.name in ONE_BIT:  # below the highest
            raw = np.uint64(1) << raw % np.uint64(63) | (raw & np.uint64(1 << 63))
        out.append(out[-1] if case.kernel.inputs[i] == "m" else raw)  # m is what the others hold of v
    return out


# Kernels without compilation: what each party is sent --------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A message of a kernel as the interpreter saw it; `bits` per element that may be other than zero."""

    src: int
    dst: int
    bits: int
    data: Raw


# Of unsigned words, where NumPy means the same; a kernel has a thousand of these, and calling JAX costs more than they.
IN_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "shift_left": np.left_shift,
    "shift_right_logical": np.right_shift,
    "convert_element_type": lambda x: x,
}


@np.errstate(over="ignore")  # of scalars: words wrap around
def interpret(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], draw: Callable[..., Any], sent: list[Sent]
) -> list[Any]:
    """Evaluate a kernel's jaxpr; `draw(holders, shape, dtype)` gives its randomness, `sent` collects."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts)) | dict(zip(jaxpr.invars, args))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else env[atom]

    for eqn in jaxpr.eqns:
        ins = [read(a) for a in eqn.invars]
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if eqn.primitive is random_p:
            outs = [draw(eqn.params["holders"], eqn.params["shape"], eqn.params["dtype"])]
        elif eqn.primitive is send_p:
            width = eqn.params["bits"] or 8 * ins[0].dtype.itemsize
            sent.append(Sent(eqn.params["src"], eqn.params["dst"], width, np.asarray(ins[0])))
            outs = ins
        elif inner is not None:
            outs = interpret(inner.jaxpr, inner.consts, ins, draw, sent)
        elif eqn.primitive.name in IN_NUMPY and eqn.outvars[0].aval.dtype.kind in "ub":
            made = IN_NUMPY[eqn.primitive.name](*map(np.asarray, ins))
            outs = [np.asarray(made, eqn.outvars[0].aval.dtype)]
        else:
            made = bind_equation(eqn, ins)
            outs = list(made) if eqn.primitive.multiple_results else [made]
        env.update(zip(eqn.outvars, outs))
    return [read(v) for v in jaxpr.outvars]


# Choreographies without compilation ------------------------------------------------------------------


class Interpreter:
    """Runs a choreography call by call, each kernel's function as it stands: no schedule, no projection."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def run(self, choreography: ch.Choreography, inputs: Components) -> list[Raw]:
        with jax.enable_x64(True):
            return values(choreography, self.block(choreography.block, inputs))

    def block(self, block: ch.Block, inputs: Components) -> Components:
        env: dict[ch.Slot, Any] = dict(block.constants) | dict(zip(block.params, inputs, strict=True))
        for step in block.steps:
            outs = self.step(step, [env[s] for s in step.inputs])
            for slot, x in zip(step.outputs, outs, strict=True):
                assert x.shape == slot.shape, f"{step.op}: a component of shape {x.shape} is said to be {slot.shape}"
                assert x.dtype == slot.dtype
                env[slot] = x
        return [np.asarray(env[s]) for s in block.results]

    def step(self, step: ch.Step, ins: Components) -> Components:
        match step:
            case ch.Call():
                return self.call(step, ins)
            case ch.Loop():
                return self.loop(step, ins)
            case ch.Cond():
                choice = int(signed(ins[0]))
                return self.block(step.branches[min(max(choice, 0), len(step.branches) - 1)], ins[1:])
            case ch.While():
                a, b = len(step.condition_constants), len(step.body_constants)
                carry = ins[a + b :]
                while self.block(step.condition, [*ins[:a], *carry])[0]:
                    carry = self.block(step.body, [*ins[a : a + b], *carry])
                return carry
            case ch.Rank():
                return self.rank(step, ins)
            case ch.Check() | ch.Guard():
                return []

    def rank(self, step: ch.Rank, ins: Components) -> Components:
        flat = [np.asarray(x).reshape(-1) for x in ins]

        def compare(first: Raw, second: Raw) -> Raw:
            (bits,) = self.block(step.batch(len(first)), [x[which] for which in (first, second) for x in flat])
            return np.asarray(bits)

        order = ranking(step.rows, step.length, step.wanted, compare)
        return [order.view(np.uint64).reshape(step.rows, step.length)]

    def loop(self, step: ch.Loop, ins: Components) -> Components:
        k, c = len(step.constants), len(step.carries)
        carry, rows = ins[k : k + c], []
        for trip in reversed(range(step.trips)) if step.reverse else range(step.trips):
            out = self.block(step.body, [*ins[:k], *carry, *(np.asarray(x)[trip, ...] for x in ins[k + c :])])
            carry = out[:c]
            rows.append(out[c:])
        rows = rows[::-1] if step.reverse else rows
        empty = [np.zeros(s.shape, s.dtype) for s in step.outputs[c:]]
        return [*carry, *([np.stack(ys) for ys in zip(*rows)] if rows else empty)]

    def call(self, call: ch.Call, ins: Components) -> Components:
        """Element-wise kernels see flat blocks."""
        spec = call.spec
        if spec.elementwise:
            ins = [x if x.shape == () else x.reshape(-1) for x in ins]
        if spec.communicates:
            closed = _closed(spec.function, tuple((x.shape, np.dtype(x.dtype).name) for x in ins))
            outs = interpret(closed.jaxpr, closed.consts, ins, self.draw, [])
        else:
            outs = list(spec.function(*ins))
        return [x.reshape(s.shape) if x.size == s.size else x for x, s in zip(outs, call.outputs, strict=True)]

    def draw(self, holders: Holders, shape: tuple[int, ...], dtype: str) -> Raw:
        if dtype == PERMUTATION:
            return self.rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
        size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        return np.frombuffer(self.rng.bytes(size), dtype).reshape(shape)


@functools.cache
def _closed(function: Callable[..., Any], types: tuple[tuple[tuple[int, ...], str], ...]) -> Any:
    avals = [jax.ShapeDtypeStruct(s, np.dtype(d)) for s, d in types]
    return jax.make_jaxpr(function)(*avals)
