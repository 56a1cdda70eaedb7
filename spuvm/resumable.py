"""A loop that goes on where it was interrupted: what it carries is kept as shares, at each party its own.

    loop = spu.resumable({"w": w, "lr": 0.1}, 1000, every=50, folder="kept", inputs=[x, y])
    for step in loop:
        loop.state = update(loop.state, ...)
    w = loop.state["w"]

Every `every` steps each party writes its part of the state (`spu.save_shares`), and keeps the last two: a party may be
killed while it writes. The same script, started again, goes on at the newest step that all parties have, in a session
of its own with new keys: no mask of the first run is used again, and the parts say no more than its view did. A party
whose folder is gone makes all begin anew. Inputs that have changed end it: a loop that goes on with other data would
tell more than either alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.devices import PYUObject
from spuvm.objects import Remote, SPUObject
from spuvm.runtime.errors import InputError, PublicError, SaveError
from spuvm.runtime.machine.session import abort_on_error
from spuvm.runtime.protocols.registered import rank_names
from spuvm.shares import ENDING, load_shares, save_shares
from spuvm.vm import VM

KEPT = 2
MOST = 1 << 62
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Resumable:
    """Made by `resumable`; iterating over it gives the numbers of the steps that are still to be done."""

    def __init__(
        self, state: Any, steps: int, every: int, folders: Mapping[str, Path], inputs: Any, name: str, vm: VM
    ) -> None:
        self.state = state
        self.start = 0  # the step at which it goes on
        self._steps, self._every, self._folders, self._name, self._vm = steps, every, folders, name, vm
        self._begin(inputs)

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start, self._steps):
            yield step
            done = step + 1
            if done % self._every == 0 or done == self._steps:
                save_shares(self.state, self._folders, f"{self._name}-{done}")
                self._forget(done)

    def _begin(self, inputs: Any) -> None:
        """Find the newest step that all have, and compare the inputs with those that it began with."""
        link = self._vm.session.link
        with abort_on_error(link):
            settings = {"name": self._name, "every": self._every, "inputs": _public(inputs)}
            if link is not None:
                link.agree("a loop that goes on", json.dumps(settings).encode())
            step = self._newest()
            digest = {party: json.dumps([settings["inputs"], _own(inputs, party)]) for party in self._mine()}
            for party, now in digest.items():
                path = self._folders[party] / f"{self._name}.inputs"
                if step and (not path.is_file() or path.read_text() != now):
                    raise PublicError(
                        f"the inputs of {self._name!r} are not those that it began with: take its folder away at all "
                        "parties, to begin anew."
                    )
                _write(path, now)
        if step:
            kept = load_shares(self._folders, self._vm, f"{self._name}-{step}")
            with abort_on_error(link):
                if _form(kept) != _form(self.state):
                    raise PublicError(f"what {self._name!r} kept is the state of another loop: give another folder.")
            self.state, self.start = kept, step

    def _mine(self) -> list[str]:
        """The parties whose folders are written here."""
        link = self._vm.session.link
        return list(rank_names(self._vm.config)) if link is None else [link.parties[link.rank]]

    def _newest(self) -> int:
        """The newest step that every party has; 0 if there is none."""
        have = [set(self._have(party)) for party in self._mine()]
        mine = sorted(set.intersection(*have))[-KEPT:]
        link = self._vm.session.link
        if link is None:
            return max(mine, default=0)
        body = np.array([0] * (KEPT - len(mine)) + mine, "<i8").tobytes()
        said = link.gather(body, 8 * KEPT, counted=False)
        common = set.intersection(*({int(n) for n in np.frombuffer(b, "<i8") if 0 <= n < MOST} for b in said))
        return max(common, default=0)

    def _have(self, party: str) -> list[int]:
        form = re.compile(rf"{self._name}-(\d{{1,18}}){re.escape(ENDING)}")
        folder = self._folders[party]
        found = (form.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(m[1]) for m in found if m and int(m[1]) <= self._steps)

    def _forget(self, newest: int) -> None:
        for party in self._mine():
            for step in [n for n in self._have(party) if n <= newest][:-KEPT]:
                (self._folders[party] / f"{self._name}-{step}{ENDING}").unlink(missing_ok=True)


def resumable(
    state: Any,
    steps: int,
    *,
    folder: str | Path | Mapping[str, str | Path],
    every: int = 10,
    inputs: Any = (),
    name: str = "loop",
) -> Resumable:
    """A loop of `steps` steps over `state`, which goes on where it was interrupted when the script is started again.

    Args:
        state: what the loop carries: a pytree of SPUObjects, numbers, texts and None (as `spu.save_shares` takes it),
            as it begins; the body replaces `loop.state`.
        steps: in all; more of them may be given later, to go on.
        folder: where parties keep their parts: each in a folder of its name in it; or a folder for each.
        every: so many steps are done between two writings; what was done since is lost with a party.
        inputs: what must not have changed: objects of parties (each compares its own), arrays and numbers of all.
        name: of this loop, if the folder is for several.

    Returns:
        An object to iterate over; `start` is the first step that is still to be done.

    Raises:
        InputError: for settings that are none, and for kept parts that are damaged.
        PublicError: at all parties, if inputs have changed, or the kept state is of another form.
        SaveError: if a party cannot write its part.
    """
    leaves = [x for x in jax.tree.leaves(state, is_leaf=_is_object) if isinstance(x, SPUObject)]
    if not leaves or any(x.vm is not leaves[0].vm for x in leaves):
        raise InputError("`state` must hold SPUObjects of one SPU: what a loop carries as secrets.")
    for what, number in (("steps", steps), ("every", every)):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < MOST:
            raise InputError(f"`{what}` must be a positive whole number, got {number!r}.")
    if not NAME.fullmatch(name):
        raise InputError(f"`name` must be letters, digits and `_`, got {name!r:.80}.")
    vm = leaves[0].vm
    link = vm.session.link
    parties = rank_names(vm.config) if link is None else [link.parties[link.rank]]
    given = dict(folder) if isinstance(folder, Mapping) else {p: Path(folder) / p for p in parties}
    if missing := [p for p in parties if p not in given]:
        raise InputError(f"`folder` has none for {missing[0]}: it names {', '.join(given) or 'nobody'}.")
    return Resumable(state, steps, every, {p: Path(given[p]) for p in parties}, inputs, name, vm)


def _is_object(x: Any) -> bool:
    return isinstance(x, Remote)


def _form(state: Any) -> Any:
    """What a state must have in common with the one that goes on in its place."""
    leaves, structure = jax.tree.flatten(state, is_leaf=_is_object)
    return str(structure), [(x.shape, np.dtype(x.dtype)) if isinstance(x, SPUObject) else type(x) for x in leaves]


def _public(inputs: Any) -> list[str]:
    """Of all inputs what every party can say."""
    out = []
    for x in jax.tree.leaves(inputs, is_leaf=_is_object):
        if isinstance(x, PYUObject):
            out.append(f"an object of {x.device.party}")
        elif isinstance(x, SPUObject):
            raise InputError(
                "`inputs` has a shared value, which nobody can compare: give the objects that it came from."
            )
        else:
            out.append(_digest(x))
    return out


def _own(inputs: Any, party: str) -> list[str]:
    """Digests of a party's own objects, which stay in its folder."""
    found = [x for x in jax.tree.leaves(inputs, is_leaf=_is_object) if isinstance(x, PYUObject)]
    return [_digest(x.value) for x in found if x.device.party == party and x.device.is_here]


def _digest(value: Any) -> str:
    made = hashlib.sha256()
    for leaf in jax.tree.leaves(value):
        array = np.asarray(leaf)
        body = repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
        made.update(f"{array.dtype} {array.shape} {len(body)}\n".encode() + body)
    return made.hexdigest()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(text)
    except OSError as error:
        raise SaveError(f"cannot write {path}: {error.strerror or error}.") from None
