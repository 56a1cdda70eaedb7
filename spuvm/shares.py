"""Shares on disk: a pytree of objects as one file a party, which other processes load at another time.

A part holds the components that its party held already, and nothing else: it says what the party's
memory said, and no fresh sharing is needed before it is written. That a single party's components of a
sharing are independent of the value is what both protocols promise at any time (under ABY3 two of
three summands, under SEMI2K one of n; masked values likewise); a party's parts of several objects are
together no more than its view of the run.

A part is a line `spuvm shares 1`, a line with the SHA-256 of all that follows, a line of JSON (whose
part it is, and the public header: see `_described`), and the components one after another as NumPy's .npy.
Nothing is pickled.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import jax
import numpy as np

from spuvm import halfway
from spuvm.compiler.expand.expander import boundary_form
from spuvm.compiler.ir import text
from spuvm.compiler.ir.module import Type
from spuvm.devices import SPU, default_machine
from spuvm.objects import SPUObject, slots_of_component
from spuvm.runtime.errors import InputError, LinkError, SaveError
from spuvm.runtime.locks import lock
from spuvm.runtime.machine.components import aligned
from spuvm.runtime.machine.session import abort_on_error
from spuvm.runtime.protocols.registered import rank_names
from spuvm.vm import VM

FORMAT = 1
MAGIC = f"spuvm shares {FORMAT}\n".encode()
DIGEST = 64  # hexadecimal digits
ENDING = ".share"
DONE, FAILED = b"\0", b"\1"  # what parties say of their saving
Folders = Mapping[str, "str | Path"]


def save_shares(tree: Any, folders: Folders, name: str = "shares") -> None:
    """Write each party's components of a pytree of SPUObjects to a file of its own.

    Secret values stay shared, private ones (masked or not) go into their owner's part. What is public,
    numbers, texts and None in the tree too, is in all parts. These appear all, or none: they are written
    beside their place (mode 0600) and moved there when all are done.

    Args:
        tree: dictionaries (with texts as keys), lists and tuples of SPUObjects of one machine.
        folders: by party, where its part `NAME.share` goes. In a networked run a party needs its own
            entry alone; a simulation writes all parts. A dealer has one if private values are masked under SEMI2K.
        name: of the files, without their ending.

    Raises:
        InputError: for a tree that cannot be stored.
        SaveError: at all parties, if one has no folder or cannot write there; all may save once more.
    """
    leaves: list[SPUObject] = []
    structure = _describe(tree, leaves)
    vm = _machine(leaves)
    with contextlib.ExitStack() as stack:
        with abort_on_error(vm.session.link):
            mine = _described(structure, leaves, vm)
            common = json.loads(_said(vm, lambda: json.dumps(mine | _made_once(leaves)).encode()))
            if any(common[key] != value for key, value in json.loads(json.dumps(mine)).items()):
                raise InputError("`tree` is not what the first party saves: run the same script everywhere.")
        held = _held(leaves, vm)

        def stored() -> list[Callable[[], None]]:
            header = {rank: {"party": _name(vm, rank), **common} for rank in held}
            paths = {rank: _folder(folders, _name(vm, rank)) / f"{name}{ENDING}" for rank in held}
            return [stack.enter_context(_written(paths[r], header[r], held[r])) for r in held]

        moves = _everywhere(vm, stored)  # nobody replaces anything before all have written
        _everywhere(vm, lambda: [move() for move in moves])
        with abort_on_error(vm.session.link):
            _agree(vm, "parts saved", common)
        for path in (_folder(folders, _name(vm, rank)) / f"{name}{ENDING}" for rank in held):
            halfway.remove_left(path)


T = TypeVar("T")


def _everywhere(vm: VM, save: Callable[[], T]) -> T:
    """Save something at every party, and hear how the others fared: SaveError at all of them if one could not."""
    result, problem = None, None
    try:
        result = save()
    except InputError as error:
        problem = error
    link = vm.session.link
    try:
        with abort_on_error(link):
            fared = [DONE] if link is None else link.gather(FAILED if problem else DONE, 1, counted=False)
    except LinkError as error:
        if problem is None:
            raise
        raise SaveError(f"{problem} Nor do the others go on: {error}") from None
    if problem is not None:
        raise SaveError(f"{problem} Nothing is lost: save again, at every party.") from None
    failed = [name for name, said in zip(link.parties if link is not None else (), fared) if said == FAILED]
    if failed:
        raise SaveError(f"{' and '.join(failed)} could not save: save again, at every party.", here=False)
    return result  # type: ignore[return-value]  # it was set, or there was a problem


def load_shares(folders: Folders, device: SPU | VM | None = None, name: str = "shares") -> Any:
    """The pytree that `save_shares` stored, the same values bit for bit, on a machine of the same configuration.

    Args:
        folders: by party, where its part is. In a networked run a party needs its own entry alone.
        device: the SPU; the one of all parties that `spu.init` named if not given.
        name: of the files, without their ending.

    Raises:
        InputError: for a part that is missing, damaged, of another party, format or configuration, and in a
            simulation for parts that do not belong together.
        PeerMismatchError: in a networked run, at every party, if the parts do not belong together.
        PeerAbortedError: if another party has one of these errors.
    """
    vm = device.vm if isinstance(device, SPU) else device or default_machine()
    if vm is None:
        raise InputError("`device` is missing: give the SPU that is to hold the shares.")
    with abort_on_error(vm.session.link):
        _complete(folders, name, vm)
        parts = {rank: _read(folders, rank, name, vm) for rank in _expected(folders, name, vm)}
        here = next(iter(parts.values())).common if parts else b""
        common = _header(_said(vm, lambda: here), "the first party's part")
        for part in parts.values():
            _check_together(part, common)
        types = _types(common, vm)
        for rank in _needed(types, vm):
            if rank not in parts:
                raise InputError(
                    f"`folders` lacks {_name(vm, rank)}, who holds a part of what was saved: add its folder."
                )
        _agree(vm, "saved shares", common)
        return _assembled(common, types, parts, vm)


def _complete(folders: Folders, name: str, vm: VM) -> None:
    """Move parts to their places that a save which was ended half-way left beside them."""
    here = [r for r in range(len(rank_names(vm.config))) if vm.session.party in (None, r) and _name(vm, r) in folders]
    paths = {rank: _folder(folders, _name(vm, rank)) / f"{name}{ENDING}" for rank in here}
    found = {r: halfway.found(p, functools.partial(_save_of, party=_name(vm, r))) for r, p in paths.items()}
    link = vm.session.link
    mine = [x.said() for x in found.values()]
    said = mine if link is None else link.gather(mine[0] if mine else halfway.Found().said(), counted=False)
    save = halfway.to_complete(said)
    for rank, x in found.items():
        if save is not None and save in x.beside:
            _move(str(x.beside[save]), paths[rank])


# The tree ---------------------------------------------------------------------------------------------


def _describe(x: Any, leaves: list[SPUObject]) -> Any:
    """The tree as JSON, with numbers for the objects, which are collected in `leaves`."""
    if isinstance(x, SPUObject) and x.valid is not None:
        return {"missing": [_describe(dataclasses.replace(x, valid=None), leaves), _describe(x.valid, leaves)]}
    if isinstance(x, SPUObject):
        leaves.append(x)
        return {"object": len(leaves) - 1}
    if isinstance(x, Mapping):
        wrong = [k for k in x if not isinstance(k, str)]
        if wrong:
            raise InputError(f"`tree` has a dictionary with the key {wrong[0]!r}: only texts can be stored.")
        return {"dict": {k: _describe(v, leaves) for k, v in x.items()}}
    if isinstance(x, list | tuple):
        return {"list" if isinstance(x, list) else "tuple": [_describe(v, leaves) for v in x]}
    if x is None or isinstance(x, bool | int | float | str):
        return {"value": x}
    raise InputError(
        f"`tree` has a `{type(x).__name__}`: only SPUObjects, numbers, texts and None can be stored. "
        "Give an object of a party to the SPU first, and an array as `dev(lambda: jnp.asarray(x))()`."
    )


def _rebuilt(x: Any, leaves: Sequence[SPUObject]) -> Any:
    ((kind, body),) = x.items()
    match kind:
        case "object":
            return leaves[body]
        case "missing":
            value, valid = (_rebuilt(v, leaves) for v in body)
            return dataclasses.replace(value, valid=valid)
        case "dict":
            return {k: _rebuilt(v, leaves) for k, v in body.items()}
        case "list":
            return [_rebuilt(v, leaves) for v in body]
        case "tuple":
            return tuple(_rebuilt(v, leaves) for v in body)
    return body


def _machine(leaves: Sequence[SPUObject]) -> VM:
    if not leaves:
        raise InputError("`tree` has no SPUObject: there is nothing to be stored as shares.")
    if any(x.vm is not leaves[0].vm for x in leaves):
        raise InputError("`tree` has objects of several machines: store those of each by themselves.")
    return leaves[0].vm


# Who holds what ------------------------------------------------------------------------------------------


def _name(vm: VM, rank: int) -> str:
    """Of a party; a simulated dealer is called "dealer"."""
    link = vm.session.link
    return rank_names(vm.config)[rank] if link is None else link.parties[rank]


def _holders(type_: Type, vm: VM) -> tuple[frozenset[int], ...]:
    """Of the components in the parts; public values are in the header."""
    if type_.is_public:
        return ()
    kind, owner = boundary_form(type_)
    rest = type_.with_(kind="int") if kind == "h" else type_  # a masked bool is masked as a number
    first, *others = vm.protocol.components(kind, owner)
    counts = [slots_of_component(type_, vm), *(slots_of_component(rest, vm) for _ in others)]
    return tuple(h for h, n in zip((first, *others), counts) for _ in range(n))


def _needed(types: Sequence[Type], vm: VM) -> list[int]:
    """The ranks written here that hold a component of any of the values."""
    ranks = frozenset().union(*(h for t in types for h in _holders(t, vm)))
    return sorted(ranks if vm.session.party is None else ranks & {vm.session.party})


def _held(leaves: Sequence[SPUObject], vm: VM) -> dict[int, list[Any]]:
    """By rank, its components of all leaves in order, None for those of others."""
    out: dict[int, list[Any]] = {}
    computing = range(vm.config.world_size)  # each has a part, even if it holds nothing: a load asks for it
    here = [r for r in computing if vm.session.party in (None, r)]
    for rank in sorted({*_needed([x.type for x in leaves], vm), *here}):
        out[rank] = [c if rank in h else None for x in leaves for c, h in zip(x.components, _holders(x.type, vm))]
    return out


def _expected(folders: Folders, name: str, vm: VM) -> list[int]:
    """Whose parts are to be read here: every computing party's, and others' that are there."""
    ranks = range(len(rank_names(vm.config))) if vm.session.party is None else [vm.session.party]
    there = {p for p, folder in folders.items() if (Path(folder) / f"{name}{ENDING}").exists()}
    return [r for r in ranks if r < vm.config.world_size or _name(vm, r) in there]


def _folder(folders: Folders, party: str) -> Path:
    if party not in folders:
        raise InputError(f"`folders` lacks {party}, who holds a part: it names {', '.join(folders) or 'nobody'}.")
    return Path(folders[party])


# What all parts say ----------------------------------------------------------------------------------------


def _described(structure: Any, leaves: Sequence[SPUObject], vm: VM) -> dict[str, Any]:
    """What every party can say about the objects; with `_made_once` the header that all parts have in common."""
    return {
        "spuvm": importlib.metadata.version("spuvm"),
        "machine": vm.config.digest,
        "config": vm.config.settings,
        "types": [[str(x.type), np.dtype(x.dtype).name] for x in leaves],
        "tree": structure,
    }


def _made_once(leaves: Sequence[SPUObject]) -> dict[str, Any]:
    """What the first party says for all: a random identity, and the public values."""
    values = {
        str(i): [
            [np.asarray(c).dtype.name, base64.b64encode(np.ascontiguousarray(c).tobytes()).decode()]
            for c in x.components
        ]
        for i, x in enumerate(leaves)
        if x.type.is_public
    }
    return {"id": secrets.token_hex(16), "public": values}


def _public(type_: Type, dtype: str, value: str) -> np.ndarray:
    return aligned(np.frombuffer(base64.b64decode(value), dtype).reshape(type_.shape))


def _types(common: Mapping[str, Any], vm: VM) -> list[Type]:
    """The types of the leaves. Owners are found by their names: parties that do not compute may differ."""
    then, now = common["config"], vm.config.settings
    names = [*then["parties"], *then.get("others", ())]
    for key in ("protocol", "ring_bits", "fxp_fraction_bits", "parties"):
        was, is_ = (c[key] if key != "parties" else ", ".join(c[key]) for c in (then, now))
        if was != is_:
            raise InputError(
                f"the shares were saved with {key} = {was}, this machine has {is_}: load them on one like it."
            )
    out = []
    for written, _ in common["types"]:
        type_ = text.parse_type(written)
        if isinstance(type_.visibility, int):
            owner = names[type_.visibility]
            if owner not in vm.config.members:
                raise InputError(f"the shares have a value of {owner}, who is none of {', '.join(vm.config.members)}.")
            type_ = type_.with_(visibility=vm.config.members.index(owner))
        out.append(type_)
    return out


def _said(vm: VM, payload: Callable[[], bytes]) -> bytes:
    """Bytes that the first party says to all; not counted, like agreement."""
    link = vm.session.link
    return payload() if link is None else link.broadcast(0, payload() if link.rank == 0 else None)


def _agree(vm: VM, what: str, common: Mapping[str, Any]) -> None:
    if vm.session.link is not None:
        vm.session.link.agree(what, json.dumps(common).encode())


def _check_together(part: _Part, common: Mapping[str, Any]) -> None:
    mine = json.loads(part.common)
    for key, what in (("id", "belongs to other shares"), ("config", "has another configuration")):
        if mine[key] != common[key]:
            raise InputError(
                f"{part.path} {what} than the first party's part: its `{key}` is {mine[key]}, there {common[key]}. "
                "Give every party's part of the same `save_shares`, or save once more."
            )
    if mine != common:
        raise InputError(
            f"{part.path} has the id of the other parts, but says otherwise what they hold: it was altered."
        )


# Files -----------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """A part that was read; `common` is its header without the party's name, as JSON."""

    path: Path
    common: bytes
    components: list[Any]


