"""From shares that two parties hold, or one party's values, to secrets of the virtual machine.

What two parties hold enters the machine as a private value of each; their sum is local. So masks are fresh,
and every protocol, whoever computes, can take the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from spuvm.calls import Jitted
from spuvm.compiler.compile import Program
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Type, Value
from spuvm.objects import SPUObject
from spuvm.psi.selection import Shares
from spuvm.psi.tables import Field
from spuvm.runtime.machine.components import aligned
from spuvm.runtime.ring.elements import RING_DTYPE, WIDE
from spuvm.vm import VM


def words_dtype(vm: VM) -> Any:
    """Of numbers in a sharing."""
    return RING_DTYPE[vm.config.ring_bits]


def secrets_of(vm: VM, shares: Shares, shape: tuple[int, int], bits: bool) -> list[SPUObject]:
    """Raw secrets [rows], one for each row of the shares' matrix [columns, rows]: words, or bools (bytes' low bits)."""
    if not shape[0]:
        return []
    owners = tuple(vm.config.members.index(p) for p in shares)
    program = _program(vm.config, owners, shape, bits)
    values = [None if h.value is None else _own(h.value, bits) for h in shares.values()]
    (joined,) = vm.run(program, values)
    element = joined.type
    return [
        SPUObject(
            tuple(None if c is None else aligned(np.asarray(c)[i]) for c in joined.components),
            element.with_(shape=shape[1:]),
            np.dtype(np.bool_) if bits else np.dtype(np.int64),
            vm,
        )
        for i in range(shape[0])
    ]


def _own(share: np.ndarray, bits: bool) -> np.ndarray:
    """A party's words as integers of the ring's width (of 128 bits: as elements), or bits as bools."""
    return (share & 1).astype(bool) if bits else share if share.dtype == WIDE else share.view(f"i{share.itemsize}")


def typed(x: SPUObject, field: Field) -> SPUObject:
    """A raw secret read as a column."""
    if field.is_bool:
        return x
    dtype = field.jax_dtype
    config = x.vm.config
    if dtype.kind == "f":
        type_ = Type("fxp", x.type.shape, "secret", frac=config.fxp_fraction_bits)
    else:
        type_ = Type("int", x.type.shape, "secret", bits=8 * dtype.itemsize, signed=True)
    return SPUObject(x.parts, type_, dtype, x.vm)


@lru_cache(maxsize=256)
def _program(config: Any, owners: tuple[int, ...], shape: tuple[int, ...], bits: bool) -> Program:
    element = Type("bool", shape) if bits else Type("int", shape, bits=min(config.ring_bits, 64), signed=True)
    builder = Builder(config.fxp_fraction_bits, config.ring_bits)
    builder.region.params = [Value(element.with_(visibility=o)) for o in owners]
    total, *rest = (builder.op("share", v, to="secret") for v in builder.region.params)
    for x in rest:
        total = builder.op("xor" if bits else "add", total, x)
    builder.region.results = [total]
    names = tuple(f"share[{i}]" for i in range(len(owners)))
    dtype = "bool" if bits else f"int{min(config.ring_bits, 64)}"
    return Program(
        Module("joined", builder.region, names, ("joined",), (dtype,) * len(owners), (dtype,), config.settings)
    )


def machine_function(vm: VM, function: Any) -> Jitted:
    """A function on secrets of the machine, and on public arrays; compiled once for each shape."""
    known = _FUNCTIONS.setdefault(vm, {})
    if function not in known:
        known[function] = Jitted(function, vm, default="public")
    return known[function]


_FUNCTIONS: WeakKeyDictionary[VM, dict[Any, Jitted]] = WeakKeyDictionary()


def unpacked(packed: Sequence[Any], count: int) -> list[Any]:
    """Bits of bytes [bytes, rows] one by one, as uint8 [count, rows]: lowest first."""
    return [(packed[i // 8] >> np.uint8(i % 8)) & np.uint8(1) for i in range(count)]
