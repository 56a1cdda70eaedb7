"""Going on with a training: every party writes its checkpoint, and all begin again at a round that each has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.devices import PYU, PYUObject
from spuvm.fed import checkpoints
from spuvm.fed.meeting import said
from spuvm.fed.plan import Plan
from spuvm.fed.rounds import State
from spuvm.runtime.errors import InputError, PublicError


def _facts(plan: Plan, state: State) -> dict[str, Any]:
    s = plan.strategy
    return {"kind": "spuvm.fed", "paths": [plan.layout.paths[i] for i in plan.layout.shared], "strategy": s.name,
            "round": state.round, "history": state.history}  # fmt: skip


def _known(state: State) -> dict[str, np.ndarray]:
    """What all know, by its name in a file."""
    return {"vector": state.vector, **{f"server_{k}": v for k, v in state.server.items()}}


def save(plan: Plan, workers: Mapping[str, PYUObject], where: Any, state: State) -> None:
    public = _known(state)
    for p in plan.parties:
        PYU(p)(
            lambda w, p=p: checkpoints.write(
                checkpoints.folder_of(where, p), state.round, public, w.state(), _facts(plan, state)
            )
        )(workers[p])


def resumed(plan: Plan, workers: Mapping[str, PYUObject], where: Any) -> State:
    """The newest round that all who have a checkpoint have; from the start if there is none."""
    start = plan.layout.vector(plan.layout.leaves)
    fresh = State(start, plan.strategy.start(len(start), start.dtype) | plan.compress_state())
    if where is None:
        return fresh
    names = {p: p for p in plan.parties}
    have = said(plan.parties, "checkpoints", str, lambda p: checkpoints.rounds(checkpoints.folder_of(where, p)), names)
    sets = [{int(n) for n in text.split(",")} for text in have.values() if text]
    if not sets:
        return fresh
    common = set.intersection(*sets)
    if not common:
        raise PublicError("the parties' checkpoints have no round in common: take them away to start anew.")
    return _loaded(plan, workers, where, max(common), {p for p, text in have.items() if text}, fresh)


def _loaded(
    plan: Plan, workers: Mapping[str, PYUObject], where: Any, number: int, holders: set[str], fresh: State
) -> State:
    """What all know comes from the first party that has it; each restores what is its own."""
    first = next(p for p in plan.parties if p in holders)
    shown = PYU(first)(lambda: _public(plan, checkpoints.folder_of(where, first), number, fresh))().reveal()
    for p in plan.parties:
        if p in holders:
            PYU(p)(lambda w, p=p: w.restore(checkpoints.read(checkpoints.folder_of(where, p), number)[1]))(workers[p])
    history = json.loads(np.asarray(shown["history"], np.uint8).tobytes())
    server = {k.removeprefix("server_"): np.array(v) for k, v in shown.items() if k.startswith("server_")}
    return State(np.array(shown["vector"]), server, number, history)


def _public(plan: Plan, folder: Path, number: int, fresh: State) -> dict[str, Any]:
    public, _, facts = checkpoints.read(folder, number)
    want, shapes = _facts(plan, fresh), {name: x.shape for name, x in _known(fresh).items()}
    if any(facts.get(k) != want[k] for k in ("kind", "paths", "strategy")) or shapes != {
        name: x.shape for name, x in public.items()
    }:
        raise InputError(f"the checkpoints in {folder} are of another training: give another folder.")
    return {**public, "history": np.frombuffer(json.dumps(facts["history"]).encode(), np.uint8)}
