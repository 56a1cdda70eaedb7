"""Devices as SecretFlow's users know them: PYU runs Python at one party, SPU runs JAX on secrets.

The same script runs in one process that simulates all parties (`init(parties, address="local")`)
or at every party (`init(party=..., config="cluster.toml")`). In the second case each party
executes only its own PYU functions; shapes and dtypes of private values become known to all.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.calls import Jitted
from spuvm.objects import Marked, Receiver, Remote, SPUObject
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, Config
from spuvm.runtime.errors import ConfigError, InputError, VisibilityError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Link
from spuvm.runtime.link.reranked_link import renumbered
from spuvm.runtime.link.tls.link import connect
from spuvm.runtime.machine.session import Session, abort_on_error
from spuvm.runtime.protocols.registered import has_dealer, protocol_of
from spuvm.vm import VM


@dataclass
class _Context:
    """What `init` set up: the parties, and in a networked run which one this process is."""

    parties: tuple[str, ...]
    party: str | None = None
    link: Link | None = None
    config: Config | None = None
    file: Path | None = None
    dealer: str | None = None
    machines: dict[Config, VM] = field(default_factory=dict)

    def machine(self, config: Config) -> VM:
        if config not in self.machines:
            if self.party is None or self.link is None:
                self.machines[config] = _Machine(Session(config))
            else:
                names = (*config.members, *(p for p in self.parties if p not in config.members))
                link = renumbered(self.link, names)
                self.machines[config] = _Machine(Session(config, link.rank, link))
        return self.machines[config]

    def others(self, parties: tuple[str, ...], protocol: str) -> tuple[str, ...]:
        """Who takes part beside the computing parties; without the dealer, if it is one of the session's."""
        rest = tuple(p for p in self.parties if p not in parties)
        if self.party is None:
            return rest
        if has_dealer(protocol):
            dealer = self.dealer or (rest[-1] if rest else None)
            if dealer not in rest:
                raise ConfigError(
                    f"protocol {protocol} needs a dealer that is none of the parties {', '.join(parties)}: add it to "
                    "the cluster file, and set `dealer` to its name."
                )
            return tuple(p for p in rest if p != dealer)
        if self.dealer is not None:
            raise ConfigError(
                f"the cluster file names {self.dealer} as dealer, but protocol {protocol} has none: leave it out, or "
                "use a protocol that has."
            )
        return rest


_context: _Context | None = None


def init(
    parties: Iterable[str] | None = None,
    address: str | None = None,
    *,
    party: str | None = None,
    config: Any = None,
    timeout: float | None = None,
) -> None:
    """Set up the devices; call it again to start anew.

    Args:
        parties: names, for a simulation in this process; a set is ordered by name.
        address: "local" for the simulation.
        party: for a networked run, the party that this process is.
        config: for a networked run, the path of the cluster file (TOML).
        timeout: seconds that any wait for a peer may take; the file's if not given.

    Raises:
        ConfigError: if the arguments do not describe exactly one of the two.
        LinkError: if the peers cannot be reached, or are not who they should be.
    """
    global _context
    shutdown()
    if party is not None or config is not None:
        if party is None or config is None or parties is not None:
            raise ConfigError("a networked run takes `party` and `config`, a simulation `parties` and address='local'.")
        cluster = load_cluster(config)
        link = connect(cluster, party, timeout)
        _context = _Context(cluster.names, party, link, cluster.config, Path(config).absolute(), cluster.dealer)
        return
    if parties is None:
        raise ConfigError("`parties` is missing: give the names for a simulation, or `party` and `config`.")
    if address not in (None, "local"):
        raise ConfigError(f"`address` must be 'local', got {address!r}: for a network give `party` and `config`.")
    names = sorted(parties) if isinstance(parties, set | frozenset) else list(parties)
    if len(set(names)) != len(names) or not names or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"`parties` must be different, non-empty names, got {names}.")
    _context = _Context(tuple(names))


def shutdown() -> None:
    """Close the connections of a networked run and forget the devices."""
    global _context
    if _context is not None and _context.link is not None:
        with contextlib.suppress(OSError):
            _context.link.close()
    _context = None


def _here() -> _Context:
    if _context is None:
        raise ConfigError("no devices yet: call `spu.init(parties=[...], address='local')` first.")
    return _context


# PYU ------------------------------------------------------------------------------------------------


class _Machine(VM):
    """A machine whose parties have devices: what a party is handed by name is at its PYU."""

    def hand_over(self, x: SPUObject, to: Any) -> Any:
        return super().hand_over(x, PYU(to) if to in self.config.members else to)


