"""Between an HEU and an SPU, semi-honest: what the key's keeper sees is masked by an evaluator.

To an SPU: the evaluator adds a random r of 40 bits more than the number has, the keeper decrypts x + r, and what both
know enters the machine as private values whose sum is x. From an SPU: the machine reveals x + r modulo 2^k to the
keeper, r an evaluator's; the keeper encrypts it, and the evaluator subtracts r. The ciphertext is right modulo 2^k.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Type, Value
from spuvm.context import here
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.he import layout
from spuvm.he.object import HEUObject
from spuvm.he.parameters import MASK_BITS
from spuvm.objects import SPUObject
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.lattice.sampling import Random

if TYPE_CHECKING:
    from spuvm.he.device import HEU


def to_spu(heu: HEU, x: HEUObject, spu: SPU) -> SPUObject:
    """Secret on the machine, in its fixed point."""
    vm, config = spu.vm, spu.vm.config
    if not x.encrypted or x.party == heu.sk_keeper:
        own = heu.at(x.party, lambda: heu._own(x))
        out: SPUObject = PYUObject(PYU(x.party or heu.sk_keeper), own).to(spu)
        return out
    owners = _ranks(config, heu.sk_keeper, str(x.party))
    width = x.ring or min(config.ring_bits, 64)
    if width > config.ring_bits:
        raise InputError(f"{x!r} came from a ring of {x.ring} bits, and {spu!r} has {config.ring_bits}.")
    bits = (x.bound << MASK_BITS).bit_length()
    if bits + 2 > heu.scheme.modulus.bit_length() - 2:
        raise InputError(
            f"{x!r} may reach 2^{x.bound.bit_length()}, too large to be masked: say how large its factors are "
            "(`x.to(heu, bits=...)`), or use the larger degree."
        )
    here().propose("decrypted", f"{x!r} for {spu!r}")
    drawn = heu.at(x.party, lambda: Random().below_power(bits, x.size))
    plain, mask = heu.to_keeper(x, None if drawn is None else lambda: heu.scheme.plain(drawn, heu.public))
    shares = [
        heu.at(heu.sk_keeper, lambda: heu.scheme.low_words(plain, heu.public)),
        heu.at(x.party, lambda: np.negative(heu.scheme.low_words(mask, heu.public))),
    ]
    values = [None if s is None else s.astype(f"u{width // 8}").view(f"i{width // 8}").reshape(x.shape) for s in shares]
    (joined,) = vm.run(_joined(config, owners, x.shape, width), values)
    return _read_as(joined, x.frac, x.dtype)


def from_spu(heu: HEU, x: SPUObject) -> HEUObject:
    """Encrypted at the first evaluator that the machine knows."""
    vm, config = x.vm, x.vm.config
    if x.type.kind == "bool" or np.dtype(x.dtype).kind == "c" or config.ring_bits == 128 or vm.deals:
        raise InputError(f"{x!r} cannot move to an HEU: convert bools to numbers; rings of 128 bits are too wide.")
    if x.valid is not None:
        raise InputError(f"{x!r} cannot move to an HEU, which has no NaN: fill in numbers first (`jnp.nan_to_num`).")
    if x.type.is_public:
        return heu.encrypted(heu.operand(x.known_value()))
    if isinstance(x.type.visibility, int):
        own: HEUObject = x.to(PYU(config.members[x.type.visibility])).to(heu)
        return own
    party = next((p for p in heu.evaluators if p in config.members), heu.evaluators[0])
    keeper, owner = _ranks(config, heu.sk_keeper, party)
    width = x.type.bits if x.type.kind == "int" else config.ring_bits
    element = Type("int", x.type.shape, bits=width, signed=True)
    signed = np.dtype(f"i{width // 8}")
    raw = SPUObject(x.parts, element, signed, vm)
    here().propose("encrypted", f"{x!r} for {heu!r}")
    mask = heu.at(party, lambda: Random().words(x.size).astype(f"u{width // 8}").view(signed).reshape(x.shape))
    (shown,) = vm.run(_masked(config, (owner, keeper), x.type.shape, width), [raw, mask])
    vm.session.conclude()
    frac = x.type.frac
    dtype = np.dtype(x.dtype)
    scheme, key = heu.scheme, heu.public
    places, cells = layout.natural(x.shape, scheme.slots)
    out = HEUObject(
        heu, heu.sk_keeper, x.shape, dtype, frac, 1 << (width + 1), None, places, cells, scheme.fresh, width
    )
    opened = heu.at(heu.sk_keeper, lambda: np.asarray(shown.known_value()).astype(np.int64))
    out = out.with_(value=heu.at(heu.sk_keeper, lambda: scheme.encrypt(heu.spread(out, opened), key)))
    out = heu._there(out, party)
    minus = heu.at(party, lambda: -np.asarray(mask).astype(np.int64).astype(object))
    value = heu.at(party, lambda: scheme.add_plain(out.value, heu.spread(out, minus), key))
    return heu.checked(out.with_(value=value, noise=out.noise + 1, computed=True))


def _ranks(config: Config, *parties: str) -> tuple[int, ...]:
    missing = [p for p in parties if p not in config.members]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be known to the SPU ({', '.join(config.members)}).")
    return tuple(config.members.index(p) for p in parties)


def _read_as(x: SPUObject, frac: int, dtype: np.dtype[Any]) -> SPUObject:
    """Ring elements as integers, or as fixed point of `frac` bits brought to the machine's."""
    usual = x.vm.config.fxp_fraction_bits
    if dtype.kind != "f":
        return SPUObject(x.parts, x.type, np.dtype(f"i{x.type.bits // 8}"), x.vm)
    out = SPUObject(x.parts, Type("fxp", x.type.shape, "secret", frac=frac), np.dtype(np.float32), x.vm)
    if frac <= usual:
        if frac == usual:
            return out
        raise InputError(f"the HEU has {frac} fraction bits and the SPU {usual}: give the HEU as many, or more.")
    (cut,) = x.vm.run(_truncated(x.vm.config, out.type, frac - usual), [out])
    return cut


