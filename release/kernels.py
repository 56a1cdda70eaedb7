"""Make the archive of usual kernels that wheels carry: their plans and bytecode, see compiler/cache/shipped.py.

    python release/kernels.py                 at its place in this tree, which is then what first calls find
    python release/kernels.py elsewhere.zip

Usual is what element-wise functions of numbers, integers and bools need, under the protocols below. Shapes do not
matter: the code of an element-wise kernel is that of one unit of elements.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax, nn

import spuvm as spu
from spuvm.compiler.cache import disk, shipped
from spuvm.compiler.compile import Program
from spuvm.compiler.project.executables import StageLoader
from spuvm.runtime.machine.program import tasks_of
from spuvm.runtime.protocols.registered import rank_names

PROTOCOLS: dict[str, dict[str, Any]] = {"aby3": {}, "semi2k": {"world_size": 2}}
FLOATS = np.array([0.5, 1.25, 2.0], np.float32), np.array([1.5, 0.25, 3.0], np.float32)
INTEGERS = np.array([5, -3, 7], np.int32), np.array([2, 4, -1], np.int32)
BOOLS = np.array([True, False, True]), np.array([False, False, True])
ONE = (nn.relu, nn.sigmoid, jnp.tanh, jnp.exp, jnp.log, lambda x: 1 / x, jnp.sqrt, lax.rsqrt, jnp.sin, lax.erf)
TWO = (jnp.add, jnp.multiply, jnp.less, jnp.equal, jnp.maximum, jnp.divide)
PROGRAMS: list[tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = [
    *((function, FLOATS[:1]) for function in (*ONE, jnp.var, jnp.sort)),
    *((function, FLOATS) for function in TWO),
    (lambda x, y: (jnp.where(x < y, x, y), abs(x), jnp.sign(y), jnp.floor(x), jnp.round(y), jnp.cos(x)), FLOATS),
    (lambda x, y: (jnp.mean(x), jnp.sum(x * y), jnp.max(x), jnp.argmax(y), x > 0.5, x**3, x - y / 3), FLOATS),
    (lambda x, y: (nn.softmax(x), nn.softplus(y), nn.gelu(x), jnp.log1p(x), jnp.power(x, y)), FLOATS),
    (lambda x, y: (x + y, x * y, x < y, x == y, jnp.maximum(x, y), jnp.where(x > 0, x, y), x // 3, x % 3), INTEGERS),
    (lambda x, y: (x & y, x | y, x ^ y, ~x, jnp.sum(x), jnp.any(y), x.astype(jnp.float32)), BOOLS),
]


def entries(program: Program) -> Iterator[str]:
    """Names of all that element-wise kernels of the program need, which are on disk then."""
    for rank in (None, *range(len(rank_names(program.config)))):
        for task in tasks_of(program.party(rank).block):
            for stage in task.stages.values():
                loader = stage.load
                if isinstance(loader, StageLoader) and loader.unit:
                    loader.engine()
                    yield f"{loader.unit}.code"
                    yield f"{loader.unit.partition('.')[0]}.plan"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else shipped.FILE
    file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SPUVM_CACHE_DIR": folder, "SPUVM_CACHE": "1", "SPUVM_ENGINE": "native"}
        found: dict[str, bytes] = {}
        for protocol, options in PROTOCOLS.items():
            for function, arguments in PROGRAMS:
                program = spu.jit(function, protocol=protocol, **options).compile(*arguments)
                for name in set(entries(program)):
                    content = disk.read(name)
                    assert content is not None, name
                    found[name] = content
        shipped.write(file, found)
    print(f"{file}: {len(found)} entries, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
