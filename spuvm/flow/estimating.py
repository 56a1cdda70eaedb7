"""What a flow will cost and reveal, before it runs: a rehearsal in the clear, in this process, where nothing is sent.

Every program is compiled for the machine that would run it, and its cost and reveals noted; what it gives is computed
in the clear, so that the flow takes the same turns. Costs depend on shapes alone: tables of the same shape do, such as
samples of the other parties'. What anybody's rows say stays in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm import context as contexts
from spuvm.compiler.compile import Program
from spuvm.compiler.expand.expander import boundary_form
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Type
from spuvm.context import Context
from spuvm.devices import _Machine
from spuvm.flow.graph import Flow
from spuvm.flow.places import Tables
from spuvm.flow.records import NodeRun
from spuvm.flow.run import Run, Told, run
from spuvm.objects import Marked, SPUObject, encoded, slots_of, slots_of_component
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.machine.components import aligned
from spuvm.runtime.machine.session import Session
from spuvm.runtime.protocols.sharings import reconstruct
from spuvm.runtime.ring.elements import limbs
from spuvm.runtime.scratch import Scratch
from spuvm.vm import VM
from spuvm.watching import WATCHER


class _Rehearsed(_Machine):
    """A machine that computes in the clear what it is told to run."""

    def run(self, program: Program, leaves: Sequence[Any]) -> list[SPUObject]:
        """The results of a program, whose cost is noted."""
        watcher, module = WATCHER.get(), program.module
        if watcher is not None:
            watcher.ran(program)
        params = zip(leaves, module.body.params, module.inputs, strict=True)
        raw = [self._raw(value, param.type, name) for value, param, name in params]
        found = evaluate(module, raw)
        results = zip(found, module.body.results, module.output_dtypes)
        return [
            SPUObject(tuple(self._parts(np.asarray(x), v.type)), v.type, jax.numpy.dtype(dtype), self)
            for x, v, dtype in results
        ]

    def _raw(self, value: Any, type_: Type, name: str) -> np.ndarray:
        if isinstance(value, SPUObject):
            kind, _ = boundary_form(value.type)
            count = slots_of_component(value.type, self)
            known, components = ("v", value.components[:count]) if kind == "h" else (kind, value.components)
            return reconstruct(self.protocol.algebra, known, components, count)
        return encoded(value.value if isinstance(value, Marked) else value, type_, name, self.config.ring_bits)

    def _parts(self, raw: np.ndarray, type_: Type) -> list[Any]:
        kind, _ = boundary_form(type_)
        raw = aligned(raw.astype(np.uint8) if type_.kind == "bool" else raw)
        if kind in "pv":
            return list(limbs(raw))
        if kind == "h":  # the value, where the machine has it masked
            return [*limbs(raw), *[np.zeros(raw.shape, np.uint64)] * (slots_of(type_, self) - len(limbs(raw)))]
        return list(self.session.share(raw, kind))


@dataclass
class _Rehearsal(Context):
    """Devices of a rehearsal."""

    def machine(self, config: Config, kind: Callable[[Session], VM] = VM, stored: Path | None = None) -> VM:
        """The machine of a configuration; nothing is made ahead for it."""
        if config not in self.machines:
            self.machines[config] = _Rehearsed(Session(config))
        return self.machines[config]


def rehearse(
    flow: Flow,
    tables: Tables | None = None,
    *,
    parties: Sequence[str] | None = None,
    config: Config | None = None,
    told: Told | None = None,
) -> Run:
    """Run a flow in the clear, of which only costs and reveals are of interest; nothing is kept.

    Args:
        tables: of all parties, real or of the same shapes.
        parties: if neither the flow nor `spu.init` says them.
        config: of the machine that would run it, if not the usual one of these parties.
    """
    known = contexts.current()
    names = tuple(parties or flow.parties or (known.parties if known else ()) or ("alice", "bob", "carol"))
    config = config or (known.config if known else None)
    if not tables:
        raise ConfigError("a rehearsal needs tables of all parties: give yours, and samples of the others' shapes.")
    with (
        Scratch() as state,
        contexts.instead(_Rehearsal(names, config=config)),
    ):
        return _forgotten(run(flow, state=state, tables=tables, workers=1, told=told))


def _forgotten(made: Run) -> Run:
    """Costs, without values."""
    made.values.clear()
    return made


def table(nodes: Mapping[str, NodeRun], flow: Flow) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Costs and reveals by node, for printing: heads and rows."""
    heads = ("node", "component", "owners", "rounds", "MB sent", "reveals")
    rows: list[tuple[str, ...]] = []
    for name, r in nodes.items():
        shown = "; ".join(told(r)) or "nothing"
        owners = " ".join(flow.owners(name)) or "-"
        cost = (f"{r.spent.rounds:,}", f"{r.spent.bytes / 1e6:,.3f}")
        rows.append((name, flow.nodes[name].component.name, owners, *cost, shown))
    return heads, rows


def told(r: NodeRun) -> list[str]:
    """The reveals of a node, a line each."""
    out = []
    for (what, to, size), times in r.spent.reveals.items():
        numbers = f" ({size:,} numbers)" if size > 1 else ""
        out.append(f"{what}{numbers} to {to}" + (f", {times} times" if times > 1 else ""))
    return out
