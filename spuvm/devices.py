"""Devices as SecretFlow's users know them: PYU runs Python at one party, SPU runs JAX on secrets.

The same script runs in one process that simulates all parties (`init(parties, address="local")`)
or at every party (`init(party=..., config="cluster.toml")`). In the second case each party
executes only its own PYU functions; shapes and dtypes of private values become known to all.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import jax

from spuvm import moving
from spuvm.calls import Jitted
from spuvm.compiler.compile import Program
from spuvm.context import Context, current, here
from spuvm.missing import apart, together
from spuvm.objects import Marked, Receiver, Remote, SPUObject, Tabular
from spuvm.placed import Placed
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, OPTIMIZE, TRUNCATIONS, Config
from spuvm.runtime.errors import OWN_ERROR, ConfigError, InputError, SpuError, VisibilityError
from spuvm.runtime.machine.session import abort_on_error
from spuvm.runtime.protocols.registered import prepared_by, protocol_of, secured, sound_default
from spuvm.vm import VM, Prepared
from spuvm.watching import WATCHER

# PYU ------------------------------------------------------------------------------------------------


class _Machine(VM):
    """A machine whose parties have devices: what a party is handed by name is at its PYU."""

    def hand_over(self, x: SPUObject, to: Any) -> Any:
        return super().hand_over(x, PYU(to) if to in self.config.members else to)


class Taker(ABC):
    """A device that takes objects of PYUs."""

    @abstractmethod
    def take(self, x: PYUObject, **options: Any) -> Any:
        """The object there, shown to nobody."""


@dataclass(frozen=True)
class PYU(Receiver):
    """A party's own Python. `alice(fn)(*args)` runs `fn` at alice and keeps the result there.

    `alice(fn, num_returns=2)` makes two objects of the two values that `fn` returns, as a list.
    """

    party: str

    def __post_init__(self) -> None:
        if self.party not in here().parties:
            raise ConfigError(f"`PYU` of {self.party!r}: the parties are {', '.join(here().parties)}.")

    @overload
    def __call__(self, fn: Callable[..., Any]) -> Callable[..., PYUObject]: ...

    @overload
    def __call__(self, fn: Callable[..., Any], num_returns: int) -> Callable[..., Any]: ...

    def __call__(self, fn: Callable[..., Any], num_returns: int = 1) -> Callable[..., Any]:
        if type(num_returns) is not int or num_returns < 1:
            raise InputError(
                f"`num_returns` is the number of values that `fn` returns, 1 or more, got {num_returns!r}."
            )

        def run(*args: Any, **kwargs: Any) -> Any:
            for leaf in jax.tree.leaves((args, kwargs), is_leaf=_is_object):
                if isinstance(leaf, Remote) and not (isinstance(leaf, PYUObject) and leaf.device == self):
                    raise VisibilityError(f"{leaf!r} is not at {self.party}: move it with `.to(...)` first.")
                if isinstance(leaf, Tabular):
                    raise VisibilityError(f"{leaf!r} is several parties': give what it has `.at({self.party!r})`.")
            values: Sequence[Any] = [None] * num_returns
            if self.is_here:
                args, kwargs = jax.tree.map(_at_home, (args, kwargs), is_leaf=_is_object)
                with abort_on_error(here().link), _own_errors():
                    result = fn(*args, **kwargs)
                    values = [result] if num_returns == 1 else _taken_apart(result, num_returns)
            objects = [PYUObject(self, value) for value in values]
            return objects[0] if num_returns == 1 else objects

        return run

    def receive(self, x: SPUObject) -> PYUObject:
        """An SPUObject revealed to this party alone."""
        out = VM.hand_over(x.vm, x, self.party)
        return PYUObject(self, None if out.parts[0] is None else out.known_value())

    @property
    def is_here(self) -> bool:
        """Whether this process is the party (or simulates it)."""
        return here().party in (None, self.party)

    def __repr__(self) -> str:
        return f"PYU({self.party!r})"


def _taken_apart(result: Any, num_returns: int) -> Sequence[Any]:
    if not isinstance(result, tuple | list) or len(result) != num_returns:
        given = f"{len(result)} values" if isinstance(result, tuple | list) else f"one `{type(result).__name__}`"
        raise InputError(f"`num_returns` is {num_returns}, and the function returned {given}.")
    return result


@contextmanager
def _own_errors() -> Iterator[None]:
    """A party's function may raise errors of spuvm's classes, also of those whose words peers hear: not its words."""
    try:
        yield
    except SpuError as error:
        error.told = OWN_ERROR
        raise


@dataclass(eq=False)
class PYUObject(Remote):
    """A Python object at one party; elsewhere only a name for it, and its form once it was told."""

    device: PYU
    value: Any
    missing: bool = False  # whether its numbers may be NaN, where a machine takes them
    number: int = field(init=False)  # of its party's objects, the same at every party
    form: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.number = here().number(self.device.party)

    @property
    def identity(self) -> str:
        return f"object {self.number} of {self.device.party}"

    @property
    def described(self) -> bool:
        return self.form is not None

    @property
    def structure(self) -> Any:
        """The pytree: arrays where it is, their shapes and dtypes elsewhere."""
        if here().link is None:
            return self.value
        return moving.plain(self.value) if self.device.is_here else self.form

    def to(self, device: PYU | Taker, **options: Any) -> Any:
        """Secret-share it (an SPU), encode it (an HEU), or hand it over openly to another party's PYU."""
        if isinstance(device, Taker):
            return device.take(self, **options)
        if options:
            raise InputError(f"moving to {device!r} takes no settings, got {sorted(options)}.")
        if device == self.device:
            return self
        value = _delivered(self, [device.party], f"goes to {device.party}")
        return PYUObject(device, value if device.is_here else None, self.missing)

    def reveal(self) -> Any:
        """The value, shown by its owner to everyone."""
        return fetch(self)

    def __repr__(self) -> str:
        return f"<PYUObject at {self.device.party}>"