@contextlib.contextmanager
def _written(path: Path, header: Mapping[str, Any], components: Sequence[Any]) -> Iterator[Callable[[], None]]:
    """Write a part beside its place; gives what moves it there. What was not moved is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=halfway.beside(path), dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w+b") as file:
                with contextlib.suppress(OSError):  # a file system without locks
                    lock(file.fileno())  # while this process is at work on it
                _write(file, header, components)
                file.flush()
                os.fsync(file.fileno())
                yield lambda: _move(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as e:
        raise InputError(f"cannot write {path}: {e.strerror or e}.") from None


def _move(temporary: str, path: Path) -> None:
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(file: IO[bytes], header: Mapping[str, Any], components: Sequence[Any]) -> None:
    held = [None if c is None else 0 for c in components]
    file.write(MAGIC + bytes(DIGEST) + b"\n")
    file.write(json.dumps({**header, "held": held}).encode() + b"\n")
    for c in components:
        if c is not None:
            np.lib.format.write_array(file, np.asarray(c), allow_pickle=False)
    file.flush()
    digest = _digest(file)
    file.seek(len(MAGIC))
    file.write(digest)


def _digest(file: IO[bytes]) -> bytes:
    """Hexadecimal SHA-256 of what follows the line that holds it."""
    file.seek(len(MAGIC) + DIGEST + 1)
    return hashlib.file_digest(file, "sha256").hexdigest().encode()  # type: ignore[arg-type]


def _save_of(path: Path, whole: bool, party: str) -> str | None:
    """The identity of the save that a party's part is of, `whole`: of which all is checked. None: it is none."""
    try:
        with path.open("rb") as file:
            if whole:
                return str(json.loads(_parsed(file, path, party).common)["id"])
            file.seek(len(MAGIC) + DIGEST + 1)
            return str(_header(file.readline(), str(path))["id"])
    except (OSError, InputError):
        return None


