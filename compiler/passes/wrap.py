"""Integers narrower than the ring wrap around, as JAX's do, where it can be told.

Sums, products and shifts to the left are right modulo 2^bits in any ring; only what looks at the high bits
needs the number itself: comparisons, shifts to the right, bits, conversions to wider types. There, and at
the program's results, a value that may have left its type (see ir/bounds.py) is wrapped: 11 rounds and 123
bytes under ABY3, nothing if it only goes on as bits. Two cases need none: equality, and the sign of a signed
integer, which are those of the value shifted to the top of the ring.
"""

from __future__ import annotations

from spuvm.compiler.ir.bounds import Analysis, is_narrow, of_type, same_residue
from spuvm.compiler.ir.module import Module, Op, Region, Value
from spuvm.compiler.ir.ops import index_operands, infer
from spuvm.runtime.ring.elements import words

EACH = frozenset({"less", "and", "or", "xor", "not", "integer_division"})
EACH |= {"shift_right_logical", "shift_right_arithmetic", "prefix_or", "bit_parity", "convert"}


def wrap_integers(module: Module) -> None:
    """Insert `wrap` operations. The first of all passes: those after it may rely on what is within its type."""
    ring_bits = module.config["ring_bits"]
    _narrowing_as_bitcasts(module.body, ring_bits)
    analysis = Analysis(ring_bits)
    analysis.run(module.body, [of_type(v.type, ring_bits) for v in module.body.params])
    for region in _all(module.body):
        _Wrapper(region, analysis).run(results=region is module.body)


def _all(region: Region) -> list[Region]:
    return [region, *(r for op in region.ops for body in op.regions for r in _all(body))]


def _narrowing_as_bitcasts(region: Region, ring_bits: int) -> None:
    """An integer in a type that may not hold it: the same ring element, to be wrapped where it matters."""
    for op in region.walk():
        if op.name == "convert" and op.inputs[0].type.kind == "int" and is_narrow(op.output.type, ring_bits):
            low, high = of_type(op.inputs[0].type, ring_bits)
            if low < of_type(op.output.type, ring_bits)[0] or high > of_type(op.output.type, ring_bits)[1]:
                op.name = "bitcast"


def observed(op: Op, ring_bits: int) -> list[int]:
    """The operands whose high bits the operation looks at."""
    match op.name:
        case "cond":
            return [0]
        case "bitcast":
            return [] if same_residue(op, ring_bits) else [0]
        case "mul" | "dot":
            return [0, 1] if op.output.type.kind == "fxp" else []
        case "sort":  # the keys come first
            return list(range(len(op.inputs) - len(op.outputs)))
    if op.name in EACH:
        return list(range(len(op.inputs)))
    return list(index_operands(op.name, len(op.inputs)))


class _Wrapper:
    """Rewrites one region."""

    def __init__(self, region: Region, analysis: Analysis) -> None:
        self.region = region
        self.analysis = analysis
        self.out: list[Op] = []
        self.wrapped: dict[Value, Value] = {}
        self.made: dict[Value, Op] = {}

    def run(self, *, results: bool) -> None:
        for op in self.region.ops:
            self.made.update((v, op) for v in op.outputs)
            if op.name == "equal" and any(map(self._outside, op.inputs)):
                self._equal(op)
            elif op.name == "less" and self._is_sign(op):
                self._negative(op)
            else:
                for i in observed(op, self.analysis.ring_bits):
                    op.inputs[i] = self._within(op.inputs[i], op)
            self.out.append(op)
        if results:
            self.region.results = [self._within(v, self.made.get(v)) for v in self.region.results]
        self.region.ops = self.out

    def _outside(self, value: Value) -> bool:
        return is_narrow(value.type, self.analysis.ring_bits) and not self.analysis.inside(value)

    def _within(self, value: Value, like: Op | None) -> Value:
        """`value`, wrapped if it may be outside of its type."""
        if not self._outside(value):
            return value
        if value not in self.wrapped:
            self.wrapped[value] = self._emit("wrap", [value], like)
        return self.wrapped[value]

    def _emit(self, name: str, inputs: list[Value], like: Op | None, **attrs: object) -> Value:
        op = Op(name, inputs, [], attrs)
        op.location = like.location if like is not None else op.location
        op.outputs = [Value(t) for t in infer(op)]
        self.out.append(op)
        return op.output

    def _at_the_top(self, value: Value, like: Op) -> Value:
        """The low bits of an integer as the high bits of a number of the ring; the sign is that of the integer."""
        shifted = self._emit("shift_left", [value], like, bits=self.analysis.ring_bits - value.type.bits)
        return self._emit("bitcast", [shifted], like, to="fxp0")

    def _zero(self, like: Op) -> Value:
        shape = like.inputs[0].shape
        zero = self._emit("const", [], like, data=words(0, self.analysis.ring_bits), to="fxp0")
        return self._emit("broadcast", [zero], like, shape=shape, dims=()) if shape else zero

    def _equal(self, op: Op) -> None:
        """x = y modulo 2^bits."""
        difference = self._emit("sub", list(op.inputs), op)
        op.inputs = [self._at_the_top(difference, op), self._zero(op)]

    def _negative(self, op: Op) -> None:
        op.inputs = [self._at_the_top(op.inputs[0], op), self._zero(op)]

    def _is_sign(self, op: Op) -> bool:
        """Whether a value that may be outside of its type is compared with zero: x < 0."""
        x, y = op.inputs
        return self._outside(x) and x.type.signed and self.analysis.bounds[y] == (0, 0)
