"""What a process can tell of numbers that leave the ring: from the arguments that it has itself, before they are used.

A product that leaves the ring is a number like any other afterwards. Who gives the data sees it beforehand: where an
argument is so large that a program's products may be too large, the program runs once in the clear, in this process, on
what this process knows (all of it, in a simulation), and a `RangeWarning` names the lines. Nothing is sent, and nobody
else sees it. A program is looked at again only when an argument has grown by a power of two.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from spuvm.compiler.check.overflowing import Overflow, overflows, scaled
from spuvm.compiler.compile import Program
from spuvm.compiler.ir.module import Module, Type
from spuvm.compiler.lower.missing import validities
from spuvm.compiler.passes.held import terms
from spuvm.compiler.passes.truncation import BLOCK
from spuvm.objects import Marked, SPUObject, encoded, parts
from spuvm.runtime.errors import RangeWarning
from spuvm.runtime.ring.elements import signed

if TYPE_CHECKING:
    from spuvm.vm import VM

MOST = 1 << 24  # numbers of an argument
MOST_SHARED = 1 << 16  # of an object, whose shares are added up to look at it
HAND = 2  # bits in hand, as numbers grow before they are multiplied
ADVICE = (
    "What is made of it is wrong. State what an argument is below (of `{name}`: `spu.bound(x, {bound})` in the "
    "function, or `spu.secret(x, bound={bound})` where it is given): its squares get fewer fraction bits where they "
    "need them, and all parties learn the bound. Or divide it by a power of ten first, or use ring=128. `guard=True` "
    "raises instead. Only this process has seen this, in the data that it has."
)


def warn_of_overflows(program: Program, leaves: Sequence[Any], vm: VM) -> None:
    """Once for each program and size of its arguments. Not of guarded programs, which raise, nor of loaded ones."""
    module = program.module
    if program.traced is None or module.guard or module.ranges or vm.deals:
        return
    if program.large_from is None:
        program.large_from = _least(module)
    params = module.body.params
    known = [_known(x, param.type, vm) for x, param in zip(leaves, params, strict=True)]
    bits = tuple(_bits(x, param.type) for x, param in zip(known, params))
    before = program.looked_at or (0,) * len(bits)
    if max(bits, default=0) < program.large_from or all(now <= then for now, then in zip(bits, before)):
        return
    program.looked_at = tuple(map(max, bits, before))
    ring_bits = vm.config.ring_bits
    raw = [
        None if x is None else x.known_raw() if isinstance(x, SPUObject) else encoded(x, param.type, name, ring_bits)
        for x, param, name in zip(known, params, module.inputs, strict=True)
    ]
    found = overflows(_with_scales(program), raw)
    if found:
        warnings.warn(_told(module, found, bits), RangeWarning, stacklevel=4)


def _known(leaf: Any, type_: Type, vm: VM) -> Any:
    """An argument if this process has it: its own, or, among simulated parties, anybody's."""
    x = leaf.value if isinstance(leaf, Marked) else leaf
    most = MOST_SHARED if isinstance(x, SPUObject) else MOST
    if type_.masked or type_.size > most or isinstance(x, jax.ShapeDtypeStruct):
        return None
    if vm.session.party is None:
        return x
    mine = not isinstance(x, SPUObject) and (type_.is_public or type_.visibility == vm.session.party)
    return x if mine else None


def _bits(x: Any, type_: Type) -> int:
    """|x| < 2^bits, of floats; of other arguments 0."""
    if x is None or type_.kind != "fxp" or not type_.size:
        return 0
    if isinstance(x, SPUObject):
        largest = float(np.abs(np.asarray(signed(x.known_raw()), np.float64)).max()) / 2.0**type_.frac
    else:
        array = parts(np.asarray(x))
        largest = max(float(array.max()), -float(array.min()))
    return max(math.frexp(largest)[1], 0) if np.isfinite(largest) else 0


def _least(module: Module) -> float:
    """Arguments of so many bits may make products that the ring does not hold: sums of 64, or of a dot product."""
    most: int = module.config["ring_bits"] - 2 - 2 * module.config["fxp_fraction_bits"]
    added = max((terms(op) for op in module.body.walk() if op.name == "dot"), default=1)
    return max((most - math.log2(max(added, BLOCK))) / 2 - HAND + 1, 1)


def _with_scales(program: Program) -> Module:
    """The program before it was chosen how its functions are computed."""
    assert program.traced is not None
    module = program.module
    types = [param.type for param in module.body.params]
    missing = list(validities(module.inputs))
    types, bounds = types[: len(types) - len(missing)], module.bounds[: len(types) - len(missing)]
    finer = [t.frac - module.config["fxp_fraction_bits"] if t.kind == "fxp" else 0 for t in types]
    masked = [i for i, t in enumerate(types) if t.masked]
    return scaled(program.traced, [t.visibility for t in types], program.config, finer, bounds, masked, missing)


def _told(module: Module, found: Sequence[Overflow], bits: Sequence[int]) -> str:
    first = ", ".join(f"{x.line} ({x.operation}: 2^{x.reaches}, the ring holds 2^{x.holds})" for x in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    name, size = max(zip(module.inputs, bits), key=lambda pair: pair[1])
    return f"`{module.name}`: numbers leave the ring at {first}{more}. " + ADVICE.format(name=name, bound=2**size)