def _read(folders: Folders, rank: int, name: str, vm: VM) -> _Part:
    party = _name(vm, rank)
    path = _folder(folders, party) / f"{name}{ENDING}"
    try:
        with path.open("rb") as file:
            return _parsed(file, path, party)
    except OSError as e:
        raise InputError(f"cannot read {party}'s part {path}: {e.strerror or e}.") from None


def parties_of(path: Path) -> tuple[str, ...]:
    """The parties of the machine that saved a part, as its header says; `load_shares` checks the part itself.

    Raises:
        InputError: for a file that cannot be read or is no part.
    """
    try:
        with path.open("rb") as file:
            magic, _, header = file.readline(), file.readline(), file.readline()
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror or e}.") from None
    if magic != MAGIC:
        raise InputError(f"{path} is no part that `save_shares` of this version wrote.")
    return tuple(_header(header, str(path))["config"]["parties"])


def _header(text: bytes, where: str) -> dict[str, Any]:
    """A part's header. InputError for what `save_shares` cannot have written."""
    try:
        header = json.loads(text)
        types = {"id": str, "machine": str, "config": dict, "types": list, "tree": dict, "public": dict}
        whole = isinstance(header, dict) and all(isinstance(header.get(k), t) for k, t in types.items())
    except ValueError:
        whole = False
    if not whole or not isinstance(header["config"].get("parties"), list):
        raise InputError(f"{where} is no part that `save_shares` wrote: its header is malformed.")
    return dict(header)


