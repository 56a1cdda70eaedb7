"""One region with the scales of its values: which bits each has and has room for, and how it is rewritten.

What single operations take and give is in passes/scaled_sums.py and passes/scaled_quotients.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from spuvm.compiler.ir.fixedpoint import encode
from spuvm.compiler.ir.module import Op, Region, Value, uses
from spuvm.compiler.ir.ops import with_results
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.wishes import NO_WISH, REARRANGED, Pins, Wanted
from spuvm.runtime.ring.elements import words

MOST = {32: 6, 64: 20, 128: 40}  # extra bits of what is multiplied
MOST_MEASURED = {32: 8, 64: 36, 128: 76}  # of calibrated programs
MOST_HALVINGS = 20  # of a number, by moving the point

ALIGNED = frozenset({"add", "sub", "select", "less", "equal", "concatenate", "pad", "scatter", "dynamic_update_slice"})
CARRIED = REARRANGED | ALIGNED | {"bitcast", "shift_left", "convert"}


def is_raw(op: Op, frac: int, extra: int = 0) -> bool:
    """Whether an algorithm with formats of its own reads ring elements: a bitcast that does not halve numbers.

    `extra`: bits that the operand has been given already.
    """
    if op.name != "bitcast" or op.inputs[0].type.kind != "fxp":
        return False
    source, target = op.inputs[0].type, op.output.type
    return target.kind != "fxp" or source.frac - extra != frac or not 0 <= target.frac - frac <= MOST_HALVINGS


class Scaler:
    """Rewrites one region. `extra` are the fraction bits of each value beyond those it was lowered with."""

    def __init__(
        self,
        region: Region,
        limits: Limits,
        frac: int,
        ring_bits: int,
        finer: dict[Value, int],
        successors: dict[Value, Value] | None,
        pins: Pins,
        states: dict[Value, int],
        rules: Mapping[str, Callable[[Scaler, Op], None]],
    ) -> None:
        """`successors`: results that are so fine that a root can be taken of them leave so, and as fine as the input of
        the next call wants them. `states`: results that leave with so many extra bits, whatever they were made of.
        """
        self.region, self.limits, self.frac, self.ring_bits = region, limits, frac, ring_bits
        self.keeps_scales = successors is not None
        self.pins, self.rules = pins, rules
        self.wanted = Wanted(limits, pins)
        self.wanted.run(region)
        for param, result in (successors or {}).items():
            if self.wanted.of.get(param, NO_WISH).below >= self.limits.roots:
                self.wanted.ask(result, 0.0, self.limits.roots)
        for result, bits in states.items():
            self.wanted.ask(result, 0.0, bits)
        self.wanted.run(region)
        self.extra: dict[Value, int] = {v: bits for v, bits in finer.items() if bits}
        self.out: list[Op] = []
        self.aligned: dict[tuple[Value, int], Value] = {}
        self.states = states
        self.limited: set[Value] = set()  # whose limits are lower than those of a promise
        self.constants: dict[Value, list[Op]] = {}  # a constant's operation, and the broadcast of it
        self.made: dict[Value | None, tuple[str, list[Value]]] = {}
        self.at_hand: Op | None = None
        self.pinned = self._pinned()
        self.raw = {op.inputs[0] for op in region.ops if is_raw(op, frac)}
        self.factors, self.free = self._factors(), self._factors(free=True)
        self.shared = self._shared() if limits.measured else {}
        self.uses = {v: len(users) for v, users in uses(region).items()}
        self.wider: dict[Value, Value] = {}  # what a value is the truncation of, or another reading

    def run(self) -> list[int]:
        starts = []
        for op in self.region.ops:
            starts.append(len(self.out))
            self._visit(op)
        ends = len(self.out)
        for i, value in enumerate(self.region.results):
            kept = self.pins.results.get((self.region, i)) or self._kept(value)
            self.region.results[i] = self.at(value, kept, self._maker(value) if self.of(value) < 0 else None)
        self.region.ops = self.out
        return [*starts, ends]

    def _pinned(self) -> set[Value]:
        """Values that something reads which takes no extra bits: truncated twice they would cost more."""
        found = {
            v
            for i, v in enumerate(self.region.results)
            if (self.region, i) not in self.pins.results
            and v not in self.states
            and not (self.keeps_scales and self.wanted.of.get(v, NO_WISH).below >= self.limits.roots)
        }
        for op in self.region.ops:
            if op.name not in self.rules:
                found.update(v for i, v in enumerate(op.inputs) if (op, i) not in self.pins.operands)
        return found

    def _kept(self, result: Value) -> int:
        """Extra bits that a result leaves with."""
        fine = self.keeps_scales and result.type.is_secret and self.of(result) >= self.limits.roots
        return self.states.get(result, self.limits.roots if fine else 0)

    def of(self, value: Value) -> int:
        return self.extra.get(value, 0)

    def factor_room(self, value: Value) -> int:
        """Extra bits that a factor may have, so that products keep their limit; if all are measured, their own."""
        if value in self.shared:
            return self.shared[value]
        if not value.type.frac and not self.of(value):
            return 0
        return max(0, min(self.spare(value) + self.frac - self.lowered(value), self._most(value)))

    def _most(self, value: Value) -> int:
        return MOST_MEASURED[self.ring_bits] if value in self.limits.digits else MOST[self.ring_bits]

    def spare(self, value: Value) -> int:
        """Fraction bits that the limit of a factor leaves beyond the default; of a known one, that 1 would leave."""
        limit = self.limits.of[value]
        return math.floor((0.0 if limit.known else self.limits.most) - limit.product + 1e-9)

    def lowered(self, value: Value) -> int:
        return value.type.frac - self.of(value)

    def room(self, value: Value) -> int:
        """Extra bits that fit the ring: |raw| < 2^(k-2). Of what is stated to be large, less than none; a bit in hand,
        as roundings go beyond a bound.
        """
        limit = self.limits.of[value]
        fewer = self.limits.stated and limit.known and self.lowered(value) == self.frac
        fits = math.floor(self.limits.top - fewer - self.lowered(value) - limit.whole + 1e-9)
        return max(fits, -self.frac if fewer else 0)

    def wish(self, value: Value) -> int:
        """What a value that may choose takes: even, so that there are few distinct truncations.

        None where lowering chose a format of its own.
        """
        if self.lowered(value) != self.frac:
            return 0
        wish = self.wanted.of.get(value, NO_WISH)
        factor, anywhere = self.factor_room(value), self.room(value)
        if anywhere < 0:
            return anywhere - anywhere % 2
        wide = min(wish.below, anywhere)
        bits = max(0.0, min(max(wish.bits, wish.below), factor, anywhere), wide)
        most = max(factor, anywhere) if wide > factor else min(factor, anywhere)
        return min(2 * math.ceil(bits / 2), most - most % 2)

    def _shared(self) -> dict[Value, int]:
        """Of what is multiplied, half of the room that the products leave; nothing of what is not measured."""
        found: dict[Value, int] = {}
        for op in self.region.ops:
            if op.name not in ("mul", "dot"):
                continue
            for v in op.inputs:
                other = op.inputs[op.inputs[0] is v]
                half = 1 if other.type.frac == 0 or other.type.is_public else 2
                fits = self.room(op.output) // half if self.limits.of[op.output].known else -1
                found[v] = min(found.get(v, self._most(v)), fits)
        return {v: room for v, room in found.items() if room >= 0 and self.limits.of[v].known}

    def is_multiplied(self, value: Value) -> bool:
        return value in self.factors

    def is_scaled_down(self, value: Value) -> bool:
        """Whether products leave a value below a root or a quotient all its bits: those by known numbers up to 1."""
        wish = self.wanted.of.get(value, NO_WISH)
        return value not in self.free and max(wish.bits, wish.below) >= self.limits.numerators

    def _factors(self, free: bool = False) -> set[Value]:
        """What is multiplied, or pinned, at last; `free`: by any number, not by known ones up to 1 alone."""
        found = {
            v
            for op in self.region.ops
            if op.name in ("mul", "dot")
            for v, other in zip(op.inputs, op.inputs[::-1])
            if not (free and (limit := self.limits.of.get(other)) and limit.known and limit.whole <= 0)
        } | self.pinned
        for op in reversed(self.region.ops):
            if op.name in CARRIED and any(v in found and v.type.kind == "fxp" for v in op.outputs):
                found.update(v for v in op.inputs if v.type.kind == "fxp")
        return found

    def emit(
        self, name: str, inputs: list[Value], like: Op | None, outputs: list[Value] | None = None, **a: object
    ) -> Op:
        op = Op(name, inputs, [], dict(a))
        op.location = like.location if like is not None else op.location
        with_results(op)
        if outputs is not None:
            for old, new in zip(outputs, op.outputs, strict=True):
                old.type = new.type
            op.outputs = outputs
        self.out.append(op)
        return op

    def at(self, value: Value, extra: int, like: Op | None) -> Value:
        """The number with so many extra bits."""
        change = extra - self.of(value)
        if not change or value.type.kind != "fxp":
            return value
        if (value, extra) not in self.aligned:
            made = (
                self._constant(value, change, like) if value in self.constants else self._shared_constant(value, change)
            )
            made = self._moved(value, change, like) if made is None else made
            self.extra[made], self.limits.of[made] = extra, self.limits.of[value]
            self.aligned[value, extra] = made
        return self.aligned[value, extra]

    def _moved(self, value: Value, change: int, like: Op | None, outputs: list[Value] | None = None) -> Value:
        if change < 0:
            wide = self.wider.get(value, value)
            bits = wide.type.frac - value.type.frac - change
            return self.emit("trunc", [wide], like, outputs, bits=bits).output
        shifted = self.emit("shift_left", [value], like, bits=change)
        return self.emit("bitcast", shifted.outputs, like, outputs, to=f"fxp{value.type.frac + change}").output

    def _constant(self, value: Value, change: int, like: Op | None) -> Value | None:
        """The same real numbers, rounded elsewhere."""
        const, *spread = self.constants[value]
        frac = value.type.frac + change
        if const.exact is None:
            return None
        raw = encode(const.exact, frac, self.ring_bits)
        made = self.emit(
            "const", [], const, data=np.ascontiguousarray(raw).reshape(const.output.shape), to=f"fxp{frac}"
        )
        made.exact = const.exact
        for op in spread:
            made = self.emit("broadcast", made.outputs, op, **op.attrs)
        return made.output

    def _shared_constant(self, value: Value, change: int) -> Value | None:
        """What loops begin with: shared again, as a millionth is nothing with the default fraction bits."""
        given = next((v for v in self.operands_of(value, "share") if v in self.constants), None)
        if given is None or given.type.frac != value.type.frac:
            return None
        made = self._constant(given, change, self.at_hand)
        return made if made is None else self.emit("share", [made], self.at_hand, to=value.type.visibility).output

    def keep(self, op: Op, inputs: list[Value], extra: int) -> None:
        """The operation on these inputs; its results have `extra` bits more."""
        op.inputs = inputs
        if extra or any(v.type.kind == "fxp" for v in op.outputs):
            before = [v.type for v in op.outputs]
            again = with_results(Op(op.name, op.inputs, [], op.attrs, op.regions, op.location))
            for value, new, old in zip(op.outputs, again.outputs, before):
                value.type = new.type
                if value.type.kind == "fxp":
                    self.extra[value] = value.type.frac - old.frac
            op.checked = ()
        self.out.append(op)

    def _visit(self, op: Op) -> None:
        self.at_hand = op
        if not self.limited.isdisjoint(op.inputs):
            self.limits.visit(op)
            self.limited.update(op.outputs)
        self.made.update((v, (op.name, list(op.inputs))) for v in op.outputs)
        if op.name == "const" and op.output.type.kind == "fxp":
            self.constants[op.output] = [op]
        if op.name == "broadcast" and len(self.constants.get(op.inputs[0], ())) == 1:
            self.constants[op.output] = [*self.constants[op.inputs[0]], op]
        rule = self.rules.get(op.name)
        if rule is None or op.regions or not any(v.type.kind == "fxp" for v in (*op.inputs, *op.outputs)):
            return self.keep_default(op)
        rule(self, op)
        if len(op.outputs) == 1 and op.output in self.raw and self.of(op.output):
            self._without(op.output, op)

    def _maker(self, value: Value) -> Op | None:
        return next((made for made in reversed(self.out) if value in made.outputs), None)

    def _without(self, value: Value, op: Op) -> None:
        """No extra bits for any use of a value that an algorithm reads raw too: to all it must be one number."""
        maker = self._maker(value)
        assert maker is not None
        wide = Value(value.type)
        maker.outputs, maker.checked = [wide], ()
        self.extra[wide], self.limits.of[wide] = self.of(value), self.limits.of[value]
        value.type = value.type.with_(frac=self.lowered(value))
        self.dropped(wide, value, 0, op)

    def keep_default(self, op: Op) -> None:
        op.inputs = [self.at(v, self.pins.operands.get((op, i), 0), op) for i, v in enumerate(op.inputs)]
        for value in op.outputs:
            if value in self.pins.values:
                value.type = value.type.with_(frac=value.type.frac + self.pins.values[value])
                self.extra[value] = self.pins.values[value]
        self.out.append(op)

    def new(self, name: str, inputs: list[Value], **attrs: object) -> Value:
        op = self.emit(name, inputs, self.at_hand, None, **attrs)
        self.limits.visit(op)
        return op.output

    def operands_of(self, value: Value | None, name: str) -> list[Value]:
        """The operands of the operation that makes a value, if that is its name."""
        made, inputs = self.made.get(value, ("", []))
        return inputs if made == name else []

    def dropped(self, x: Value, out: Value, extra: int, op: Op) -> None:
        """`out` is x with `extra` bits, by one truncation or none."""
        frac = out.type.frac + extra
        if frac == x.type.frac:
            self.emit("bitcast", [x], op, [out], to=x.type.element)
        else:
            self._moved(x, frac - x.type.frac, op, [out])
        if frac <= x.type.frac:
            self.wider[out] = x
        self.extra[out] = extra

    def number(self, number: int, element: str, shape: tuple[int, ...]) -> Value:
        return self.new("const", [], data=words(np.full(shape, number, np.int64), self.ring_bits), to=element)
