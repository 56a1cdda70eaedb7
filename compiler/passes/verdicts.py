"""What bounds say of each line: that it is safe, that they cannot tell, or that they allow more than the ring holds.

An operation is safe if its result fits the ring, given what is stated of inputs and known of functions, and that what
came before it was right (passes/held.py). If inputs lead to it of which nothing is stated, or quotients and the like,
bounds cannot tell. If all are stated, what is stated allows numbers that the ring does not hold: the line is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Op, Region, Value
from spuvm.compiler.passes.held import ANYTHING, BELOW_ONE, Held
from spuvm.compiler.passes.overflow import Watch

SAFE, CANNOT_TELL, REFUSED = "safe", "cannot tell", "refused"
SAMPLE = "guard=True; the sample fits"
DIVISOR = "guard=True; the divisor may be small"
Key = tuple[str, str]  # line, operation

OPERATIONS = {"mul": "product", "dot": "product", "trunc": "product"}


@dataclass(frozen=True)
class Verdict:
    """`unbounded`: the inputs of which a bound would help to tell."""

    word: str
    unbounded: tuple[str, ...] = ()

    def joined(self, other: Verdict) -> Verdict:
        """Of several operations of a line, the worst."""
        order = (SAFE, CANNOT_TELL, REFUSED)
        word = max(self.word, other.word, key=order.index)
        return Verdict(word, tuple(dict.fromkeys((*self.unbounded, *other.unbounded))))

    @property
    def settled_by(self) -> str:
        if self.word == SAFE:
            return ""
        if self.word == REFUSED:
            return "smaller numbers, or ring=128"
        if self.unbounded in ((SAMPLE,), (DIVISOR,)):
            return self.unbounded[0]
        few = ", ".join(self.unbounded[:3]) + (", ..." if len(self.unbounded) > 3 else "")
        return f"a bound of {few}"


def key_of(op: Op) -> Key:
    """A number that is moved to more fraction bits is `aligned`."""
    aligned = op.name == "shift_left" and op.output.type.kind == "fxp"
    return str(op.location), "aligned" if aligned else OPERATIONS.get(op.name, op.name)


def line_of(key: Key) -> str:
    """As it stands in `module.refused`."""
    return f"{key[0]} ({key[1]})"


def verdicts(module: Module) -> dict[Key, Verdict]:
    """Of the lines that are not safe. The module is as scales leave it: functions are operations."""
    frac, ring_bits = module.config["fxp_fraction_bits"], module.config["ring_bits"]
    held = Held(ring_bits, frac)
    held.module(module)
    sources = _Sources(module)
    found: dict[Key, Verdict] = {}
    for region in _regions(module.body):
        for op in _unsafe(region, Watch(Builder(frac, ring_bits), held, {})):
            unbounded = tuple(sorted({name for v in op.inputs for name in sources.of.get(v, ())}))
            if op.name == "div" and not unbounded and not module.ranges:
                unbounded = (DIVISOR,)
            if module.ranges:  # the sample says what is not stated
                unbounded = () if line_of(key_of(op)) in module.refused else unbounded or (SAMPLE,)
            verdict = Verdict(CANNOT_TELL if unbounded else REFUSED, unbounded)
            found[key_of(op)] = found[key_of(op)].joined(verdict) if key_of(op) in found else verdict
    return found


def judge(module: Module) -> None:
    """A pass that changes nothing but `module.refused`: where bounds are stated, the lines that they refuse."""
    if module.ranges:  # what follows from them is not stated
        return
    inside = any(op.stated is not None for op in module.body.walk())
    if inside or any(b is not None for b in module.bounds):
        lines = [line_of(key) for key, v in verdicts(module).items() if v.word == REFUSED]
        module.refused = tuple(dict.fromkeys(lines))


def _regions(region: Region) -> list[Region]:
    return [region, *(r for op in region.walk() for r in op.regions)]


def _unsafe(region: Region, watch: Watch) -> Iterator[Op]:
    """The operations that a guarded program would check."""
    for op in region.ops:
        if op.name == "const":
            watch.constants[op.output] = op
        if op.name in ("broadcast", "reshape") and op.inputs[0] in watch.constants:
            watch.constants[op.output] = watch.constants[op.inputs[0]]
        if op.stated is None and watch.of(op):
            yield op


class _Sources:
    """`of` each value, the inputs without a bound that it is computed from, and may be large for."""

    def __init__(self, module: Module) -> None:
        bounds = module.bounds or (None,) * len(module.inputs)
        self.of: dict[Value, frozenset[str]] = {}
        for name, param, bound in zip(module.inputs, module.body.params, bounds, strict=True):
            numbers = param.type.kind == "fxp" or (param.type.kind == "int" and param.type.bits >= 64)
            self.of[param] = frozenset({name} if bound is None and numbers else ())
        self.region(module.body)

    def region(self, region: Region) -> None:
        for op in region.ops:
            given = frozenset().union(*(self.of.get(v, frozenset()) for v in op.inputs))
            for _ in range(2 if op.regions else 0):  # what loops carry may be of any of it
                for inner in op.regions:
                    self.of.update((p, given) for p in inner.params)
                    self.region(inner)
                    given = given.union(*(self.of.get(v, frozenset()) for v in inner.results))
            if op.name in ANYTHING:
                given = frozenset({f"the result of `{op.name}`"})
            none = op.stated is not None or op.name in BELOW_ONE
            self.of.update((v, frozenset() if none or v.type.kind == "bool" else given) for v in op.outputs)