def _is_object(x: Any) -> bool:
    return isinstance(x, PYUObject | SPUObject)


def _at_home(x: Any) -> Any:
    return x.value if isinstance(x, PYUObject) else x


# SPU ------------------------------------------------------------------------------------------------


class SPU(Receiver, Taker):
    """The virtual machine among the parties of a cluster definition, or of a list of their names.

    `spu(fn)(*args, **kwargs)` runs a JAX function on objects of PYUs (private to their owner), SPUObjects, tables
    (a frame is a dictionary of its columns), and plain numbers and arrays, which are public: every party's script has
    them. `static_argnums`, `static_argnames` and `guard=True` beside `fn` are those of `spu.jit`.

    The cluster definition names the parties that compute. All others that `init` knows can bring
    values, and be shown results (`x.to(dave)`, `spu.reveal`), as well: they run the same script and agree on
    every program, and what they bring is shared among the computing parties. They are sent the
    value of a reveal, and never hold a share of anything else.

    Without a protocol in the definition or a cluster file, two parties get SEMI2K without a dealer,
    three ABY3, four REP4, more SEMI2K (with a dealer). `preprocessing` says who makes SEMI2K's correlated randomness: a
    "dealer", or two parties alone by oblivious transfer ("ot"). `security="malicious"` takes ABY3 or REP4 in the form
    that notices a party that deviates, before anything is revealed. `truncation="exact"` rounds fixed point always
    down; `optimize` is "latency", "bandwidth" or "auto" (`spu.jit` has both). Without them, as the definition or the
    cluster file says. `stored`: a folder in which randomness of "ot" that was made ahead (`prepare`) is kept for later
    sessions, in a folder of the party's name; both parties say one, or neither.
    """

    def __init__(
        self,
        cluster_def: Mapping[str, Any] | Sequence[str],
        preprocessing: str | None = None,
        truncation: str | None = None,
        security: str | None = None,
        optimize: str | None = None,
        stored: str | Path | None = None,
    ) -> None:
        context = here()
        if not isinstance(stored, str | Path | None):
            raise ConfigError(f"`stored` must be a folder's path, got {stored!r}.")
        config = config_from(cluster_def, context, preprocessing, truncation, security, optimize)
        self.vm = context.machine(config, _Machine, None if stored is None else Path(stored))
        self._functions: dict[Any, Jitted] = {}

    def __call__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
        guard: bool = False,
    ) -> Placed:
        fixed = static_argnums if isinstance(static_argnums, int) else tuple(static_argnums)
        jitted = Jitted(fn, self.vm, fixed, default="public", static_argnames=static_argnames, guard=guard)
        key = (fn, fixed, jitted.static_argnames, guard)
        return Placed(self._functions.setdefault(key, jitted), self._arguments)

    def prepare(self, program: Program, runs: int = 1) -> Prepared:
        """Make ahead what two parties need by oblivious transfer for so many runs of `spu(fn).compile(...)`.

        Runs take it from where it is stored, and make what is missing. It is kept for later sessions where the SPU was
        given `stored`, else until this process ends. In a simulation nothing is made.

        Raises:
            ConfigError: the protocol's randomness is not made by oblivious transfer, or `runs` is no number above 0.
            InputError: it cannot be stored.
        """
        return self.vm.prepare(program, runs)

    def share(self, x: PYUObject | Tabular, missing: bool = False) -> Any:
        """Secret-share an object's arrays, a table's columns: secret SPUObjects. With `missing`, numbers may be NaN."""
        with abort_on_error(self.vm.session.link):
            given = self._arguments(x)
            if missing:
                given = jax.tree.map(_maybe_missing, given, is_leaf=_is_marked)
            leaves, tree = jax.tree.flatten(given, is_leaf=_is_marked)
            program = self.vm.sharing(self(_identity).compile(given))
            return jax.tree.unflatten(tree, together(program, self.vm.run(program, apart(leaves))))

    def take(self, x: PYUObject | Tabular, **options: Any) -> Any:
        if options.keys() - {"missing"}:
            raise InputError(f"moving to {self!r} takes the setting `missing` alone, got {sorted(options)}.")
        return self.share(x, **options)

    def receive(self, x: SPUObject) -> SPUObject:
        """An SPUObject that is here already: there is no moving between machines."""
        if x.vm is self.vm:
            return x
        raise InputError("moving between SPUs is not supported: reveal the value, or keep to one SPU.")

    def _arguments(self, args: Any) -> Any:
        """PYU objects as arrays that are their owners' (elsewhere as shapes), tables as columns, all else as it is."""
        args = jax.tree.map(lambda x: x.arguments(self) if isinstance(x, Tabular) else x, args, is_leaf=_is_object)
        leaves, tree = jax.tree.flatten(args, is_leaf=_is_object)
        for x in leaves:
            if isinstance(x, Remote) and not _is_object(x):
                raise VisibilityError(f"{x!r} is not on {self!r}: move it with `.to(...)` first.")
        owned = [x for x in leaves if isinstance(x, PYUObject)]
        for x in owned:
            if x.device.party not in self.vm.config.members:
                raise ConfigError(f"{x!r} belongs to no party of the SPU ({', '.join(self.vm.config.members)}).")
        describe(owned)
        return jax.tree.unflatten(tree, [_marked(x) if isinstance(x, PYUObject) else x for x in leaves])

    @property
    def security(self) -> str:
        """What its protocol holds against."""
        return self.vm.protocol.security

    def __repr__(self) -> str:
        return f"<SPU {self.vm.config.protocol}/{self.vm.config.ring_bits} of {', '.join(self.vm.config.parties)}>"


