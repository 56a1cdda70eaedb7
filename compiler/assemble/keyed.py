"""Comparisons by keys as operations of the engine: of each number several words stand one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spuvm.compiler.assemble.builder import Builder
from spuvm.compiler.assemble.elementwise import Params, Rule
from spuvm.compiler.assemble.values import Value, size

READERS = ("first", "second")


def keys(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    return [_emitted(b, x, outs[0], params, "keys")]


def read(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    return [_emitted(b, x, outs[0], params, READERS[params["party"]])]


def _emitted(b: Builder, x: Sequence[Value], out: Any, params: Params, what: str) -> Value:
    name = f"{params['relation']}_{params['bits']}_{what}.u64"
    return b.emit_several(name, out.dtype, tuple(out.shape), x, size(x[0].shape))


RULES: dict[str, Rule] = {"comparison_keys": keys, "read_comparison": read}
