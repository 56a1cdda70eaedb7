"""The state of an expansion: what is emitted, and each value's sharings.

`Expander` keeps, for each IR value, its sharings by share kind (see `runtime.protocols.protocol`) and
converts between kinds when a rule asks for one, once per value. Values that somebody knows are
computed by `plain` kernels where they are known. The rules, one an operation, are given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.compiler.expand.choreography import Block, Call, Check, KernelSpec, Slot
from spuvm.compiler.ir.module import Location, Op, Region, Type, Value, uses
from spuvm.runtime.errors import IRError
from spuvm.runtime.protocols.algebra import Algebra
from spuvm.runtime.protocols.protocol import KEYED, Protocol
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import LIMB_DTYPE, Word, limb_count, limbs, words

Components = tuple[Any, ...]
Rule = Callable[["Expander", Op], None]


@dataclass(frozen=True)
class Shared:
    """A sharing in the choreography. Slots of shape () stand for any shape: all elements equal.

    The slots are those of its components, one after another; `dtype` is that of a slot.
    """

    kind: str
    slots: tuple[Slot, ...]
    owner: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.slots[0].shape

    @property
    def dtype(self) -> str:
        return self.slots[0].dtype

    @property
    def known(self) -> bool:
        return self.kind in "pv"

    @property
    def small(self) -> bool:
        """Whether the elements are kept in bytes: bools, and known numbers 0 and 1 that were bools."""
        return self.dtype == "uint8"


@dataclass(frozen=True)
class Product:
    """An element-wise product that waits for its truncation: kinds aa, or vma of a private factor."""

    kinds: str
    operands: tuple[Shared, ...]
    owner: int | None = None


def group(arrays: Sequence[Any], arity: Sequence[int], limbs: Sequence[int] = ()) -> list[Components]:
    """Flat slots' arrays -> one tuple of components per sharing; `limbs` says how many slots make one of its."""
    out, at = [], 0
    for n, count in zip(arity, limbs or [1] * len(arity)):
        slots = arrays[at : at + n]
        out.append(tuple(slots) if count == 1 else tuple(map(Word, slots[::2], slots[1::2])))
        at += n
    return out


@cache
def _flat(
    function: Callable[..., Components],
    arity: tuple[int, ...],
    limbs: tuple[int, ...],
    params: tuple[tuple[str, Any], ...],
    broadcast: bool,
) -> Callable[..., Components]:
    """`function` over sharings as a function over the arrays of their slots; scalars grow to the block."""

    def flat(*arrays: Any) -> Components:
        if broadcast:
            shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
            arrays = tuple(jnp.broadcast_to(a, shape) if a.shape != shape else a for a in arrays)
        return tuple(jax.tree.leaves(function(*group(arrays, arity, limbs), **dict(params))))

    return flat


