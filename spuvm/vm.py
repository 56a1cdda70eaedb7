"""The virtual machine that jitted functions and devices run on: compile once, run many times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Module, Region, Type, Value, Visibility
from spuvm.compiler.passes.ranges import bounds_of_inputs
from spuvm.eager import indexed, method, operator
from spuvm.objects import Marked, Receiver, SPUObject, components_for, identity, slots_of
from spuvm.overflows import warn_of_overflows
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, OPTIMIZE, TRUNCATIONS, Config
from spuvm.runtime.engine import device
from spuvm.runtime.errors import ConfigError, InputError, VisibilityError
from spuvm.runtime.machine.session import Call, Session, abort_on_error
from spuvm.runtime.oblivious.plan import ahead
from spuvm.runtime.oblivious.store import chunk_units
from spuvm.runtime.protocols.oblivious import NAME as OBLIVIOUS
from spuvm.runtime.protocols.registered import protocol_of, usual_parties
from spuvm.watching import WATCHER


class Prepared(NamedTuple):
    """What was made ahead: for how many runs, in how many rounds, and the bytes that both parties sent."""

    runs: int
    rounds: int
    bytes_sent: tuple[int, int]


class VM:
    """One session and the programs compiled for it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.protocol = protocol_of(session.config)
        self._conversions: dict[Any, Program] = {}
        self._made = 0

    @property
    def config(self) -> Config:
        return self.session.config

    @property
    def deals(self) -> bool:
        """Whether this process is the protocol's dealer, who knows no value, public ones included."""
        return self.session.party is not None and self.session.party == self.protocol.dealer

    def visibility(self, leaf: Any, default: str) -> Visibility:
        """Of an argument: as marked, as it is on the machine, or the default."""
        if isinstance(leaf, SPUObject):
            if leaf.vm is not self and leaf.vm.config != self.config:
                raise InputError(
                    f"{leaf!r} lives on another machine than {self!r}: reveal it, or use one configuration."
                )
            if leaf.vm is not self and leaf.vm.session.party is not None:
                raise InputError(f"{leaf!r} belongs to another session.")
            return leaf.type.visibility
        who = leaf.visibility if isinstance(leaf, Marked) else default
        if who in ("secret", "public"):
            return who
        if who not in self.config.members:
            raise InputError(f"`owner` must be one of {', '.join(self.config.members)}, got {who!r}.")
        return self.config.members.index(who)

    def finer(self, leaf: Any) -> int:
        """Fraction bits of an argument beyond the default."""
        own = isinstance(leaf, SPUObject) and leaf.type.kind == "fxp"
        return leaf.type.frac - self.config.fxp_fraction_bits if own else 0

    def run(self, program: Program, leaves: Sequence[Any]) -> list[SPUObject]:
        """Run a program on its flat arguments."""
        module = program.module
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.ran(program)
        leaves = [self._rescaled(x, v.type) for x, v in zip(leaves, module.body.params, strict=True)]
        components: list[Any] = []
        public, bounds = hashlib.sha256(), bounds_of_inputs(module.ranges)
        with abort_on_error(self.session.link):
            warn_of_overflows(program, leaves, self)
            for value, param, name in zip(leaves, module.body.params, module.inputs, strict=True):
                parts = components_for(value, param.type, name, self, bounds.get(name))
                if param.type.is_public and not self.deals:
                    for part in parts:
                        public.update(np.ascontiguousarray(part).tobytes())
                components.extend(parts)
        dealer = self.protocol.dealer
        taken = self._named(leaves, [param.type for param in module.body.params])
        call = Call(
            program.hash,
            taken,
            public.digest() if any(param.type.is_public for param in module.body.params) else None,
            None if dealer is None else tuple(r for r in range(len(self.config.members))),
            f"a call of `{module.name}` with {taken or 'nothing'}",
        )
        with device.on(self.session.device):
            part = program.party(self.session.party)
        return self.objects(program, self.session.run(part, components, call))

    def _named(self, leaves: Sequence[Any], types: Sequence[Type]) -> str:
        """Which objects these are, in words that are the same at every party."""
        return ", ".join(identity(x, t.visibility, self.config.members) for x, t in zip(leaves, types, strict=True))

    def prepare(self, program: Program, runs: int) -> Prepared:
        """Make ahead what so many runs need by oblivious transfer. ConfigError where nothing is made so."""
        if type(runs) is not int or runs < 1:
            raise ConfigError(f"`runs` must be a number of runs, 1 or more, got {runs!r}.")
        if self.config.protocol != OBLIVIOUS:
            raise ConfigError(
                f"nothing is made ahead under protocol {self.config.protocol!r}: that is for two parties with "
                "`preprocessing` 'ot'."
            )
        drawn = {family: n for family, n in program.cost.drawn.items() if n}
        chunk = {family: chunk_units(family, n) for family, n in drawn.items()}
        wanted = {family: runs * n for family, n in drawn.items()}
        self.session.make_ahead(wanted, chunk)
        return Prepared(runs, *ahead(chunk, wanted))

    def _rescaled(self, x: Any, wanted: Type) -> Any:
        """An object with the fraction bits that a program takes, which was compiled for others."""
        if not isinstance(x, SPUObject) or x.type.kind != "fxp" or x.type.frac == wanted.frac:
            return x
        key = ("convert", wanted.element, x.type)
        if key not in self._conversions:
            self._conversions[key] = Program(self._conversion([x], "convert", wanted.element))
        return self.run(self._conversions[key], [x])[0]

    def number(self) -> int:
        """Of the next object: scripts that do the same number their objects alike."""
        self._made += 1
        return self._made

    def objects(self, program: Program, results: Sequence[Any]) -> list[SPUObject]:
        """The components that a program gave, as objects."""
        module, at = program.module, 0
        out = []
        for value, dtype in zip(module.body.results, module.output_dtypes):
            n = slots_of(value.type, self)
            out.append(SPUObject(tuple(results[at : at + n]), value.type, jax.numpy.dtype(dtype), self))
            at += n
        return out

    def convert(self, objects: Sequence[SPUObject], op: str, to: str | int) -> list[SPUObject]:
        """One program of `reveal` (`to` "public" or a rank) or `share` (`to` "secret") over all objects."""
        gone = [o.valid for o in objects if o.valid is not None]
        if gone:
            plain = [o if o.valid is None else replace(o, valid=None) for o in objects]
            moved = self.convert([*plain, *gone], op, to)
            valid = iter(moved[len(plain) :])
            return [x if o.valid is None else replace(x, valid=next(valid)) for x, o in zip(moved, objects)]
        key = (op, to, tuple((o.type, np.dtype(o.dtype).name) for o in objects))
        if key not in self._conversions:
            self._conversions[key] = Program(self._conversion(objects, op, to))
        return self.run(self._conversions[key], objects)

    def sharing(self, program: Program) -> Program:
        """The program with all of its results secret, which were an owner's: they are shared when it is run."""
        key = ("share", program.hash)
        if key not in self._conversions:
            body = program.module.body
            builder = Builder(self.config.fxp_fraction_bits, self.config.ring_bits)
            builder.region = Region(body.params, [*body.ops])
            builder.region.results = [builder.op("share", v, to="secret") for v in body.results]
            self._conversions[key] = Program(replace(program.module, name="share", body=builder.region))
        return self._conversions[key]

    def _conversion(self, objects: Sequence[SPUObject], op: str, to: str | int) -> Module:
        builder = Builder(self.config.fxp_fraction_bits, self.config.ring_bits)
        builder.region.params = [Value(o.type) for o in objects]
        builder.region.results = [builder.op(op, v, to=to) for v in builder.region.params]
        names = tuple(f"x[{i}]" for i in range(len(objects)))
        dtypes = tuple(np.dtype(o.dtype).name for o in objects)
        return Module(op, builder.region, names, names, dtypes, dtypes, self.config.settings)

    def reveal(self, objects: Sequence[SPUObject]) -> list[Any]:
        """The values, shown to all parties; what is public already costs nothing.

        Of what may be NaN it is shown where it is, in the same round.
        """
        valid = [o.valid for o in objects if o.valid is not None]
        shown = self._shown([*(o if o.valid is None else replace(o, valid=None) for o in objects), *valid])
        numbers = iter(shown[len(objects) :])
        out = [x if o.valid is None else replace(x, valid=next(numbers)) for x, o in zip(shown, objects)]
        return [None] * len(out) if self.deals else [o.known_value() for o in out]  # a dealer sees nothing

    def _shown(self, objects: Sequence[SPUObject]) -> list[SPUObject]:
        secret = [o for o in objects if not o.type.is_public]
        shown = iter(self.convert(secret, "reveal", "public") if secret else [])
        self.session.conclude()
        if not secret:
            self.session.propose("objects shown", self._named(objects, [o.type for o in objects]))
        return [o if o.type.is_public else next(shown) for o in objects]

    def apply(self, name: str, operands: tuple[Any, ...]) -> Any:
        """A `jax.numpy` function of objects; plain operands are public."""
        _check_untraced(operands)
        return operator(name, self, operands)

    def method(self, name: str, x: SPUObject, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A method that JAX's arrays have, of an object; plain arguments are public."""
        _check_untraced((args, kwargs))
        return method(name, self, x, args, kwargs)

    def index(self, x: SPUObject, index: Any) -> Any:
        """x[index], with a public index."""
        return indexed(self, x, index)

    def hand_over(self, x: SPUObject, to: Any) -> Any:
        """Reveal an object to one party alone, by its name, or hand it to a device."""
        if isinstance(to, Receiver):
            return to.receive(x)
        if to not in self.config.members:
            raise ConfigError(f"`to` must be one of {', '.join(self.config.members)}, got {to!r}.")
        (out,) = self.convert([x], "reveal", self.config.members.index(to))
        self.session.conclude()
        return out

    def __repr__(self) -> str:
        c = self.config
        return f"<VM {c.protocol}/{c.ring_bits} of {', '.join(c.parties)}>"


def _check_untraced(operands: Any) -> None:
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(operands)):
        raise VisibilityError(
            "an SPUObject is used inside a jitted function, but is no argument of it: pass it as one."
        )


@cache
def simulator(config: Config, device: str | None = None) -> VM:
    """The simulated machine of a configuration, and of a device; one for the process, so that its objects mix."""
    return VM(Session(config, device=device))


def make_config(
    protocol: str,
    ring: int,
    fxp_fraction_bits: int | None,
    world_size: int | None,
    parties: Sequence[str] | None,
    truncation: str = TRUNCATIONS[0],
    optimize: str = OPTIMIZE[0],
) -> Config:
    """A configuration from the arguments of `jit` and `SPU`."""
    frac = DEFAULT_FRACTION_BITS.get(ring, 18) if fxp_fraction_bits is None else fxp_fraction_bits
    if parties is None:
        n = usual_parties(protocol) if world_size is None else world_size
        parties = tuple(f"party{i}" for i in range(n))
    config = Config(protocol, ring, frac, tuple(parties), truncation=truncation, optimize=optimize)
    protocol_of(config)
    return config