@dataclass(frozen=True)
class PYU(Receiver):
    """A party's own Python. `alice(fn)(*args)` runs `fn` at alice and keeps the result there."""

    party: str

    def __post_init__(self) -> None:
        if self.party not in _here().parties:
            raise ConfigError(f"`PYU` of {self.party!r}: the parties are {', '.join(_here().parties)}.")

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., PYUObject]:
        def run(*args: Any, **kwargs: Any) -> PYUObject:
            for leaf in jax.tree.leaves((args, kwargs), is_leaf=_is_object):
                if isinstance(leaf, SPUObject) or (isinstance(leaf, PYUObject) and leaf.device != self):
                    raise VisibilityError(f"{leaf!r} is not at {self.party}: move it with `.to(...)` first.")
            if not self.is_here:
                return PYUObject(self, None)
            args, kwargs = jax.tree.map(_at_home, (args, kwargs), is_leaf=_is_object)
            with abort_on_error(_here().link):
                return PYUObject(self, fn(*args, **kwargs))

        return run

    def receive(self, x: SPUObject) -> PYUObject:
        """An SPUObject revealed to this party alone."""
        out = VM.hand_over(x.vm, x, self.party)
        return PYUObject(self, None if out.parts[0] is None else out.known_value())

    @property
    def is_here(self) -> bool:
        """Whether this process is the party (or simulates it)."""
        return _here().party in (None, self.party)

    def __repr__(self) -> str:
        return f"PYU({self.party!r})"


@dataclass(frozen=True, eq=False)
class PYUObject(Remote):
    """A Python object at one party; elsewhere only a name for it."""

    device: PYU
    value: Any

    def to(self, device: PYU | SPU) -> Any:
        """Secret-share it (an SPU), or hand it over openly to another party's PYU."""
        if isinstance(device, SPU):
            return device.share(self)
        if device == self.device:
            return self
        value = _broadcast(self)
        return PYUObject(device, value if device.is_here else None)

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


class SPU(Receiver):
    """The virtual machine among the parties of a cluster definition.

    `spu(fn, static_argnums=...)(*args)` runs a JAX function on objects of PYUs (private to their
    owner), SPUObjects, and plain numbers and arrays, which are public: every party's script has them.

    The cluster definition names the parties that compute. All others that `init` knows can bring
    values, and be shown results (`x.to(dave)`, `spu.reveal`), as well: they run the same script and agree on
    every program, and what they bring is shared among the computing parties. They are sent the
    value of a reveal, and never hold a share of anything else.
    """

    def __init__(self, cluster_def: Mapping[str, Any]) -> None:
        context = _here()
        self.vm = context.machine(config_from(cluster_def, context))
        self._functions: dict[Any, Jitted] = {}

    def __call__(self, fn: Callable[..., Any], static_argnums: int | Sequence[int] = ()) -> Callable[..., Any]:
        key = (fn, static_argnums if isinstance(static_argnums, int) else tuple(static_argnums))
        jitted = self._functions.setdefault(key, Jitted(fn, self.vm, static_argnums, default="public"))

        def run(*args: Any, **kwargs: Any) -> Any:
            with abort_on_error(self.vm.session.link):
                args, kwargs = jax.tree.map(self._argument, (args, kwargs), is_leaf=_is_object)
                return jitted(*args, **kwargs)

        run.compile = lambda *a, **k: jitted.compile(*jax.tree.map(self._argument, a, is_leaf=_is_object), **k)  # type: ignore[attr-defined]
        run.cost = lambda *a, **k: run.compile(*a, **k).cost  # type: ignore[attr-defined]
        return run

    def share(self, x: PYUObject) -> Any:
        """Secret-share an object's arrays: a pytree of secret SPUObjects."""
        private, tree = jax.tree.flatten(self(_identity)(x))
        return jax.tree.unflatten(tree, self.vm.convert(private, "share", "secret"))

    def receive(self, x: SPUObject) -> SPUObject:
        """An SPUObject that is here already: there is no moving between machines."""
        if x.vm is self.vm:
            return x
        raise InputError("moving between SPUs is not supported: reveal the value, or keep to one SPU.")

    def _argument(self, x: Any) -> Any:
        if not isinstance(x, PYUObject):
            return x
        if x.device.party not in self.vm.config.members:
            raise ConfigError(f"{x!r} belongs to no party of the SPU ({', '.join(self.vm.config.members)}).")
        return jax.tree.map(lambda leaf: Marked(leaf, x.device.party), _with_shapes(x))

    def __repr__(self) -> str:
        return f"<SPU {self.vm.config.protocol}/{self.vm.config.ring_bits} of {', '.join(self.vm.config.parties)}>"


def default_machine() -> VM | None:
    """The machine of all parties that `init` named, under its usual protocol; None before `init`.

    Raises ConfigError if the protocol does not work among these parties.
    """
    if _context is None:
        return None
    config = _context.config or config_from({"nodes": [{"party": p} for p in _context.parties]}, _context)
    return _context.machine(config)


def everyone() -> tuple[tuple[str, ...], Link | None]:
    """All parties that `init` named, by rank of the link between them; None of a simulation.

    Raises ConfigError before `init`.
    """
    context = _here()
    return context.parties, context.link


def default_parties() -> tuple[str, ...] | None:
    """All parties that `init` named; None before `init`."""
    return None if _context is None else _context.parties


def whereabouts() -> tuple[str, Path] | None:
    """Of a networked run, the party that this process is, and the cluster file."""
    if _context is None or _context.party is None or _context.file is None:
        return None
    return _context.party, _context.file


