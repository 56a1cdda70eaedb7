"""SPUObject: a value on the virtual machine, seen from Python. Printing it shows no value."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from spuvm.arraylike import ArrayLike
from spuvm.compiler.expand.expander import boundary_form
from spuvm.compiler.ir.module import Type
from spuvm.runtime.errors import EncodingError, InputError, VisibilityError
from spuvm.runtime.machine.components import Blocked, Component, aligned, whole
from spuvm.runtime.protocols.sharings import reconstruct
from spuvm.runtime.ring.elements import limb_count, limbs
from spuvm.runtime.ring.encodings import decode, encode

if TYPE_CHECKING:
    from spuvm.vm import VM


class Remote(ABC):
    """A value that lives on a device: Python has it when it is shown, and devices take it."""

    @abstractmethod
    def reveal(self) -> Any:
        """The value, shown to all parties."""


class Tabular(ABC):
    """What several parties hold together; a function on a device takes its columns, shown to nobody."""

    @abstractmethod
    def arguments(self, device: Any) -> Any:
        """What a function on the device gets: arrays by the names of the columns; of one column its array."""


class Receiver(ABC):
    """A device that values of a machine can be handed to."""

    @abstractmethod
    def receive(self, x: SPUObject) -> Any:
        """The object there, revealed to nobody else."""


@dataclass(frozen=True)
class Marked:
    """An argument with the visibility that the user chose for it."""

    value: Any
    visibility: str  # "secret", "public", or a party's name
    identity: str = ""  # which object it is, at every party
    bound: float | None = None  # what its numbers are below, in magnitude
    missing: bool = False  # whether it may be NaN

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.value))

    @property
    def dtype(self) -> Any:
        return getattr(self.value, "dtype", None) or np.asarray(self.value).dtype


@dataclass(eq=False, frozen=True)
class SPUObject(ArrayLike, Remote):
    """`parts` are the components that this process holds, None for the others; they may be in blocks.

    `dtype` is the JAX dtype that the value decodes to, `type` its type on the machine. Of a value that may be NaN,
    `valid` is an object of bools: where it is a number. Elsewhere its components are those of 0.
    """

    parts: tuple[Component | None, ...]
    type: Type
    dtype: Any
    vm: VM
    valid: SPUObject | None = None
    number: int = field(init=False)  # of all objects of the machine, the same at every party

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", self.vm.number())

    @property
    def components(self) -> tuple[Any, ...]:
        """The parts as whole arrays; joined once, when they are first asked for."""
        joined = tuple(None if c is None else whole(c, self.type.shape) for c in self.parts)
        object.__setattr__(self, "parts", joined)
        return joined

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape[:-1] if np.dtype(self.dtype).kind == "c" else self.type.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def visibility(self) -> str:
        who = self.type.visibility
        return who if isinstance(who, str) else f"private({self.vm.config.members[who]})"

    def block_until_ready(self) -> SPUObject:
        """Wait until the value is computed; returns itself, as JAX arrays do."""
        jax.block_until_ready([c.blocks if isinstance(c, Blocked) else c for c in self.parts])
        return self

    def to(self, party: Any) -> Any:
        """Reveal to one party alone: a PYU, or a name. Returns an object there."""
        return self.vm.hand_over(self, party)

    def reveal(self) -> Any:
        """The value, shown to all parties."""
        return self.vm.reveal([self])[0]

    def known_value(self) -> Any:
        """The array, if this process may read it without asking anyone."""
        value = decode(self.known_raw(), self.type.kind, self.type.frac, self.dtype)
        return (
            value if self.valid is None else np.where(self.valid.known_value(), value, np.asarray(np.nan, value.dtype))
        )

    def known_raw(self) -> np.ndarray:
        """Its ring elements, if this process may read them."""
        if self.parts[0] is None:
            raise VisibilityError("this party does not hold the value: its owner does. Use `spu.reveal`.")
        kind, _ = boundary_form(self.type)
        count = slots_of_component(self.type, self.vm)
        known, components = ("v", self.components[:count]) if kind == "h" else (kind, self.components)
        return np.asarray(reconstruct(self.vm.protocol.algebra, known, components, count))

    def __repr__(self) -> str:
        dims = ",".join(map(str, self.shape))
        config = self.vm.config
        who = self.visibility + " masked" * self.type.masked + " may be NaN" * (self.valid is not None)
        return f"<SPUObject {np.dtype(self.dtype).name}[{dims}] {who} {config.protocol}/{config.ring_bits}>"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar SPUObject has no length, and no items: its shape is ().")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> Any:
        raise InputError("an SPUObject is not pickled, as a process holds shares of it: use `spu.save_shares`.")

    def __copy__(self) -> SPUObject:
        return self

    def __deepcopy__(self, memo: Any) -> SPUObject:
        return self


def identity(leaf: Any, visibility: str | int, members: Sequence[str]) -> str:
    """Which object an argument is, in words that are the same at every party; of a plain one, whose: `visibility`."""
    if isinstance(leaf, SPUObject):
        return f"object {leaf.number} of {leaf.vm.session.name}"
    if isinstance(leaf, Marked) and leaf.identity:
        return leaf.identity
    return f"{visibility} input" if isinstance(visibility, str) else f"input of {members[visibility]}"


def slots_of_component(type_: Type, vm: VM) -> int:
    """How many arrays hold one component of a value."""
    return limb_count(vm.config.ring_bits, np.uint8 if type_.kind == "bool" else np.uint64)


def slots_of(type_: Type, vm: VM) -> int:
    """How many arrays hold a value."""
    kind, owner = boundary_form(type_)
    rest = type_.with_(kind="int") if kind == "h" else type_  # a masked bool is masked as a number
    others = len(vm.protocol.components(kind, owner)) - 1
    return slots_of_component(type_, vm) + others * slots_of_component(rest, vm)


def encoded(value: Any, type_: Type, name: str, ring_bits: int = 64) -> np.ndarray:
    """Ring elements of a host array that is to be of `type_`."""
    array = parts(np.asarray(value))
    if array.shape != type_.shape:
        raise InputError(f"`{name}` has shape {array.shape}, the program takes {type_.shape}.")
    _check_range(array, type_, name)
    raw = aligned(encode(array, type_.frac, name, ring_bits))
    if (raw.dtype == np.uint8) != (type_.kind == "bool"):
        raise InputError(f"`{name}` is {array.dtype}, the program takes {type_.element}.")
    return raw


def _check_range(array: np.ndarray, type_: Type, name: str) -> None:
    """Refuse integers that the program's type does not hold: with 64-bit types off, JAX takes int64 for int32.

    Words of the type's own width are taken as they are: who has ring elements may call them signed or not.
    """
    if type_.kind != "int" or array.dtype.kind not in "iu" or not array.size or 8 * array.itemsize == type_.bits:
        return
    low, high = (-(1 << type_.bits - 1), (1 << type_.bits - 1) - 1) if type_.signed else (0, (1 << type_.bits) - 1)
    if int(array.min()) < low or int(array.max()) > high:
        raise EncodingError(
            f"`{name}` has {array.dtype} numbers that {type_.element} does not hold ({low:,} to {high:,}): let JAX use "
            "64 bits (`jax.enable_x64`, or JAX_ENABLE_X64=1), or give floats."
        )


def _check_bound(value: Any, bound: float | None, name: str) -> None:
    if bound is None:
        return
    array = parts(np.asarray(value)).astype(np.float64)  # |-2^63| is no int64
    if array.size and not np.abs(array).max() < bound:
        raise EncodingError(f"`{name}` has numbers that are not below its bound {bound:g} in magnitude.")


def parts(array: np.ndarray) -> np.ndarray:
    """Complex numbers as real ones, with a last axis of real and imaginary part; others as they are."""
    return np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array


def components_for(value: Any, type_: Type, name: str, vm: VM, bound: float | None = None) -> Sequence[Any]:
    """The components of one argument as the program's port wants them; `bound`: what a calibrated program takes."""
    if isinstance(value, SPUObject):
        return value.components if type_.is_public else value.parts
    if isinstance(value, Marked):
        bound = min((b for b in (bound, value.bound) if b is not None), default=None)
        value = value.value
    kind, owner = boundary_form(type_)
    if kind == "h":
        raise InputError(f"`{name}` is taken masked: pass an object that `spu.masked` made in an earlier call.")
    if vm.deals or (owner is not None and vm.session.party not in (None, owner)):
        return [None] * slots_of_component(type_, vm)
    _check_bound(value, bound, name)
    raw = encoded(value, type_, name, vm.config.ring_bits)
    if kind in "pv":
        return limbs(raw)
    if vm.session.party is not None:
        raise VisibilityError(
            f"`{name}` is a plain array that would become secret, but in a networked run somebody must own it: "
            "create it at its owner with `PYU`, or mark it `spu.public`."
        )
    return vm.session.share(raw, kind)
