"""After the last block: the state that all blocks together left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from spuvm.compiler.compile import compile_function
from spuvm.objects import SPUObject, components_for
from spuvm.streaming.computation import combined
from spuvm.streaming.exchange import agree
from spuvm.streaming.job import run_whole
from spuvm.streaming.passes import Pass, unflattened


def state(done: Pass) -> Any:
    """Of all rows, as secret values in the structure of the finish."""
    if not done.job.blocks:
        return _of_nothing(done)
    return _last(done) if done.job.in_order else _combine(done, done.computation.finish.combine)


def _states(done: Pass) -> Iterator[list[SPUObject]]:
    records = done.folder.finished()
    for block in range(done.job.blocks):
        yield done.runner.objects(block, done.folder.load(block, records[block]))


def _of_nothing(done: Pass) -> Any:
    """Of no rows: the state before the first, which is public."""
    program = compile_function(done.computation.of_nothing, [], [], done.vm.config)
    return unflattened(program, done.vm.run(program, []))


def _last(done: Pass) -> Any:
    last = done.job.blocks - 1
    stored = done.folder.load(last, done.folder.finished()[last])
    return done.tree(done.job.counts(last))(done.runner.objects(last, stored))


def _combine(done: Pass, function: Any) -> Any:
    """All blocks' states combined in the order of rows."""
    vm, tree = done.vm, done.tree(done.job.counts(0))
    state: Any = None
    cache: dict[Any, Any] = {}
    for number, leaves in enumerate(_states(done)):
        if state is None:
            state = tree(leaves)
            continue
        both = [*jax.tree.leaves(state), *leaves]
        key = tuple((x.type, str(x.dtype)) for x in both)
        if key not in cache:
            program, _, out_tree = combined(function, vm, state, tree(leaves))
            agree(vm, "combination", program.hash.encode())
            cache[key] = program, out_tree
        program, out_tree = cache[key]
        module = program.module
        parts = [c for x, v in zip(both, module.body.params) for c in components_for(x, v.type, "state", vm)]
        results = run_whole(vm, program, f"combination {number}", parts)
        state = jax.tree.unflatten(out_tree, vm.objects(program, results))
    return state