def _parsed(file: IO[bytes], path: Path, party: str) -> _Part:
    magic = file.read(len(MAGIC))
    if not magic.startswith(MAGIC[:13]):
        raise InputError(f"{path} is no part that `save_shares` wrote.")
    if magic != MAGIC:
        raise InputError(
            f"{path} has another format than {FORMAT}, which this version of spuvm reads: load it with the other."
        )
    claimed = file.read(DIGEST + 1)
    if claimed != _digest(file) + b"\n":
        raise InputError(f"{path} is damaged: its content does not have the SHA-256 that it states. Use a copy.")
    file.seek(len(MAGIC) + DIGEST + 1)
    header = _header(file.readline(), str(path))
    held, owner = header.pop("held", ()), header.pop("party", "nobody")
    if owner != party:
        raise InputError(f"{path} is the part of {owner}, not of {party}: give each party its own.")
    try:
        components = [None if h is None else aligned(np.lib.format.read_array(file, allow_pickle=False)) for h in held]
    except (ValueError, EOFError):
        raise InputError(f"{path} is no part that `save_shares` wrote: its arrays are malformed.") from None
    return _Part(path, json.dumps(header).encode(), components)


def _assembled(common: Mapping[str, Any], types: Sequence[Type], parts: Mapping[int, _Part], vm: VM) -> Any:
    """The tree of objects; a component that several parts hold must be the same in all."""
    leaves, at = [], 0
    for i, (type_, (_, dtype)) in enumerate(zip(types, common["types"])):
        components: list[Any] = []
        if type_.is_public:
            components += [None if vm.deals else _public(type_, *limb) for limb in common["public"][str(i)]]
        for holders in _holders(type_, vm):
            copies = [parts[r].components[at] for r in sorted(holders & parts.keys())]
            if any(c is None or c.shape != type_.shape or not np.array_equal(c, copies[0]) for c in copies):
                names = " and ".join(_name(vm, r) for r in sorted(holders & parts.keys()))
                raise InputError(f"the parts of {names} do not agree in what both hold: they were altered.")
            components.append(copies[0] if copies else None)
            at += 1
        leaves.append(SPUObject(tuple(components), type_, jax.numpy.dtype(dtype), vm))
    return _rebuilt(common["tree"], leaves)
