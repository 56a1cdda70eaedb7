"""What a lowering rule sees: operands, the builder, and the loop that lowers a jaxpr.

An operand is either *known* (a NumPy array: a literal, a constant, or computed from those only) or
an IR value. Known operands cost nothing and enter the IR where they meet a value. Random keys are
known too; they stay JAX arrays.

A float is `fxp<f>` at every equation's boundary. `integral` remembers the values whose number is a
whole number, with the same number as `fxp0`: products with those need no truncation. `logarithms`
remembers what a value is the logarithm of: a quotient by a constant is one of another base. `quotients` remembers
what was divided by which whole number: rounding it looks at the dividend, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jax.extend import core as jex

from spuvm.compiler.front.private_jax import JAX_FILES, SPECIAL_FUNCTIONS, in_special_function
from spuvm.compiler.front.trace import location_of
from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.builder import Builder, element_of
from spuvm.compiler.ir.dtypes import is_key_dtype, kind_of
from spuvm.compiler.ir.module import Location, Module, Region, Type, Value
from spuvm.compiler.lower import infinite
from spuvm.compiler.lower.advice import nearest
from spuvm.compiler.lower.folded import constant_of, fold
from spuvm.compiler.lower.jaxprs import bodies, draws, live_equations
from spuvm.runtime.config import Config
from spuvm.runtime.errors import EncodingError, SpuError, UnsupportedError
from spuvm.runtime.protocols.registered import protocol_of

Known = np.ndarray[Any, Any]
Operand = Value | Any  # Any stands for Known, for arrays of random keys, and for Undefined
Rule = Callable[..., Any]


@dataclass(frozen=True)
class Undefined:
    """What a constant that fixed point cannot hold left of an equation: the error, raised where it is used.

    A branch that is never chosen, as its condition is known, may compute with NaN and infinity. Only inlined calls
    and choices by a known condition see such operands; of all else the result is undefined, too.
    """

    error: EncodingError


@dataclass(frozen=True)
class Lowered:
    """An equation, its operands and results, and its operations: region.ops[start:end]."""

    eqn: Any
    location: Location
    args: list[Operand]
    outs: list[Operand]
    region: Region
    start: int
    end: int


class Context:
    """One lowering. `primitive` and `outs` describe the equation at hand."""

    def __init__(
        self,
        config: Config,
        rules: Mapping[str, Rule],
        unfolded: Collection[str],
        inlined: Collection[str],
        did_lower: Callable[[Lowered], None] | None = None,
        price: Callable[[Module], tuple[int, int]] | None = None,
    ) -> None:
        self.b = Builder(config.fxp_fraction_bits, config.ring_bits)
        self.can_shuffle = protocol_of(config).sorting is not None
        self.config = config
        self.price = price  # rounds and bytes of a piece of IR, see `weigh`
        self.integral: dict[Value, Value] = {}
        self.logarithms: dict[Value, Value] = {}
        self.quotients: dict[Value, tuple[Value, int]] = {}
        self.truth: dict[Value, Value] = {}  # integers that were bools -> the bools
        self.infinite: set[Value] = set()  # those that may be, see `infinite`
        self._infinite_in = False  # whether an operand of the equation at hand may be
        self.randoms = 0  # draws of random values so far
        self.primitive = ""
        self.outs: list[Any] = []  # shapes and dtypes
        self.branch_of_secret = False
        self._body: Any = None  # the jaxpr that the equation at hand is of
        self._equations: list[Any] = []  # at hand: one, and the calls that it is part of
        self._rules = rules
        self._unfolded = unfolded
        self._inlined = inlined
        self._reported: SpuError | None = None
        self._did_lower = did_lower

    # operands ----------------------------------------------------------------------------------

    def value(self, x: Operand, shape: Sequence[int] | None = None) -> Value:
        """`x` as an IR value, broadcast to `shape` if given; a known array becomes a constant."""
        if not isinstance(x, Value):
            x = self._constant(x)
        return x if shape is None else self.broadcast(x, shape)

    def _constant(self, x: Known) -> Value:
        element, shape = self.element(x.dtype), x.shape
        if x.size > 1 and fixedpoint.is_uniform(x):
            x = x[(0,) * x.ndim]
        if not element.startswith("fxp"):
            return self.b.broadcast(fixedpoint.constant(self.b, x, element), shape)
        raw = fixedpoint.encode(x, self.b.frac, self.b.ring_bits)
        return self.b.broadcast(fixedpoint.constant(self.b, raw, element, x), shape)

    def element(self, dtype: Any) -> str:
        """The element type for a JAX dtype."""
        if is_key_dtype(dtype) or not kind_of(dtype) or kind_of(dtype) == "c":
            raise UnsupportedError(f"values of dtype {dtype} are not supported: use float32 or int32.")
        if np.dtype(dtype).kind in "iu" and 8 * np.dtype(dtype).itemsize > self.b.ring_bits:
            raise UnsupportedError(f"a ring of {self.b.ring_bits} bits does not hold {dtype}: use int32, or ring=64.")
        return element_of(dtype, self.b.frac)

    def like(self, x: Any, template: Value) -> Value:
        """A known number or array in the shape and type of `template`."""
        element = template.type.element
        fixed = template.type.kind == "fxp"
        raw = fixedpoint.encode(x, template.type.frac, self.b.ring_bits) if fixed else np.asarray(x)
        return self.broadcast(fixedpoint.constant(self.b, raw, element, x if fixed else None), template.shape)

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        return self.map(lambda v: self.b.broadcast(v, shape), x)

    def map(self, function: Callable[[Value], Value], x: Value) -> Value:
        """Apply a rearrangement; a whole number stays known as one."""
        out = function(x)
        if x in self.integral and out is not x:
            self.integral[out] = function(self.integral[x])
        return out

    def whole(self, x: Value) -> Value:
        """`x` (fxp0) as an ordinary fixed-point value that remembers to be a whole number."""
        out = self.b.with_frac(x, self.b.frac)
        self.integral[out] = x
        return out

    # the loop -----------------------------------------------------------------------------------

    def run(self, closed: jex.ClosedJaxpr, args: Sequence[Operand]) -> list[Operand]:
        """Lower the equations of a jaxpr into the current region; its results, all of them defined."""
        results = self.inline(closed, args)
        for x in results:
            if isinstance(x, Undefined):
                self._reported = x.error
                raise x.error
        return results

    def inline(self, closed: jex.ClosedJaxpr, args: Sequence[Operand]) -> list[Operand]:
        """The same, of operands and with results that may be undefined."""
        jaxpr = closed.jaxpr
        env: dict[Any, Operand] = dict(zip(jaxpr.constvars, map(constant_of, closed.consts)))
        env.update(zip(jaxpr.invars, args))

        def read(v: Any) -> Operand:
            is_literal = isinstance(v, jex.Literal)
            return np.asarray(v.val, dtype_of(v.aval)) if is_literal else env[v]

        outer, self._body = self._body, jaxpr
        try:
            for eqn in live_equations(jaxpr):
                env.update(zip(eqn.outvars, self._equation(eqn, [read(v) for v in eqn.invars])))
        finally:
            self._body = outer
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, args: list[Operand]) -> list[Operand]:
        undefined = next((x for x in args if isinstance(x, Undefined)), None)
        if undefined is not None and eqn.primitive.name not in self._inlined:
            chosen = _always_chosen(args) if eqn.primitive.name == "select_n" else undefined
            return [chosen] * len(eqn.outvars)
        try:
            return self._lowered(eqn, args)
        except EncodingError as error:
            return [Undefined(error)] * len(eqn.outvars)

    def _lowered(self, eqn: Any, args: list[Operand]) -> list[Operand]:
        with self._at(eqn):
            known = not any(isinstance(x, Value | Undefined) for x in args)
            if known and eqn.primitive.name not in self._unfolded and not draws(eqn.params):
                return fold(eqn, args)
            rule = self._rules.get(eqn.primitive.name)
            if rule is None:
                raise UnsupportedError(missing(eqn.primitive.name, self._rules))
            region, start = self.b.region, len(self.b.region.ops)
            results = self._ruled(rule, eqn, args)
            outs = list(results) if eqn.primitive.multiple_results else [results]
            if any(isinstance(x, Undefined) for x in (*args, *outs)):
                return outs
            for out, aval in zip(outs, self.outs, strict=True):
                self._check(out, aval)
            if self._did_lower is not None:
                self._did_lower(Lowered(eqn, self.b.location, args, outs, region, start, len(region.ops)))
            return outs

    def _ruled(self, rule: Rule, eqn: Any, args: list[Operand]) -> Any:
        """The rule's results; which of them may be infinite is noted."""
        name, before, outer = eqn.primitive.name, len(self.infinite), self._infinite_in
        self._infinite_in = infinite.comes_in(name, args, self.infinite) or infinite.is_carried(eqn)
        try:
            results = rule(self, *args, **eqn.params)
            if self._infinite_in or (name in infinite.WITH_BODIES and len(self.infinite) > before):
                self._note(results if eqn.primitive.multiple_results else [results])
        finally:
            self._infinite_in = outer
        return results

    def _note(self, values: Sequence[Any]) -> None:
        self.infinite.update(x for x in values if isinstance(x, Value) and x.type.kind == "fxp")

    @contextmanager
    def _at(self, eqn: Any) -> Any:
        """Set the equation at hand; errors raised within name it and the user's line."""
        before = self.b.location, self.primitive, self.outs
        self._equations.append(eqn)
        self.b.location = location_of(eqn, self._body) or before[0]
        self.primitive, self.outs = eqn.primitive.name, [v.aval for v in eqn.outvars]
        try:
            yield
        except SpuError as e:
            if e is self._reported:
                raise
            self._reported = type(e)(f"{self.b.location}: `{eqn.primitive.name}`: {e}")
            raise self._reported from None
        finally:
            self.b.location, self.primitive, self.outs = before
            self._equations.pop()

    @property
    def special(self) -> bool:
        """Whether the equation at hand is JAX's, in a special function or a distribution."""
        return is_special(self._equations)

    def _check(self, x: Operand, aval: Any) -> None:
        if isinstance(x, Value):
            got, want = (x.type.element, x.shape), (self.element(aval.dtype), aval.shape)
            assert got == want, f"{self.primitive} gave {got}, should give {want}"
        else:
            assert np.shape(x) == aval.shape, f"{self.primitive} gave {np.shape(x)}, not {aval.shape}"

    # regions --------------------------------------------------------------------------------------

    @contextmanager
    def region(self, types: Sequence[Type]) -> Any:
        """A new region with parameters of these types; what is built within goes there."""
        with self.b.inside(Region([Value(t) for t in types])) as region:
            if self._infinite_in:
                self._note(region.params)
            yield region


