"""The programs that run on blocks: the steps and the end of a stream, compiled for each shape that blocks have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.compiler.compile import Program, compile_function
from spuvm.missing import numbers_only
from spuvm.objects import SPUObject
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError, VisibilityError
from spuvm.streaming.block import Counts, Finish, Part, Step, through
from spuvm.streaming.grouping import AGGREGATED, Aggregator, GroupBy
from spuvm.streaming.owner import OwnWork
from spuvm.vm import VM


@dataclass
class Computation:
    """One pass over all rows: `program(counts)` is what runs on a block."""

    config: Config
    parts: Sequence[Part]
    steps: tuple[Step, ...]
    finish: Finish
    from_files: bool = True  # not shares that another pass left
    _programs: dict[Counts, Program] = field(default_factory=dict)
    _own: dict[tuple[int, int], OwnWork] = field(default_factory=dict)

    @property
    def in_order(self) -> bool:
        return self.finish.in_order

    def program(self, counts: Counts) -> Program:
        """The program of a block whose parts have so many rows."""
        if counts not in self._programs:
            arguments = [self._arguments(p, count) for p, count in enumerate(counts)]
            state = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self._initial))
            owners: list[Any] = []
            for part, given in zip(self.parts, arguments):
                alone = next(iter(part.values())).owner
                owners += [part[n].owner if n in part else alone for n in sorted(given or {})]
            owners += ["secret"] * len(jax.tree.leaves(state))
            program = numbers_only(compile_function(self._block, [arguments, state], owners, self.config))
            self._check_state(program)
            self._programs[counts] = program
        return self._programs[counts]

    @property
    def _initial(self) -> Any:
        return self.finish.init if self.finish.in_order else ()

    def initial(self) -> list[np.ndarray]:
        """The state before the first block, as arrays."""
        return [np.asarray(x) for x in jax.tree.leaves(jax.tree.map(jnp.asarray, self._initial))]

    def own_work(self, part: int, count: int) -> OwnWork | None:
        """What the owner of a part does with a block of it before anything is shared; None if nothing."""
        columns = self.parts[part]
        if not (self.from_files and isinstance(self.finish, GroupBy)) or len({c.owner for c in columns.values()}) > 1:
            return None
        if (part, count) not in self._own:
            finish = self.finish
            exported = jax.export.export(jax.jit(finish.columns(self.steps)))(structs(columns, count))
            given, _ = jax.tree.unflatten(exported.out_tree, exported.out_avals)
            aggregator = Aggregator(finish.key, finish.keys, finish.wanted)
            self._own[part, count] = OwnWork(exported, aggregator, finish.structs(given))
        return self._own[part, count]

    def of_nothing(self) -> Any:
        """What a pass without rows gives."""
        columns = jax.eval_shape(lambda c: through(self.steps, c)[0], structs(self.parts[0], 1))
        return self.finish.of_nothing(columns)

    def _arguments(self, part: int, count: int) -> Any:
        if not count:
            return None
        own = self.own_work(part, count)
        return structs(self.parts[part], count) if own is None else dict(own.structs)

    def _block(self, parts: Any, state: Any) -> Any:
        pieces = []
        for p, columns in enumerate(parts):
            if columns is not None:
                done = any(part == p for part, _ in self._own)
                pieces.append((dict(columns), AGGREGATED) if done else through(self.steps, dict(columns)))
        return self.finish(pieces, state)

    def _check_state(self, program: Program) -> None:
        """What `fold` without `combine` gives must be what it takes."""
        if not self.in_order:
            return
        module = program.module
        before = module.body.params[len(module.body.params) - len(jax.tree.leaves(self._initial)) :]
        after = module.body.results
        assert program.traced is not None
        same_tree = jax.tree.structure(self._initial) == program.traced.out_tree
        if not same_tree or [v.type.with_(visibility="secret") for v in after] != [v.type for v in before]:
            given = ", ".join(f"{d}{list(v.type.shape)}" for d, v in zip(module.output_dtypes, after))
            raise InputError(f"`fold`: the function must give a state of the types and shapes of `init`, got {given}.")
        for name, value in zip(module.outputs, after):
            if not value.type.is_secret:
                raise VisibilityError(
                    f"`fold`: `{name}` of the state does not depend on the state before: give `combine=`, or "
                    "compute it from the state."
                )


def structs(part: Part, count: int) -> dict[str, Any]:
    """Shapes and dtypes of so many rows of a part."""
    struct: Any = jax.ShapeDtypeStruct
    return {n: struct((count, *c.width), np.dtype(c.dtype)) for n, c in part.items()}


def combined(function: Callable[[Any, Any], Any], vm: VM, a: Any, b: Any) -> tuple[Program, list[SPUObject], Any]:
    """The program of `function(a, b)`, its inputs, and the structure of what it gives."""
    leaves = [*jax.tree.leaves(a), *jax.tree.leaves(b)]
    owners = [vm.visibility(x, "secret") for x in leaves]
    program = numbers_only(compile_function(function, [a, b], owners, vm.config))
    assert program.traced is not None
    return program, leaves, program.traced.out_tree


def fingerprint(programs: Sequence[Program], own: Sequence[OwnWork]) -> str:
    """Hexadecimal SHA-256 of all that is computed: the programs, and what owners do alone, in order."""
    return hashlib.sha256(" ".join([*(p.hash for p in programs), *(w.hash for w in own)]).encode()).hexdigest()
