"""Running blocks: read and encode the next, compute this one, write what the last one gave, all at once.

A `Job` is everything that this takes, without the user's functions: programs, files, and the run's
folder. Another process can read it, which is how workers get theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from spuvm.compiler.compile import Program
from spuvm.compiler.expand.expander import boundary_form
from spuvm.compiler.ir.module import Type
from spuvm.objects import SPUObject, encoded, slots_of, slots_of_component
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import whole
from spuvm.runtime.machine.session import Call, abort_on_error
from spuvm.runtime.protocols.sharings import public, reconstruct
from spuvm.runtime.ring.elements import limb_count, limbs, words
from spuvm.runtime.ring.encodings import decode
from spuvm.streaming.block import Counts
from spuvm.streaming.folder import Folder
from spuvm.streaming.kept_rows import ROWS, Kept, KeptRows
from spuvm.streaming.owner import OwnWork
from spuvm.streaming.secrets import Secrets
from spuvm.streaming.sources import Rows, Source
from spuvm.vm import VM

Progress = Callable[[int], None]  # called with the rows of each block that is done
INITIAL = -1  # the number of the block before the first


@dataclass
class Job:
    """`rows` of each part; `programs` by the counts of blocks.

    Blocks give a state that stays shared, rows for one party, or rows that are kept as shares. They are
    of files, `parts`, or of the rows that another pass left as shares.
    """

    parts: Sequence[Mapping[str, Source]]
    rows: Sequence[int]
    rows_per_block: int
    programs: Mapping[Counts, Program]
    in_order: bool
    gives: Literal["state", "rows", "kept"]
    initial: Sequence[np.ndarray] = ()
    own: Mapping[tuple[int, int], OwnWork] = field(default_factory=dict)  # by part and its rows in a block
    kept: Kept | Secrets | None = None

    @property
    def blocks(self) -> int:
        return -(-max(self.rows) // self.rows_per_block)

    def counts(self, block: int) -> Counts:
        start = block * self.rows_per_block
        return tuple(min(max(rows - start, 0), self.rows_per_block) for rows in self.rows)

    def shapes(self) -> list[Counts]:
        """The counts that blocks have: every one that is not like the block before it; of no rows one that fits."""
        if not self.blocks:
            return [tuple(1 for _ in self.rows)]
        ends = {b for rows in self.rows for b in ((rows - 1) // self.rows_per_block + d for d in (0, 1))}
        return list(dict.fromkeys(self.counts(b) for b in sorted({0, *ends}) if b < self.blocks))


@dataclass
class _Ready:
    """A block's own inputs as ring elements; None: another party's."""

    block: int
    raw: list[np.ndarray | None]


@dataclass
class Runner:
    """Runs blocks of a job as one party, or as all in a simulation."""

    job: Job
    vm: VM
    folder: Folder
    journal: str = "0"
    readers: Mapping[tuple[int, str], Rows] | None = None  # this party's sources, if they are open already
    _committed: int = field(default=INITIAL, init=False)

    @property
    def link(self) -> Link | None:
        return self.vm.session.link

    @property
    def party(self) -> int | None:
        return self.vm.session.party

    @cached_property
    def _kept(self) -> KeptRows | None:
        return KeptRows(self.job.kept) if isinstance(self.job.kept, Kept) else None

    @cached_property
    def _readers(self) -> Mapping[tuple[int, str], Rows]:
        if self.readers is not None:
            return self.readers
        names = self.vm.config.parties
        return {
            (p, n): Rows(source, n, self.job.rows_per_block)
            for p, part in enumerate(self.job.parts)
            for n, source in part.items()
            if self.party is None or (self.party < len(names) and names[self.party] == source.party)
        }

    def run(self, todo: Sequence[int], progress: Progress | None = None) -> None:
        """Run blocks in order. When it returns all are finished here."""
        if not todo:
            return
        state = self._state_before(todo[0])
        for program in {id(p): p for p in (self.job.programs[self.job.counts(b)] for b in todo)}.values():
            program.party(self.party).prepare()
        with (
            abort_on_error(self.link),
            ThreadPoolExecutor(1, "read") as reader,
            ThreadPoolExecutor(1, "write") as writer,
        ):
            self._committed = todo[0] - 1
            ahead = reader.submit(self._read, todo[0])
            behind: Future[None] | None = None
            for i, block in enumerate(todo):
                ready = ahead.result()
                if i + 1 < len(todo):
                    ahead = reader.submit(self._read, todo[i + 1])
                results = self._compute(ready, state)
                state = results if self.job.in_order else []
                if behind is not None:
                    behind.result()
                behind = writer.submit(self._commit, block, results)
                if progress is not None:
                    progress(sum(self.job.counts(block)))
            assert behind is not None
            behind.result()

    # Reading --------------------------------------------------------------------------------------

    def _read(self, block: int) -> _Ready:
        counts = self.job.counts(block)
        module = self.job.programs[counts].module
        params = iter(zip(module.body.params, module.input_dtypes))
        raw: list[np.ndarray | None] = []
        start = block * self.job.rows_per_block
        if isinstance(self.job.kept, Secrets):
            types = {n: v.type for n, (v, _) in zip(sorted(self.job.kept.columns), params)}
            return _Ready(block, self.job.kept.block(start, start + counts[0], types))
        if self._kept is not None:
            raw = self._read_kept(self._kept, start, start + counts[0])
            return _Ready(block, raw)
        for p, count in enumerate(counts):
            own = self.job.own.get((p, count))
            if not count:
                continue
            if own is not None:
                raw += self._own_work(own, p, start, count)
                for _ in own.names:
                    next(params)
                continue
            for name in sorted(self.job.parts[p]):
                value, dtype = next(params)
                rows = self._readers.get((p, name))
                if rows is None:
                    raw += [None] * slots_of_component(value.type, self.vm)
                    continue
                read = rows.read(start, start + count, np.dtype(dtype))
                raw += limbs(encoded(read, value.type, name, self.vm.config.ring_bits))
        return _Ready(block, raw)

    def _read_kept(self, rows: KeptRows, start: int, stop: int) -> list[np.ndarray | None]:
        """Some rows as inputs, in the order of the columns' names."""
        module = self.job.programs[self.job.counts(start // self.job.rows_per_block)].module
        raw: list[np.ndarray | None] = []
        for (_, held), value in zip(sorted(rows.read(start, stop).items()), module.body.params):
            raw += [*held, *[None] * (slots_of(value.type, self.vm) - len(held))]
        return raw

    def _own_work(self, own: OwnWork, part: int, start: int, count: int) -> Sequence[np.ndarray | None]:
        """What the owner computes of a block alone, if that is this party."""
        ring_bits = self.vm.config.ring_bits
        if ring_bits < 64:
            raise ConfigError(f"`group_by` adds up in 64 bits: use ring=64 or 128, not {ring_bits}.")
        rows = {n: self._readers[part, n] for n in self.job.parts[part] if (part, n) in self._readers}
        if not rows:
            return [None] * (len(own.names) * limb_count(ring_bits, np.uint64))
        columns = {n: r.read(start, start + count, r.dtype) for n, r in rows.items()}
        sums = own(columns, self.vm.config.fxp_fraction_bits)
        return [limb for x in sums for limb in limbs(words(x.view(np.int64), ring_bits))]

    # Computing ------------------------------------------------------------------------------------

    def _compute(self, ready: _Ready, state: Sequence[Any]) -> list[Any]:
        """The components that the block's program gives, under masks of this session, which no other has."""
        if self.job.in_order:
            self._forget()
        self.folder.begin_block(ready.block, self.journal)
        program = self.job.programs[self.job.counts(ready.block)]
        what = f"block {ready.block} of {self.folder.run}, attempt {self.folder.attempt}"
        return run_whole(self.vm, program, what, [*ready.raw, *state])

    def _forget(self) -> None:
        """Drop states before the last that all have committed: nobody will go back behind that."""
        mine = (self._committed + 1).to_bytes(8, "big")
        done = min(int.from_bytes(x, "big") for x in self._told(mine)) - 1
        self.folder.drop(range(max(done - 3, INITIAL), done))

    def _told(self, body: bytes) -> list[bytes]:
        """What each party says, by rank; all say as many bytes."""
        if self.link is None:
            return [body]
        heard = {peer: np.zeros(len(body), np.uint8) for peer in self.link.peers}
        self.link.exchange({p: [memoryview(body)] for p in self.link.peers}, {p: [b] for p, b in heard.items()})
        return [body, *(x.tobytes() for x in heard.values())]

    # What blocks gave -----------------------------------------------------------------------------

    def _commit(self, block: int, results: Sequence[Any]) -> None:
        arrays = self._arrays(self.job.programs[self.job.counts(block)], results)
        if self.job.gives == "kept":
            arrays, rows = self._first(arrays)
            self.folder.store(block, arrays, self.journal, {ROWS: rows})
        else:
            self.folder.store(block, arrays, self.journal)
        self._committed = block

    @staticmethod
    def _first(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int | None]:
        """Of the rows of a block those that are kept, which come first, and how many; who only deals has neither."""
        results = {int(name.partition(".")[0]) for name in arrays}
        count = arrays.pop(f"{max(results)}.0") if results else None
        rows = None if count is None else int(count)
        return {n: np.ascontiguousarray(x[:rows]) for n, x in arrays.items()}, rows

    def _arrays(self, program: Program, results: Sequence[Any]) -> dict[str, np.ndarray]:
        """What is kept of a block's results: rows as this party may see them, or components."""
        out: dict[str, np.ndarray] = {}
        at = 0
        for i, (value, dtype) in enumerate(zip(program.module.body.results, program.module.output_dtypes)):
            kind, _ = boundary_form(value.type)
            parts = results[at : at + self._components(value.type)]
            at += len(parts)
            if self.job.gives != "rows":
                out |= {f"{i}.{c}": np.asarray(x) for c, x in enumerate(parts) if x is not None}
            elif parts[0] is not None:
                raw = reconstruct(self.vm.protocol.algebra, kind, parts, slots_of_component(value.type, self.vm))
                out[str(i)] = np.asarray(decode(raw, value.type.kind, value.type.frac, np.dtype(dtype)))
        return out

    def _components(self, type_: Type) -> int:
        return slots_of(type_, self.vm)

    def objects(self, block: int, stored: Mapping[str, np.ndarray]) -> list[SPUObject]:
        """The state that a block left, as secret values."""
        module = self.job.programs[self.job.counts(block)].module
        out = []
        for i, (value, dtype) in enumerate(zip(module.body.results, module.output_dtypes)):
            parts = tuple(stored.get(f"{i}.{c}") for c in range(self._components(value.type)))
            out.append(SPUObject(parts, value.type, np.dtype(dtype), self.vm))
        return out

    def _state_before(self, block: int) -> list[Any]:
        if not self.job.in_order:
            return []
        if block > 0:
            stored = self.folder.load(block - 1, self.folder.finished()[block - 1])
            return [c for x in self.objects(block - 1, stored) for c in x.components]
        module = self.job.programs[self.job.counts(0)].module
        types = [v.type for v in module.body.params[len(module.body.params) - len(self.job.initial) :]]
        return [c for x, t in zip(self.job.initial, types) for c in self._known_to_all(x, t)]

    def _known_to_all(self, value: np.ndarray, type_: Type) -> list[Any]:
        """A sharing of what everybody knows."""
        kind, owner = boundary_form(type_)
        raw = encoded(value, type_, "init", self.vm.config.ring_bits)
        slots = public(self.vm.protocol.algebra, kind, raw)
        holders = [h for h in self.vm.protocol.components(kind, owner) for _ in limbs(raw)]
        return [x if self.party is None or self.party in ranks else None for x, ranks in zip(slots, holders)]


def run_whole(vm: VM, program: Program, what: str, inputs: Sequence[Any]) -> list[Any]:
    """What a program gives of components, as whole arrays. All parties must say the same of `what` these are."""
    party = program.party(vm.session.party)
    results = vm.session.run(party, inputs, Call(program.hash, what))
    return [None if r is None else whole(r, shape) for r, shape in zip(results, party.block.result_shapes)]


def describe(job: Job) -> dict[str, Any]:
    """The job as what JSON can write, for another process."""
    return {
        "parts": [{n: [s.path, list(s.columns), s.party] for n, s in part.items()} for part in job.parts],
        "rows": list(job.rows),
        "rows_per_block": job.rows_per_block,
        "programs": [[list(counts), p.text] for counts, p in job.programs.items()],
        "in_order": job.in_order,
        "gives": job.gives,
        "kept": job.kept.to_json() if isinstance(job.kept, Kept) else None,
        "own": [[list(key), own.to_json()] for key, own in job.own.items()],
    }