def _always_chosen(args: Sequence[Operand]) -> Operand:
    """The case that a known condition chooses for all elements, or what is undefined."""
    which, *cases = args
    if isinstance(which, np.ndarray) and fixedpoint.is_uniform(which):
        return cases[int(which.flat[0])]
    return next(x for x in args if isinstance(x, Undefined))


def dtype_of(aval: Any) -> Any:
    return aval.dtype


def is_special(equations: Sequence[Any]) -> bool:
    """Whether the last of these equations is JAX's, in a special function or a distribution; the others are its calls.

    What helpers such as `jnp.where` consist of is traced once for all callers: then the call tells.
    """
    for call, eqn in reversed(list(pairwise([None, *equations]))):
        file = _file_of(call) if call is not None else ""
        if file.startswith(SPECIAL_FUNCTIONS):
            return True
        if not file.startswith(JAX_FILES):
            return in_special_function(eqn)
    return False


def _file_of(call: Any) -> str:
    """Where the function of a call is written, if that is known."""
    return next((b.debug_info.func_filename or "" for b in bodies(call.params)), "")


def missing(name: str, supported: Collection[str]) -> str:
    return f"there is no secure implementation. {nearest(name, supported)}"


def at(location: Location, message: str) -> str:
    return f"{location}: {message}"