class Expander:
    """Emits calls into the current block.

    A private value may have, beside kind v, the forms m (masked at the others) and s: the same
    numbers as bytes, which its owner reads in products instead of v.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        protocol: Protocol,
        ring_bits: int = 64,
        *,
        exact: bool = False,
        seconds: Callable[[Call], float] | None = None,
    ) -> None:
        self.rules = rules
        self.protocol = protocol
        self.ring_bits = ring_bits
        self.exact = exact  # whether truncations compare what they drop
        self.seconds = seconds  # of a call; None: of kernels that give the same the usual one is taken
        self.word = LIMB_DTYPE[ring_bits]  # the dtype of numbers' slots
        self.block = Block()
        self.values: dict[Value, dict[str, Shared]] = {}
        self.products: dict[Value, Product] = {}  # those whose only use is a trunc
        self.users: dict[Value, list[Op | None]] = {}
        self.truncated: set[Value] = set()
        self.unverified = False  # whether anything was sent since the last check
        self.op = ""
        self.location = Location()

    # emitting ----------------------------------------------------------------------------------

    def emit(
        self,
        name: str,
        function: Callable[..., Components],
        operands: Sequence[Shared],
        kind: str,
        *,
        shape: tuple[int, ...],
        dtype: str | None = None,
        owner: int | None = None,
        elementwise: bool = True,
        communicates: bool = False,
        shows: bool = False,
        params: tuple[tuple[str, Any], ...] = (),
    ) -> Shared:
        """Call a kernel; element-wise on scalars only, it gives a scalar for any shape.

        `dtype` is that of the result's slots: of numbers, if not given.
        """
        dtype = dtype or self.word
        slots = [s for x in operands for s in x.slots]
        if elementwise and all(s.shape == () for s in slots):
            shape = ()
        holders = self.protocol.components(kind, owner)
        outputs = self.slots(shape, dtype, holders)
        open_length = elementwise and shape != ()
        spec = KernelSpec(
            name=name,
            params=params,
            shapes=tuple(None if elementwise and (s.shape != () or not open_length) else s.shape for s in slots),
            dtypes=tuple(s.dtype for s in slots),
            holders=tuple(s.holders for s in slots),
            out_holders=tuple(s.holders for s in outputs),
            elementwise=elementwise,
            communicates=communicates,
            function=_flat(
                function,
                tuple(len(x.slots) for x in operands),
                tuple(self.limbs(x.dtype) for x in operands),
                params,
                elementwise,
            ),
            limbs=self.limbs(self.word),
            shows=shows,
        )
        if shows:
            self.check()
        self.block.steps.append(Call(spec, slots, outputs, self.op, self.location))
        self.unverified |= communicates
        return Shared(kind, tuple(outputs), owner)

    def check(self) -> None:
        """Before something is revealed, and at the end: what was sent until now is what it should be."""
        if self.protocol.verified and self.unverified:
            self.block.steps.append(Check(self.protocol.world_size, location=self.location))
            self.unverified = False

    def limbs(self, dtype: str) -> int:
        """How many slots of `dtype` make a component."""
        return limb_count(self.ring_bits, dtype)

    def slots(self, shape: tuple[int, ...], dtype: str, holders: Sequence[frozenset[int]]) -> list[Slot]:
        """New slots for a sharing whose components these ranks hold."""
        return [Slot(shape, dtype, h) for h in holders for _ in range(self.limbs(dtype))]

    def kernel(
        self,
        name: str,
        *operands: Shared,
        dtype: str | None = None,
        owner: int | None = None,
        shape: tuple[int, ...] | None = None,
        **params: Any,
    ) -> Shared:
        """Call a kernel of the protocol by name on operands of the kinds that it declares.

        Where another gives the same, by keys, the quicker one is called.
        """
        how: dict[str, Any] = {"dtype": dtype, "owner": owner, "shape": shape, **params}
        if self.seconds is not None and KEYED + name in self.protocol.kernels:
            name = self._quicker((name, KEYED + name), *operands, **how)
        return self._called(name, *operands, **how)

    def _called(
        self,
        name: str,
        *operands: Shared,
        dtype: str | None = None,
        owner: int | None = None,
        shape: tuple[int, ...] | None = None,
        **params: Any,
    ) -> Shared:
        kernel = self.protocol.kernels[name]
        assert "".join(x.kind for x in operands) == kernel.inputs, (name, [x.kind for x in operands])
        if owner is not None:
            params["owner"] = owner
        if shape is None:
            shape = tuple(np.broadcast_shapes(*(x.shape for x in operands)))
        return self.emit(
            name,
            kernel.function,
            operands,
            kernel.output,
            shape=shape,
            dtype=dtype,
            owner=owner if kernel.output in "vm" else None,
            elementwise=kernel.elementwise,
            communicates=not kernel.local,
            shows=kernel.output in "pvc" and not set(kernel.inputs) <= set("v"),
            params=tuple(sorted(params.items())),
        )

    def _quicker(self, names: Sequence[str], *operands: Shared, **how: Any) -> str:
        """The kernel whose call, by itself, takes the fewest seconds; the first if several do."""
        assert self.seconds is not None
        found = {}
        for name in names:
            with self.within(Block()):
                self._called(name, *operands, **how)
                (call,) = self.block.steps
            assert isinstance(call, Call)
            found[name] = self.seconds(call)
        return min(names, key=found.__getitem__)

    def local(
        self,
        name: str,
        function: Callable[..., Components],
        *operands: Shared,
        kind: str,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        elementwise: bool = True,
        attrs: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Shared:
        """Apply a local function of sharings; known operands give the owner of a known result."""
        owners = {x.owner for x in operands if x.kind in "vm"}
        if shape is None:
            shape = tuple(np.broadcast_shapes(*(x.shape for x in operands)))
        return self.emit(
            name,
            function,
            operands,
            kind,
            shape=shape,
            dtype=dtype,
            owner=owners.pop() if kind in "vm" else None,
            elementwise=elementwise,
            params=tuple(sorted({**(attrs or {}), **params}.items())),
        )

    def apply(
        self,
        name: str,
        function: Callable[..., Any],
        *operands: Shared,
        kind: str,
        public: tuple[int, ...] = (),
        **how: Any,
    ) -> Shared:
        """A function of elements. On known operands any; on sharings one that is linear over the kind's addition.

        The operands at the places `public` are public, and the function need not be linear in them.
        """
        return self.local(name, _applied(self.protocol.algebra, kind, function, public), *operands, kind=kind, **how)

    def join(self, name: str, function: Callable[..., Any], x: Shared, y: Shared, dtype: str | None = None) -> Shared:
        """A public value y joins a sharing: x + y, x - y or x ^ y."""
        return self.local(name, _joined(self.protocol.algebra, x.kind, function), x, y, kind=x.kind, dtype=dtype)

    def constant(self, data: Any, dtype: str | None = None) -> Shared:
        """A public constant of integers; one that repeats a single element is kept as a scalar."""
        data = np.asarray(data, np.uint8) if dtype == "uint8" else words(data, self.ring_bits)
        if data.size and (data == data.reshape(-1)[0]).all():
            data = data.reshape(-1)[0]
        data = np.array(data, order="C")
        slots = self.slots(data.shape, dtype or self.word, self.protocol.components("p"))
        self.block.constants.extend(zip(slots, limbs(data), strict=True))
        return Shared("p", tuple(slots))

    # values and their share kinds ----------------------------------------------------------------

    def primary(self, value: Value) -> Shared:
        """The sharing that the value was computed as."""
        return next(iter(self.values[value].values()))

    def set(self, value: Value, shared: Shared) -> None:
        if shared.kind == "d" and value not in self.truncated and self._readers(value) > 1:
            shared = self.kernel("reshare_d", shared)  # once, here, and not for each of them
        if shared.kind != "h":
            self.values[value] = {shared.kind: shared}
            return
        count = self.limbs(shared.dtype)
        known = Shared("v", shared.slots[:count], shared.owner)
        masked = Shared("m", shared.slots[count:], shared.owner)
        if known.small and value.type.kind != "bool":
            self.values[value] = {"v": self.widened(known), "s": known, "m": masked}
        else:
            self.values[value] = {"v": known, "m": masked}

    def _readers(self, value: Value) -> int:
        """Who reads a value as large as it is: sums make it smaller first."""
        return sum(user is None or user.name != "sum" for user in self.users.get(value, []))

    def as_kind(self, value: Value, kind: str) -> Shared:
        """The value as a sharing of kind `a` or `b`, converted at most once."""
        known = self.values[value]
        if kind not in known:
            known[kind] = self.converted(self.primary(value), kind)
        return known[kind]

    def arithmetic(self, value: Value) -> Shared:
        """Public, or an arithmetic sharing."""
        x = self.primary(value)
        return x if x.kind == "p" else self.as_kind(value, "a")

    def summand(self, value: Value) -> Shared:
        """Public, arithmetic, or a product not yet reshared: what linear operations take."""
        x = self.primary(value)
        return x if x.kind in "pad" else self.as_kind(value, "a")

    def boolean(self, value: Value) -> Shared:
        """Public, or a boolean sharing."""
        x = self.primary(value)
        return x if x.kind == "p" else self.as_kind(value, "b")

    def converted(self, x: Shared, kind: str) -> Shared:
        is_bool = x.small
        match x.kind + kind:
            case "aa" | "bb":
                return x
            case "da":
                return self.kernel("reshare_d", x)
            case "db":
                return self.converted(self.converted(x, "a"), "b")
            case "ab":
                return self.kernel("a2b", x)
            case "ba":
                return self.injected(x) if is_bool else self.kernel("b2a", x)
            case "va" | "pa":
                word = self.widened(x) if is_bool else x
                return self.trivial(word, "a") if x.kind == "p" else self.kernel("share_v", word, owner=x.owner)
            case "vb":
                return self.kernel("share_vb", x, owner=x.owner, bits=self.bits(x), dtype=x.dtype)
            case "pb":
                return self.trivial(x, "b")
            case "vm":
                return self.kernel("mask_v", x, owner=x.owner, ring=self.ring_bits)
        raise IRError(f"no conversion from share kind {x.kind} to {kind}")

    def widened(self, x: Shared) -> Shared:
        """A known bool as the ring elements 0 and 1."""
        return self.apply("widen", _widened, x, kind=x.kind, ring=self.ring_bits)

    def injected(self, x: Shared) -> Shared:
        """A shared bool as the ring elements 0 and 1."""
        return self.kernel("bit2a", x, ring=self.ring_bits)

    def bits(self, x: Shared) -> int:
        """The significant bits of an element."""
        return 1 if x.small else self.ring_bits

    def summands(self, x: Shared) -> Shared:
        """An arithmetic sharing as products are before they are reshared."""
        return x if x.kind == "d" else self.local("summands", _as_summands(self.protocol.algebra), x, kind="d")

    def low_bit(self, x: Shared) -> Shared:
        """The lowest bit of an arithmetic sharing, as a bool."""
        return self.local("low_bit", _low_bit(self.protocol.algebra), x, kind="b", dtype="uint8")

    def trivial(self, x: Shared, kind: str) -> Shared:
        """A public value as a sharing."""
        return self.local("trivial", _trivial(self.protocol.algebra, kind), x, kind=kind, dtype=x.dtype)

    def whole(self, x: Shared, shape: tuple[int, ...]) -> Shared:
        """A sharing whose slots really have `shape`."""
        if x.shape == shape:
            return x
        return self.apply("fill", _fill, x, kind=x.kind, shape=shape, dtype=x.dtype, elementwise=False, to=shape)

    # regions -----------------------------------------------------------------------------------------

    def edge(self, value: Value) -> Shared:
        """The form in which a value leaves the program: as within it, or masked if it is to be."""
        x = self.boundary(value)
        return self.masked_form(value, x) if value.type.masked else x

    def masked_form(self, value: Value, known: Shared) -> Shared:
        """Kind h of a private value. The owner keeps nothing but the value itself."""
        x = self.whole(self.as_kind(value, "m"), value.shape)
        if tuple(s.holders for s in x.slots[:: self.limbs(x.dtype)]) != self.protocol.components("m", x.owner):
            x = self.apply("keep", _keep, x, kind="m")
        return Shared("h", (*self.whole(known, value.shape).slots, *x.slots), x.owner)

    def boundary(self, value: Value) -> Shared:
        """The form in which a value enters or leaves a region: p, v, a (numbers) or b (bools)."""
        x = self.primary(value)
        if not x.known or value.type.is_secret:
            x = self.as_kind(value, "b" if value.type.kind == "bool" else "a")
        return self.whole(x, value.shape)

    def fresh(self, type_: Type) -> Shared:
        """New slots for a region's parameter."""
        kind, owner = boundary_form(type_)
        first, *rest = self.protocol.components(kind, owner)
        dtype = "uint8" if type_.kind == "bool" else self.word
        slots = self.slots(type_.shape, dtype, [first])
        slots += self.slots(type_.shape, self.word if kind == "h" else dtype, rest)
        return Shared(kind, tuple(slots), owner)

    def region(self, region: Region, made_before: Mapping[int, Shared] = MappingProxyType({})) -> Block:
        """Expand a nested region into a block; private parameters in `made_before` come in in that form."""
        outer = (self.block, self.values, self.products, self.users, self.truncated)
        self.block, self.values, self.products = Block(), {}, {}
        self.unverified = not self.protocol.proved
        for i, value in enumerate(region.params):
            if i in made_before:
                given = made_before[i]
                slots = tuple(Slot(value.shape, s.dtype, s.holders) for s in given.slots)
                shared = Shared(given.kind, slots, given.owner)
            else:
                shared = self.fresh(value.type.with_(masked=False))
            self.set(value, shared)
            self.block.params.extend(shared.slots)
        self.run(region)
        for value in region.results:
            self.block.results.extend(self.boundary(value).slots)
        if self.protocol.proved:  # so that each check has a known number of products
            self.check()
        block = self.block
        self.block, self.values, self.products, self.users, self.truncated = outer
        self.unverified = not self.protocol.proved  # as far as is known when it is run
        return block

    @contextmanager
    def within(self, block: Block) -> Iterator[None]:
        """What is emitted meanwhile goes to the end of `block`."""
        outer, self.block = self.block, block
        yield
        self.block = outer

    def run(self, region: Region) -> None:
        self.users = uses(region)
        self.truncated = leading_to_trunc(region, self.users)
        for op in _constants_first(region.ops):
            self.op, self.location = op.name, op.location
            self.rules[op.name](self, op)