def _marked(x: PYUObject) -> Any:
    leaves, tree = jax.tree.flatten(x.structure)
    party, name = x.device.party, x.identity
    return jax.tree.unflatten(
        tree, [Marked(leaf, party, f"{name}[{i}]", missing=x.missing) for i, leaf in enumerate(leaves)]
    )


def default_machine() -> VM | None:
    """The machine of all parties that `init` named, under its usual protocol; None before `init`.

    Raises ConfigError if the protocol does not work among these parties.
    """
    context = current()
    if context is None:
        return None
    usual = {"nodes": [{"party": p} for p in context.parties], "runtime_config": {"protocol": "aby3"}}
    config = context.config or config_from(usual, context)
    return context.machine(config, _Machine)


def _is_marked(x: Any) -> bool:
    return isinstance(x, Marked)


def _maybe_missing(x: Any) -> Any:
    return replace(x, missing=True) if isinstance(x, Marked) else x


def _identity(x: Any) -> Any:
    return x


PROTOCOL_NAMES = {
    "ABY3": "aby3",
    "SEMI2K": "semi2k",
    "REF2K": "ref2k",
    "REP4": "rep4",
    "3": "aby3",
    "2": "semi2k",
    "1": "ref2k",
}
FIELD_NAMES = {"FM32": 32, "FM64": 64, "FM128": 128, "1": 32, "2": 64, "3": 128}