@lru_cache(maxsize=256)
def _joined(config: Config, owners: tuple[int, ...], shape: tuple[int, ...], width: int) -> Program:
    element = Type("int", shape, bits=width, signed=True)
    builder = Builder(config.fxp_fraction_bits, config.ring_bits)
    builder.region.params = [Value(element.with_(visibility=o)) for o in owners]
    x, y = (builder.op("share", v, to="secret") for v in builder.region.params)
    builder.region.results = [builder.op("add", x, y)]
    return _program("decrypted", builder, ("kept", "masks"), config, f"int{width}")


@lru_cache(maxsize=256)
def _masked(config: Config, ranks: tuple[int, int], shape: tuple[int, ...], width: int) -> Program:
    owner, keeper = ranks
    element = Type("int", shape, bits=width, signed=True)
    builder = Builder(config.fxp_fraction_bits, config.ring_bits)
    builder.region.params = [Value(element), Value(element.with_(visibility=owner))]
    x, r = builder.region.params
    masked = builder.op("add", x, builder.op("share", r, to="secret"))
    builder.region.results = [builder.op("reveal", masked, to=keeper)]
    return _program("masked", builder, ("x", "mask"), config, f"int{width}")


@lru_cache(maxsize=256)
def _truncated(config: Config, type_: Type, bits: int) -> Program:
    builder = Builder(config.fxp_fraction_bits, config.ring_bits)
    builder.region.params = [Value(type_)]
    builder.region.results = [builder.op("trunc", builder.region.params[0], bits=bits)]
    return _program("truncated", builder, ("x",), config, "float32")


def _program(name: str, builder: Builder, inputs: tuple[str, ...], config: Config, dtype: str) -> Program:
    return Program(Module(name, builder.region, inputs, (name,), (dtype,) * len(inputs), (dtype,), config.settings))