LINEAR = {"add", "sub", "neg", "sum", "cumsum", "reshape", "transpose", "slice", "rev", "bitcast"}


def leading_to_trunc(region: Region, users: dict[Value, list[Op | None]]) -> set[Value]:
    """Values between which and truncations only linear operations stand: products there need no reshare."""
    out: set[Value] = set()
    for op in reversed(region.ops):
        for value in op.outputs:
            readers = users.get(value, [])
            if readers and all(
                u is not None and (u.name == "trunc" or (u.name in LINEAR and u.output in out)) for u in readers
            ):
                out.add(value)
    return out


def _constants_first(ops: Sequence[Op]) -> list[Op]:
    """The operations in an order in which each finds all constants made: a comparison looks for others."""
    constants: set[Value] = set()
    for op in ops:
        if op.name == "const" or (op.name == "broadcast" and constants.issuperset(op.inputs)):
            constants.add(op.output)
    return sorted(ops, key=lambda op: constants.isdisjoint(op.outputs))


def boundary_form(type_: Type) -> tuple[str, int | None]:
    """Share kind and owner of a value of this type at the edge of a region or program."""
    if type_.is_public:
        return "p", None
    if isinstance(type_.visibility, int):
        return "h" if type_.masked else "v", type_.visibility
    return ("b" if type_.kind == "bool" else "a"), None


