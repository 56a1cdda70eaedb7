"""Guarded programs: before anything is revealed, one bit is opened that says whether a number left what the ring holds.

Every operation whose operands may lead out of the ring (passes/held.py says which) gets bools that say so
(passes/overflow.py). All that have been made since the last opening are joined by `or` to one secret bool, which is
revealed before each reveal of the program and before its results, and `guarded` lets nothing pass if it is set. Loops
carry it, as their bodies may set it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Op, Region, Type, Value
from spuvm.compiler.passes.held import Held
from spuvm.compiler.passes.overflow import FUNCTIONS, Watch

BIT = Type("bool")


def guard(module: Module) -> None:
    """In place, if the module is to be guarded."""
    if not module.guard:
        return
    frac, ring_bits = module.config["fxp_fraction_bits"], module.config["ring_bits"]
    held, b = Held(ring_bits, frac), Builder(frac, ring_bits)
    held.module(module)
    _Guard(b, held, module.body).whole()


class _Guard:
    """Rewrites one region. `pending`: secret bools that nobody has seen yet, scalars and arrays."""

    def __init__(self, b: Builder, held: Held, region: Region, before: Value | None = None) -> None:
        self.b, self.held, self.region = b, held, region
        self.pending: list[Value] = [] if before is None else [before]
        self.constants: dict[Value, Op] = {}

    # regions --------------------------------------------------------------------------------------------

    def whole(self) -> None:
        """A program: its results pass if the bit is not set."""
        with self._rewriting():
            self._pass_results()

    def body(self) -> Value:
        """A body: the bit, for what comes after it."""
        with self._rewriting():
            return self._joined()

    def condition(self) -> None:
        """The condition of a `while`, whose result is public: its own checks are opened before it counts."""
        if any(_watched(op, self.held) for op in self.region.ops):
            self.whole()

    @contextmanager
    def _rewriting(self) -> Iterator[None]:
        ops, self.region.ops = self.region.ops, []
        with self.b.inside(self.region):
            for op in ops:
                if op.location.file:
                    self.b.location = op.location
                self._visit(op)
            yield

    def _visit(self, op: Op) -> None:
        if op.name == "const":
            self.constants[op.output] = op
        if op.name in ("broadcast", "reshape") and op.inputs[0] in self.constants:
            self.constants[op.output] = self.constants[op.inputs[0]]
        if op.regions and any(_watched(inner, self.held) for r in op.regions for inner in r.ops):
            AROUND[op.name](self, op)
            self.region.ops.append(op)
            self.pending = [op.outputs[-1] if op.name != "loop" else op.outputs[op.attrs["carries"] - 1]]
            return
        if _shows(op):
            op.inputs = self._passed(op.inputs)
        self.region.ops.append(op)
        self.pending += Watch(self.b, self.held, self.constants).of(op)

    # the bit --------------------------------------------------------------------------------------------

    def _pass_results(self) -> None:
        results = list(dict.fromkeys(v for v in self.region.results if not v.type.masked))
        passed = dict(zip(results, self._passed(results)))
        self.region.results = [passed.get(v, v) for v in self.region.results]

    def _passed(self, values: list[Value]) -> list[Value]:
        if not self.pending or not values:
            return values
        bit = self.b.op("reveal", self._joined(), to="public")
        self.pending = []
        return self.b.ops("guarded", [bit, *values])

    def _joined(self) -> Value:
        """All pending bools as one. It stays pending, instead of them."""
        b = self.b
        flat = [b.reshape(self._secret(v), (v.type.size,)) for v in self.pending if v.type.size]
        if not flat:
            flat = [b.reshape(self._secret(b.const(np.zeros((), np.int64), "bool")), (1,))]
        x = b.concatenate(flat, 0)
        while x.shape[0] > 1:
            n = x.shape[0]
            low, high = b.slice(x, 0, 0, n // 2), b.slice(x, 0, n // 2, n // 2 * 2)
            odd = [b.slice(x, 0, n - 1, n)] if n % 2 else []
            x = b.concatenate([b.logical("or", low, high), *odd], 0)
        self.pending = [b.reshape(x, ())]
        return self.pending[0]

    def _secret(self, x: Value) -> Value:
        return x if x.type.is_secret else self.b.op("share", x, to="secret")

    # control --------------------------------------------------------------------------------------------

    def _inner(self, region: Region, at: int) -> _Guard:
        bit = Value(BIT)
        region.params.insert(at, bit)
        return _Guard(self.b, self.held, region, bit)

    def loop(self, op: Op) -> None:
        at, n = op.attrs["constants"] + op.attrs["carries"], op.attrs["carries"]
        op.inputs = [*op.inputs[:at], self._joined(), *op.inputs[at:]]
        (body,) = op.regions
        body.results.insert(n, self._inner(body, at).body())
        op.outputs.insert(n, Value(BIT))
        op.attrs = {**op.attrs, "carries": n + 1}

    def while_(self, op: Op) -> None:
        op.inputs = [*op.inputs, self._joined()]
        condition, body = op.regions
        self._inner(condition, len(condition.params)).condition()
        body.results.append(self._inner(body, len(body.params)).body())
        op.outputs.append(Value(BIT))

    def cond(self, op: Op) -> None:
        op.inputs = [*op.inputs, self._joined()]
        for branch in op.regions:
            branch.results.append(self._inner(branch, len(branch.params)).body())
        op.outputs.append(Value(BIT))


def _shows(op: Op) -> bool:
    return op.name == "reveal" and not op.inputs[0].type.is_public


def _watched(op: Op, held: Held) -> bool:
    """Whether an operation, or one within it, may set the bit or shows something."""
    inner = (o for region in op.regions for o in region.ops)
    return op in held.exceeds or op.name in FUNCTIONS or _shows(op) or any(_watched(o, held) for o in inner)


AROUND = {"loop": _Guard.loop, "while": _Guard.while_, "cond": _Guard.cond}