def named_by(cluster_def: Mapping[str, Any] | Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The parties and the settings of a definition; a list of names has no settings."""
    try:
        if isinstance(cluster_def, Mapping):
            return tuple(node["party"] for node in cluster_def["nodes"]), dict(cluster_def.get("runtime_config") or {})
        if not isinstance(cluster_def, str) and all(isinstance(name, str) for name in cluster_def):
            return tuple(cluster_def), {}
    except (KeyError, TypeError):
        pass
    raise ConfigError(
        "an SPU is given its parties' names, or a definition like {'nodes': [{'party': 'alice'}, ...], "
        f"'runtime_config': {{'protocol': 'ABY3', 'field': 'FM64'}}}}; got {cluster_def!s:.200}"
    )


def config_from(
    cluster_def: Mapping[str, Any] | Sequence[str],
    context: Context,
    preprocessing: str | None = None,
    truncation: str | None = None,
    security: str | None = None,
    optimize: str | None = None,
) -> Config:
    """The configuration of a cluster definition: {"nodes": [{"party": ...}], "runtime_config": {...}}, or of names."""
    parties, options = named_by(cluster_def)
    default = context.config
    usual = default.protocol if default else None
    protocol = str(options.pop("protocol", None) or usual or sound_default(len(parties)))
    preprocessing = options.pop("preprocessing", preprocessing)
    security = options.pop("security", security)
    truncation = options.pop("truncation", None) or truncation or (default.truncation if default else TRUNCATIONS[0])
    optimize = options.pop("optimize", None) or optimize or (default.optimize if default else OPTIMIZE[0])
    ring = options.pop("field", options.pop("ring", default.ring_bits if default else 64))
    ring = FIELD_NAMES.get(str(ring), ring)
    frac = options.pop("fxp_fraction_bits", 0)
    if not isinstance(ring, int) or not isinstance(frac, int):
        raise ConfigError(
            f"`field` must be one of {', '.join(FIELD_NAMES)}, `fxp_fraction_bits` a number, got {ring!r}, {frac!r}."
        )
    if not frac:
        same = default is not None and default.ring_bits == ring
        frac = default.fxp_fraction_bits if default and same else DEFAULT_FRACTION_BITS.get(ring, 18)
    if options:
        raise ConfigError(
            f"`runtime_config` has unknown settings {sorted(options)}: it takes protocol, preprocessing, field, "
            "fxp_fraction_bits, security, truncation, optimize."
        )
    missing = [p for p in parties if p not in context.parties]
    if missing:
        raise ConfigError(f"`cluster_def` names {', '.join(missing)}: `init` knows {', '.join(context.parties)}.")
    protocol = secured(prepared_by(PROTOCOL_NAMES.get(protocol, protocol), preprocessing), security)
    config = Config(protocol, ring, frac, parties, context.others(parties, protocol), truncation, optimize)
    protocol_of(config)
    return config


SHOWN = "is shown to all"


def fetch(x: PYUObject) -> Any:
    """The value of a PYU's object, shown by its owner to everyone."""
    return _delivered(x, here().parties, SHOWN)


def _delivered(x: PYUObject, receivers: Sequence[str], what: str) -> Any:
    """The value at its owner and the receivers, who are sent it; elsewhere None."""
    context, watcher = here(), WATCHER.get()
    if watcher is not None:
        watcher.shown(f"an object of {x.device.party}", " and ".join(receivers) if what != SHOWN else "all parties")
    if context.link is None:
        return x.value
    context.propose("objects that move", f"{x.identity} {what}")
    with abort_on_error(context.link):
        body = moving.packed(x.value) if x.device.is_here else None
        ranks = [context.parties.index(p) for p in receivers]
        body = context.link.deliver(context.parties.index(x.device.party), ranks, body)
        return None if body is None else moving.unpacked(body, x.device.party)


def describe(objects: Sequence[PYUObject]) -> None:
    """Tell all parties the form of each party's objects that they have not heard; in a simulation it is at hand."""
    context = here()
    new = [x for x in objects if not x.described]
    if context.link is None or not new:
        return
    context.propose("objects described", ", ".join(x.identity for x in new))
    with abort_on_error(context.link):
        mine = [moving.form(x.value) for x in new if x.device.is_here]
        said = context.link.gather(json.dumps(mine).encode(), counted=False)
        told = {p: iter(moving.listed(text, p)) for p, text in zip(context.parties, said)}
        for x in new:
            x.form = moving.heard(next(told[x.device.party], None), x.device.party)