@cache
def _applied(algebra: Algebra, kind: str, function: Callable[..., Any], public: tuple[int, ...]) -> Any:
    """The function of elements as one of sharings."""

    def run(*sharings: Components, **params: Any) -> Components:
        known = {i: sharings[i][0] for i in public}

        def of_the_rest(*elements: Any) -> Any:
            rest = iter(elements)
            return function(*(known[i] if i in known else next(rest) for i in range(len(sharings))), **params)

        rest = [x for i, x in enumerate(sharings) if i not in known]
        if kind in "pv":
            return (of_the_rest(*(x for (x,) in rest)),)
        return algebra.linear(kind, of_the_rest, *rest)

    return run


@cache
def _joined(algebra: Algebra, kind: str, function: Callable[..., Any]) -> Any:
    return lambda x, y: algebra.join(kind, function, x, y[0])


@cache
def _as_summands(algebra: Algebra) -> Any:
    return lambda x: algebra.summands(x)


@cache
def _low_bit(algebra: Algebra) -> Any:
    return lambda x: algebra.low_bit(x)


@cache
def _trivial(algebra: Algebra, kind: str) -> Any:
    return lambda x: algebra.public(kind, x[0])


def _widened(x: Any, *, ring: int) -> Any:
    return bt.cast(x, ring)


def _keep(x: Any) -> Any:
    return x


def _fill(x: Any, *, to: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda a: jnp.broadcast_to(a, to), x)
