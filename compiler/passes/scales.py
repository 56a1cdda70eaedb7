"""Every fixed-point value its own fraction bits: more than the default where its limit has room and a use wants them.

Lowering gives all numbers the default fraction bits f. Here a value gets `extra` ones, in three steps: limits of all
values (passes/limits.py), what their uses want (passes/wishes.py), and a rewriting that drops so many fewer at the
truncations that are there. A shift to the left is free, so sums and selections are aligned upwards where limits allow.
Inputs and results of programs and branches keep the default, and what loops carry mostly (passes/carried.py): the same
types in give the same out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spuvm.compiler.ir.fixedpoint import encode
from spuvm.compiler.ir.module import Module, Op, Region, Value, uses
from spuvm.compiler.ir.ops import KEEP_MASKED, LOCAL, index_operands, with_results
from spuvm.compiler.passes.carried import pin
from spuvm.compiler.passes.limits import OF_DIVISORS, Limits, count, known
from spuvm.compiler.passes.ranges import DIGITS, MARGIN
from spuvm.compiler.passes.states import OF_NUMERATORS, states, successors
from spuvm.compiler.passes.truncation import BLOCK
from spuvm.compiler.passes.wishes import FEW, NO_WISH, OF_ROOTS, REARRANGED, Pins, Wanted
from spuvm.runtime.ring.elements import words

Moved = dict[Region, list[int]]

MOST = {32: 6, 64: 20, 128: 40}  # extra bits of what is multiplied
MOST_MEASURED = {32: 8, 64: 36, 128: 76}  # of calibrated programs
LEAST_EXPONENT = 17  # fraction bits of result and divisor beyond those of the numerator
# Fraction bits of roots: an epsilon of 1e-8 beside them is 0, so that what is divided by a root that was lost gives 0.
UP_TO = {32: 16, 64: 24, 128: 60}
OF_QUOTIENTS = {32: 12, 64: 30, 128: 60}

MOST_HALVINGS = 20  # of a number, by moving the point

ALIGNED = frozenset({"add", "sub", "select", "less", "equal", "concatenate", "pad", "scatter", "dynamic_update_slice"})
CARRIED = REARRANGED | ALIGNED | {"bitcast", "shift_left", "convert"}


def choose_scales(module: Module, limits: Limits | None = None) -> Moved:
    """In place: every value stays the same object, some types change. `limits` are filled, where they are given."""
    frac, ring_bits = module.config["fxp_fraction_bits"], module.config["ring_bits"]
    limits = Limits(frac, ring_bits) if limits is None else limits
    _measure(module, limits)
    finer = dict(zip(module.body.params, module.finer))
    for param, extra in finer.items():
        param.type = param.type.with_(frac=param.type.frac + extra)
        limits.of[param] = limits.finer(extra)
    for param, bound in zip(module.body.params, module.bounds):
        if bound is not None and param.type.kind == "fxp":
            limits.of[param] = known(math.log2(bound))
    limits.run(module.body)
    next_call = successors(module)
    kept = states(module, next_call or {}, limits)
    for param, state in kept.items():
        finer[param], limits.of[param] = state.extra, limits.finer(state.extra)
        param.type = param.type.with_(frac=frac + state.extra)
    limits.run(module.body)
    pins = pin(module.body, limits)
    moved: Moved = {}
    for region in [module.body, *(r for op in module.body.walk() for r in op.regions)]:
        outermost = region is module.body
        given = (finer, next_call) if outermost else (_carried_in(region, pins), None)
        results = {state.result: state.extra for state in kept.values()} if outermost else {}
        moved[region] = _Scaler(region, limits, frac, ring_bits, *given, pins, results).run()
    return moved


def _measure(module: Module, limits: Limits) -> None:
    """What a calibrated program is fitted to. A product is as large before it is truncated as after it."""
    ranges, module.measured = module.measured, {}
    for value, (low, high) in ranges.items():
        limits.measured[value] = float(high + MARGIN)
        limits.digits[value] = float(DIGITS - low - limits.frac)
    for op in module.body.walk():
        if op.name == "trunc" and op.output in ranges:
            limits.measured[op.inputs[0]] = limits.measured[op.output]


def _carried_in(region: Region, pins: Pins) -> dict[Value, int]:
    """The parameters that a loop carries with more bits, which they get here."""
    found = {v: pins.values[v] for v in region.params if v in pins.values}
    for value, extra in found.items():
        value.type = value.type.with_(frac=value.type.frac + extra)
    return found


# rewriting -------------------------------------------------------------------------------------------------


def _is_raw(op: Op, frac: int, extra: int = 0) -> bool:
    """Whether an algorithm with formats of its own reads ring elements: a bitcast that does not halve numbers.

    `extra`: bits that the operand has been given already.
    """
    if op.name != "bitcast" or op.inputs[0].type.kind != "fxp":
        return False
    source, target = op.inputs[0].type, op.output.type
    return target.kind != "fxp" or source.frac - extra != frac or not 0 <= target.frac - frac <= MOST_HALVINGS


class _Scaler:
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
    ) -> None:
        """`successors`: results that are so fine that a root can be taken of them leave so, and as fine as the input of
        the next call wants them. `states`: results that leave with so many extra bits, whatever they were made of.
        """
        self.region, self.limits, self.frac, self.ring_bits = region, limits, frac, ring_bits
        self.keeps_scales = successors is not None
        self.pins = pins
        self.wanted = Wanted(limits, pins)
        self.wanted.run(region)
        for param, result in (successors or {}).items():
            if self.wanted.of.get(param, NO_WISH).below >= OF_ROOTS:
                self.wanted.ask(result, 0.0, OF_ROOTS)
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
        self.raw = {op.inputs[0] for op in region.ops if _is_raw(op, frac)}
        self.factors = self._factors()
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
            self.region.results[i] = self.at(value, kept, None)
        self.region.ops = self.out
        return [*starts, ends]

    def _pinned(self) -> set[Value]:
        """Values that something reads which takes no extra bits: truncated twice they would cost more."""
        found = {
            v
            for i, v in enumerate(self.region.results)
            if (self.region, i) not in self.pins.results
            and v not in self.states
            and not (self.keeps_scales and self.wanted.of.get(v, NO_WISH).below >= OF_ROOTS)
        }
        for op in self.region.ops:
            if op.name not in TAKES:
                found.update(v for i, v in enumerate(op.inputs) if (op, i) not in self.pins.operands)
        return found

    def _kept(self, result: Value) -> int:
        """Extra bits that a result leaves with."""
        fine = self.keeps_scales and result.type.is_secret and self.of(result) >= OF_ROOTS
        return self.states.get(result, OF_ROOTS if fine else 0)

    # bits -----------------------------------------------------------------------------------------------

    def of(self, value: Value) -> int:
        return self.extra.get(value, 0)

    def factor_room(self, value: Value) -> int:
        """Extra bits that a factor may have, so that products keep their limit; if all are measured, their own."""
        if value in self.shared:
            return self.shared[value]
        if not value.type.frac and not self.of(value):
            return 0
        return max(0, min(self._spare(value) + self.frac - self._lowered(value), self._most(value)))

    def _most(self, value: Value) -> int:
        return MOST_MEASURED[self.ring_bits] if value in self.limits.digits else MOST[self.ring_bits]

    def _spare(self, value: Value) -> int:
        """Fraction bits that the limit of a factor leaves beyond the default; of a known one, that 1 would leave."""
        limit = self.limits.of[value]
        return math.floor((0.0 if limit.known else self.limits.most) - limit.product + 1e-9)

    def _lowered(self, value: Value) -> int:
        return value.type.frac - self.of(value)

    def room(self, value: Value) -> int:
        """Extra bits that fit the ring: |raw| < 2^(k-2)."""
        return max(0, math.floor(self.limits.top - self._lowered(value) - self.limits.of[value].whole + 1e-9))

    def wish(self, value: Value) -> int:
        """What a value that may choose takes: even, so that there are few distinct truncations.

        None where lowering chose a format of its own.
        """
        if self._lowered(value) != self.frac:
            return 0
        wish = self.wanted.of.get(value, NO_WISH)
        factor, anywhere = self.factor_room(value), self.room(value)
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

    def _multiplied(self, value: Value) -> bool:
        return value in self.factors

    def _factors(self) -> set[Value]:
        """What is multiplied, or pinned, at last."""
        found = {v for op in self.region.ops if op.name in ("mul", "dot") for v in op.inputs} | self.pinned
        for op in reversed(self.region.ops):
            if op.name in CARRIED and not found.isdisjoint(op.outputs):
                found.update(v for v in op.inputs if v.type.kind == "fxp")
        return found

    # emitting -------------------------------------------------------------------------------------------

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
            made = self._constant(value, change, like) if value in self.constants else None
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

    def _keep(self, op: Op, inputs: list[Value], extra: int) -> None:
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

    # operations -------------------------------------------------------------------------------------------

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
        rule = TAKES.get(op.name)
        if rule is None or op.regions or not any(v.type.kind == "fxp" for v in (*op.inputs, *op.outputs)):
            return self._keep_default(op)
        rule(self, op)
        if len(op.outputs) == 1 and op.output in self.raw and self.of(op.output):
            self._without(op.output, op)

    def _without(self, value: Value, op: Op) -> None:
        """No extra bits for any use of a value that an algorithm reads raw too: to all it must be one number."""
        maker = next(made for made in reversed(self.out) if value in made.outputs)
        wide = Value(value.type)
        maker.outputs, maker.checked = [wide], ()
        self.extra[wide], self.limits.of[wide] = self.of(value), self.limits.of[value]
        value.type = value.type.with_(frac=self._lowered(value))
        self._dropped(wide, value, 0, op)

    def _keep_default(self, op: Op) -> None:
        op.inputs = [self.at(v, self.pins.operands.get((op, i), 0), op) for i, v in enumerate(op.inputs)]
        for value in op.outputs:
            if value in self.pins.values:
                value.type = value.type.with_(frac=value.type.frac + self.pins.values[value])
                self.extra[value] = self.pins.values[value]
        self.out.append(op)

    def rearrange(self, op: Op) -> None:
        if op.output.type.kind != "fxp" or op.inputs[0].type.kind != "fxp":
            return self._keep_default(op)
        self._keep(op, op.inputs, self.of(op.inputs[0]))

    def reread(self, op: Op) -> None:
        """A bitcast between numbers of fraction bits moves the point."""
        source, target = op.inputs[0], op.output
        if source.type.kind != "fxp" or _is_raw(op, self.frac, self.of(source)):
            return self._keep_default(op)
        extra = self.of(source)
        if extra:
            op.attrs = {"to": f"fxp{target.type.frac + extra}"}
        self._keep(op, op.inputs, extra)

    def align(self, op: Op) -> None:
        """All operands with the same extra bits: as many as the finest has, where limits allow."""
        if op.name == "add" and any(self._made(v, "sqrt") for v in op.inputs):
            op.inputs = [self._seen(v) for v in op.inputs]
        at = index_operands(op.name, len(op.inputs)) if op.name in LOCAL else ()
        numbers = [v for i, v in enumerate(op.inputs) if v.type.kind == "fxp" and i not in at]
        if not numbers:
            return self._keep_default(op)
        given = [self.of(v) for v in numbers if v not in self.constants]
        out = op.outputs[0]
        if out.type.kind == "fxp":
            roomy = min(self.room(out), self.factor_room(out)) if self._multiplied(out) else self.room(out)
            if not given:  # constants alone
                given.append(min(self.wish(out), 2 * MOST[self.ring_bits]))
        else:
            roomy = 2 * MOST[self.ring_bits]
        extra = min([max(given, default=0), roomy, *(max(self.room(v), self.of(v)) for v in numbers)])
        inputs = [self.at(v, extra, op) if v in numbers else v for v in op.inputs]
        self._keep(op, inputs, extra)

    def _seen(self, x: Value) -> Value:
        """0 for a constant that is less at the default scale: beside a root that was lost it makes a quotient large."""
        const = self.constants.get(x)
        if const is None or const[0].exact is None or not np.any(const[0].exact):
            return x
        if self.limits.of[x].whole >= -self.frac - 1:
            return x
        return self._number(0, f"fxp{self.frac}", x.shape)

    def multiply(self, op: Op) -> None:
        """What was scaled down on both sides was so that the product fits: it keeps the limit of today."""
        inputs = [self.at(v, min(self.of(v), self.factor_room(v)), op) for v in op.inputs]
        if op.output.type.kind != "fxp" or op.output.type.frac == 0:
            inputs = [self.at(v, 0, op) for v in op.inputs]
        both_scaled = all(not self.limits.of[v].known and self._spare(v) > 0 for v in inputs)
        if both_scaled or (op.name == "mul" and sum(map(self.of, inputs)) > self.room(op.output)):
            inputs = [self.at(v, 0, op) for v in op.inputs]
        self._keep(op, inputs, sum(map(self.of, inputs)))

    def total(self, op: Op) -> None:
        """Of a sum, which may be too large for the bits of its terms: before it is made, or as a factor after it."""
        (x,), out = op.inputs, op.output
        if out.type.kind != "fxp" or not self.of(x):
            return self._keep(op, op.inputs, self.of(x))
        fits = self._fits(op)
        if self.of(x) > fits:
            op.inputs = [x] = [self.at(x, fits - fits % 2, op)]
        most = self.factor_room(out) if self._multiplied(out) else self.of(x)
        if self.of(x) <= most:
            return self._keep(op, op.inputs, self.of(x))
        wide = self.emit(op.name, op.inputs, op, **op.attrs)
        self.extra[wide.output], self.limits.of[wide.output] = self.of(x), self.limits.of[out]
        self._dropped(wide.output, out, min(most, self.wish(out)), op)

    def _fits(self, op: Op) -> int:
        """Extra bits of terms whose sum fits the ring. Products that are truncated after they are added, BLOCK at most
        (see `truncation`), are promised to fit together.
        """
        (x,) = op.inputs
        if op.name == "sum" and self.uses[x] == 1 and self._made(x, "trunc") and count(x, op.attrs["axes"]) <= BLOCK:
            return self.room(x)
        return self.room(op.output)

    def truncate(self, op: Op) -> None:
        (x,), out = op.inputs, op.output
        if self._in_halves(x, out, op):
            return
        small = self._scaled_product(x, out)
        self._dropped(x if small is None else small, out, self.wish(out), op)

    def _scaled_product(self, x: Value, out: Value) -> Value | None:
        """c (x y) below a root, |c| < 1, as (c x) y untruncated: c x has room for the bits that x y has lost."""
        if self.wanted.of.get(out, NO_WISH).below <= 0:
            return None
        factors = self._made(x, "mul")
        for product, c in (factors, factors[::-1]) if factors else ():
            inner = self._made(next(iter(self._made(product, "trunc")), None), "mul")
            known = c in self.constants or self.limits.of[c].known
            if inner and known and -MOST[self.ring_bits] < self.limits.of[c].whole < 0:
                return self._small_first(c, *inner)
        return None

    def _in_halves(self, x: Value, out: Value, op: Op) -> bool:
        """c y below a root, |c| <= 1, of a y with more bits than a factor may have, as c h + c (y - h), h what a factor
        may have of y: all of its bits count, and no limit is lower.
        """
        factors = self._made(x, "mul")
        for y, c in (factors, factors[::-1]) if factors else ():
            more, wide = self.of(y), self.wish(out)
            if c not in self.constants or self.limits.of[c].whole > 0 or min(more, wide) < OF_NUMERATORS:
                continue
            if more <= self.factor_room(y):
                continue
            high = self.at(y, 0, op)
            low = self._limited("sub", [y, self.at(high, more, op)])
            low = self._limited("mul", [low, c])
            low = self._limited("trunc", [low], bits=low.type.frac - self.frac - wide)
            high = self._limited("mul", [high, c])
            self.extra[high] = high.type.frac - self.frac
            self.emit("add", [self.at(high, wide, op), low], op, [out])
            self.extra[out] = wide
            return True
        return False

    def _small_first(self, c: Value, x: Value, y: Value) -> Value:
        x, y = (self.at(v, 0, None) for v in (x, y))
        scaled = self._limited("mul", [x, c])
        room = max(0, min(self._spare(scaled), MOST[self.ring_bits]))
        less = self._limited("trunc", [scaled], bits=scaled.type.frac - x.type.frac - room)
        self.extra[less] = room
        return self._limited("mul", [less, y])

    def _limited(self, name: str, inputs: list[Value], **attrs: object) -> Value:
        op = self.emit(name, inputs, self.at_hand, None, **attrs)
        self.limits.visit(op)
        return op.output

    def _made(self, value: Value | None, name: str) -> list[Value]:
        """The operands of the operation that makes a value, if that is its name."""
        made, inputs = self.made.get(value, ("", []))
        return inputs if made == name else []

    def _dropped(self, x: Value, out: Value, extra: int, op: Op) -> None:
        """`out` is x with `extra` bits, by one truncation or none."""
        frac = out.type.frac + extra
        if frac == x.type.frac:
            self.emit("bitcast", [x], op, [out], to=x.type.element)
        else:
            self._moved(x, frac - x.type.frac, op, [out])
        if frac <= x.type.frac:
            self.wider[out] = x
        self.extra[out] = extra

    def root(self, op: Op) -> None:
        """Takes what there is, gives what is wanted."""
        op.inputs = [self._unchanged(op.inputs[0])]
        parts = self._made(op.inputs[0], "div")
        if len(parts) == 2 and self.of(parts[0]) >= OF_ROOTS and self._one_number(parts[1]):
            return self._quotient_of_roots(parts[0], parts[1], op)
        self._function(op, self.wish(op.output), UP_TO[self.ring_bits])

    def _unchanged(self, x: Value) -> Value:
        """What x is plus 0."""
        parts = self._made(x, "add")
        for y, c in (parts, parts[::-1]) if parts else ():
            const = self.constants.get(c)
            if const and const[0].exact is not None and not np.any(const[0].exact):
                return y
        return x

    def _one_number(self, x: Value) -> Value | None:
        """The number that x repeats, if it does."""
        inner = self._made(x, "broadcast")
        x = inner[0] if inner else x
        return x if x.type.size == 1 and x.type.kind == "fxp" and x not in self.constants else None

    def _quotient_of_roots(self, x: Value, y: Value, op: Op) -> None:
        """sqrt(x / y) as sqrt(s x) / sqrt(s y), s the sign of y: the quotient would lose the digits of a small x."""
        one = self._one_number(y)
        assert one is not None
        zero, whole = (self._number(n, f"fxp{frac}", one.shape) for n, frac in ((0, one.type.frac), (1, 0)))
        negative = self._limited("convert", [self._limited("less", [one, zero])], to="fxp0")
        sign = self._limited("sub", [whole, self._limited("add", [negative, negative])])
        above, below = self._times_sign(x, self._spread(sign, x.shape)), self._times_sign(one, sign)
        fine = UP_TO[self.ring_bits] - self.frac
        roots = [self._limited("sqrt", [v], to=f"fxp{self.frac + fine}") for v in (above, below)]
        self.extra.update(dict.fromkeys(roots, fine))
        divisor = self._spread(roots[1], x.shape)
        self.extra[divisor] = fine
        self.quotient(Op("div", [roots[0], divisor], op.outputs, {"to": f"fxp{self.frac}"}, location=op.location))

    def _number(self, number: int, element: str, shape: tuple[int, ...]) -> Value:
        return self._limited("const", [], data=words(np.full(shape, number, np.int64), self.ring_bits), to=element)

    def _times_sign(self, x: Value, sign: Value) -> Value:
        out = self._limited("mul", [x, sign])
        self.extra[out] = self.of(x)
        return out

    def _spread(self, x: Value, shape: tuple[int, ...]) -> Value:
        """One number for all elements."""
        return self._limited("broadcast", [self._limited("reshape", [x], shape=())], shape=shape, dims=())

    def quotient(self, op: Op) -> None:
        """x / y, with as many bits as its ways take: see `by_logarithm.divides`."""
        x, y = op.inputs
        one = self._one_number(y)
        wanted = self.wanted.of.get(op.output, NO_WISH).below
        if one is not None and min(self.of(x), wanted) >= OF_ROOTS and self._lowered(op.output) == self.frac:
            return self._times_reciprocal(x, one, op)
        up_to = OF_QUOTIENTS[self.ring_bits]
        y = self.at(y, min(self.of(y), max(0, up_to - y.type.frac + self.of(y))), op)
        extra = self.wish(op.output)
        if x not in self.constants:
            extra = min(extra, self.of(x))
        extra = min(extra, max(0, up_to - op.output.type.frac))
        most = op.output.type.frac + extra + y.type.frac - LEAST_EXPONENT - x.type.frac + self.of(x)
        op.inputs = [self.at(x, extra if x in self.constants else min(self.of(x), max(most, 0)), op), y]
        self._function(op, extra, up_to)

    def _times_reciprocal(self, x: Value, y: Value, op: Op) -> None:
        """x / y by one number y, below a root: r = 1 / y, and h r + (x - h) r, h the leading bits of x.

        All of x counts, in the limit that x has come with.
        """
        more = self.of(x)
        r = self._spread(self._limited("reciprocal", [self.at(y, 0, op)], to=f"fxp{self.frac}"), x.shape)
        high = self.at(x, 0, op)
        low = self._limited("mul", [self._limited("sub", [x, self.at(high, more, op)]), r])
        low = self._limited("trunc", [low], bits=low.type.frac - self.frac - OF_ROOTS)
        high = self._limited("mul", [high, r])
        self.extra[high] = high.type.frac - self.frac
        self.emit("add", [self.at(high, OF_ROOTS, op), low], op, op.outputs)
        self.extra[op.output], self.limits.of[op.output] = OF_ROOTS, self.limits.finer(OF_ROOTS)
        self.limited.add(op.output)

    def quotient_by(self, op: Op) -> None:
        self._function(op, self.wish(op.output), self.ring_bits)

    def power(self, op: Op) -> None:
        """A whole power of few numbers: see functions/whole_powers.py."""
        if not op.attrs.get("whole"):
            return self._keep_default(op)
        op.inputs = [self.at(op.inputs[0], 0, op)]
        few = op.output.type.size <= FEW and self.wish(op.output) >= OF_DIVISORS
        if not few:
            op.attrs = {k: v for k, v in op.attrs.items() if k != "whole"}
        self._function(op, OF_DIVISORS if few else 0, OF_QUOTIENTS[self.ring_bits])

    def _function(self, op: Op, extra: int, up_to: int) -> None:
        extra = min(extra, max(0, up_to - op.output.type.frac))
        if extra:
            op.attrs = {**op.attrs, "to": f"fxp{op.output.type.frac + extra}"}
        self._keep(op, op.inputs, extra)


TAKES: dict[str, Callable[[_Scaler, Op], None]] = {
    "const": lambda s, op: s.out.append(op),
    **dict.fromkeys(REARRANGED - ALIGNED - KEEP_MASKED | (KEEP_MASKED - {"mask"}), _Scaler.rearrange),
    **dict.fromkeys(ALIGNED, _Scaler.align),
    "bitcast": _Scaler.reread,
    "sum": _Scaler.total,
    "cumsum": _Scaler.total,
    "mul": _Scaler.multiply,
    "dot": _Scaler.multiply,
    "trunc": _Scaler.truncate,
    "sqrt": _Scaler.root,
    "rsqrt": lambda s, op: s._keep(op, op.inputs, 0),  # of any scale, and no smaller than a unit
    "div": _Scaler.quotient,
    "power_of": _Scaler.power,
    "div_by": _Scaler.quotient_by,
}