def _identity(x: Any) -> Any:
    return x


PROTOCOL_NAMES = {"ABY3": "aby3", "SEMI2K": "semi2k", "REF2K": "ref2k", "3": "aby3", "2": "semi2k", "1": "ref2k"}
FIELD_NAMES = {"FM32": 32, "FM64": 64, "FM128": 128, "1": 32, "2": 64, "3": 128}


def config_from(cluster_def: Mapping[str, Any], context: _Context) -> Config:
    """The configuration of a cluster definition: {"nodes": [{"party": ...}], "runtime_config": {...}}."""
    try:
        parties = tuple(node["party"] for node in cluster_def["nodes"])
        options = dict(cluster_def.get("runtime_config") or {})
    except (KeyError, TypeError):
        raise ConfigError("`cluster_def` must be like spu.utils.testing.cluster_def([...]): {'nodes': [...]}") from None
    default = context.config
    protocol = str(options.pop("protocol", default.protocol if default else "aby3"))
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
            f"`runtime_config` has unknown settings {sorted(options)}: it takes protocol, field, fxp_fraction_bits."
        )
    missing = [p for p in parties if p not in context.parties]
    if missing:
        raise ConfigError(f"`cluster_def` names {', '.join(missing)}: `init` knows {', '.join(context.parties)}.")
    protocol = PROTOCOL_NAMES.get(protocol, protocol)
    config = Config(protocol, ring, frac, parties, context.others(parties, protocol))
    protocol_of(config)
    return config


def fetch(x: PYUObject) -> Any:
    """The value of a PYU's object, shown by its owner to everyone."""
    return x.value if _here().party is None else _broadcast(x)


def abort_everyone_on_error() -> AbstractContextManager[None]:
    """If the block fails here, the other parties stop, too, and learn why; see `session.abort_on_error`."""
    return abort_on_error(_here().link)


def agree(what: str, value: bytes) -> None:
    """Check that every party's script says the same; in a simulation there is only one.

    Raises:
        PeerMismatchError: if it does not, at every party.
    """
    link = _here().link
    if link is not None:
        link.agree(what, value)


# What a networked run says openly about private values ------------------------------------------------


def _with_shapes(x: PYUObject) -> Any:
    """The object's pytree: arrays at their owner, shapes and dtypes elsewhere."""
    context = _here()
    if context.link is None:
        return x.value
    mine = x.device.is_here
    described = json.dumps(_describe(x.value)).encode() if mine else None
    text = context.link.broadcast(context.parties.index(x.device.party), described)
    return x.value if mine else _undescribe(json.loads(text))


def _broadcast(x: PYUObject) -> Any:
    """The arrays of an object as its owner sends them to all parties."""
    context = _here()
    if context.link is None:
        return x.value
    owner = context.parties.index(x.device.party)
    payload = None
    if x.device.is_here:
        leaves = jax.tree.leaves(x.value)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
        np.savez(buffer, **arrays)
        structure = json.dumps(_describe(x.value)).encode()
        payload = len(structure).to_bytes(8, "big") + structure + buffer.getvalue()
    payload = context.link.deliver(owner, range(len(context.parties)), payload)
    assert payload is not None
    size = int.from_bytes(payload[:8], "big")
    with np.load(io.BytesIO(payload[8 + size :]), allow_pickle=False) as stored:
        values = [stored[str(i)][()] for i in range(len(stored.files))]
    leaves, tree = jax.tree.flatten(_undescribe(json.loads(payload[8 : 8 + size])))
    numbers = [type(x)(v) if isinstance(x, bool | int | float) else v for x, v in zip(leaves, values, strict=True)]
    return jax.tree.unflatten(tree, numbers)


def _describe(x: Any) -> Any:
    """A pytree of arrays as JSON: containers as they are, arrays as shape and dtype."""
    if isinstance(x, Mapping):
        return {"dict": {str(k): _describe(v) for k, v in x.items()}}
    if isinstance(x, list | tuple):
        return {type(x).__name__ if type(x) in (list, tuple) else "tuple": [_describe(v) for v in x]}
    if x is None:
        return {"none": 0}
    if isinstance(x, bool | int | float):
        return {"scalar": type(x).__name__}
    array = np.asarray(x)
    if array.dtype.hasobject:
        raise InputError(f"a `{type(x).__name__}` cannot go to an SPU or another party: return arrays or numbers.")
    return {"array": [list(array.shape), array.dtype.name]}


SCALARS = {"bool": False, "int": 0, "float": 0.0}


def _undescribe(x: Any) -> Any:
    ((kind, body),) = x.items()
    match kind:
        case "dict":
            return {k: _undescribe(v) for k, v in body.items()}
        case "list":
            return [_undescribe(v) for v in body]
        case "tuple":
            return tuple(_undescribe(v) for v in body)
        case "scalar":
            return SCALARS[body]
        case "array":
            return jax.ShapeDtypeStruct(tuple(body[0]), jax.numpy.dtype(body[1]))
    return None
