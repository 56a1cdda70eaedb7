"""Running bytecode natively: programs as the engine's words, loaded once, run from any thread.

The shared library is that of `ring.native`; without it there is no engine, and stages run by XLA.
"""

from __future__ import annotations

import ctypes
import math
import time
import weakref
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from spuvm.runtime import cores
from spuvm.runtime.engine.code import CALLS, DRAW, MODES, NONE, SOURCES, UNIT, VIEW, Call, Code, Instruction, Loop, View
from spuvm.runtime.engine.random import Stream, aligned_empty
from spuvm.runtime.ring import native

OPERANDS = 3
WIDE = (1 << 13) // UNIT  # units of a run whose time counts
EARNED = 0.1  # processor seconds of such runs, of the calling thread, after which a stage is compiled


@cache
def library() -> ctypes.CDLL | None:
    """The engine's library with its signatures; None where it is not built, or is of older source."""
    lib = native.library()
    if lib is None or not hasattr(lib, "spuvm_engine_fuse"):
        return None
    address, i64 = ctypes.c_void_p, ctypes.c_int64
    lib.spuvm_engine_operations.restype = ctypes.c_char_p
    lib.spuvm_engine_new.argtypes = (address, ctypes.c_char_p, i64)
    lib.spuvm_engine_new.restype = address
    lib.spuvm_engine_fuse.argtypes = (address, i64, address, i64, i64)
    lib.spuvm_engine_fuse.restype = None
    lib.spuvm_engine_free.argtypes = (address,)
    lib.spuvm_engine_free.restype = None
    lib.spuvm_engine_run.argtypes = (address, i64, address, address, ctypes.c_int)
    lib.spuvm_engine_piece_new.argtypes = (address,)
    lib.spuvm_engine_piece_new.restype = address
    lib.spuvm_engine_piece_free.argtypes = (address,)
    lib.spuvm_engine_piece_free.restype = None
    lib.spuvm_engine_piece_run.argtypes = (address, i64, address, address, ctypes.c_int)
    return lib


@cache
def operations() -> dict[str, int]:
    """The numbers of the element-wise operations."""
    lib = library()
    names = lib.spuvm_engine_operations().decode().split() if lib is not None else []
    return {name: i for i, name in enumerate(names)}


@cache
def threads() -> int:
    """Threads that a wide loop may use: the processors, or this process's part of them."""
    return cores.allowed()


def encoded(code: Code) -> np.ndarray:
    """The words that native/engine.cc reads."""
    words: list[int] = [len(code.inputs), len(code.outputs), code.temporaries, len(code.arrays)]
    for array in code.arrays:
        words += [SOURCES.index(array.source), array.where, array.bytes]
    words.append(len(code.segments))
    for segment in code.segments:
        words += _call(segment) if isinstance(segment, Call) else _loop(segment)
    return np.array(words, np.int64)


def _loop(loop: Loop) -> list[int]:
    words = [0, loop.units, loop.block, loop.registers, len(loop.code)]
    for instruction in loop.code:
        words += _instruction(instruction)
    words.append(len(loop.folds))
    for fold in loop.folds:
        words += [operations()[fold.operation], fold.width, fold.array, fold.to, fold.offset]
    return words


def _instruction(i: Instruction) -> list[int]:
    number = {VIEW: -1, DRAW: -2}.get(i.operation)
    words = [operations()[i.operation] if number is None else number, i.elements, i.width]
    for o in (i.result, *i.operands, *(NONE,) * (OPERANDS - len(i.operands))):
        words += (MODES.index(o.mode), o.where, o.offset, o.step)
    return words if i.view is None else words + _view(i.view)


def _call(call: Call) -> list[int]:
    words = [CALLS[call.kind], len(call.views)]
    for view in call.views:
        words += _view(view)
    return [*words, len(call.parameters), *call.parameters]


def _view(view: View) -> list[int]:
    pairs = zip(view.sizes, view.strides)
    return [view.array, view.offset, len(view.sizes), *(n for pair in pairs for n in pair)]


class Fused(NamedTuple):
    """Machine code of a loop, as native/engine.h says: its segment, address, units at a time, scratch bytes of each."""

    segment: int
    function: int
    block: int
    scratch: int


class Interpreted:
    """A stage's code, loaded. Calls release the GIL."""

    def __init__(self, code: Code, fused: Sequence[Fused] = (), keep: Any = None) -> None:
        """`fused` loops run as machine code, which stays in memory as long as `keep` does."""
        lib = library()
        assert lib is not None, "there is no engine"
        self.code, self.fused = code, bool(fused)
        words = encoded(code)
        self._run = lib.spuvm_engine_run
        self.seconds = 0.0  # of the processor, spent on wide arrays: what earns a stage a compiled form
        self.handle: int = lib.spuvm_engine_new(words.ctypes.data, code.constants, len(code.constants))
        for loop in fused:
            lib.spuvm_engine_fuse(self.handle, *loop)
        weakref.finalize(self, _freed, lib, self.handle, keep)

    @cached_property
    def _outputs(self) -> list[tuple[int, np.dtype[Any], tuple[int, ...]]]:
        ports = [(np.dtype(p.dtype), p.shape) for p in self.code.outputs]
        return [(dtype.itemsize * int(np.prod(shape)), dtype, shape) for dtype, shape in ports]

    @cached_property
    def _expected(self) -> list[tuple[np.dtype[Any], int, bool]]:
        """Of each input its type, its bytes of one unit or all, and whether they scale."""
        ports = [(np.dtype(p.dtype), p.shape) for p in self.code.inputs]
        return [(d, d.itemsize * math.prod(shape), self.code.scales and shape != ()) for d, shape in ports]

    def _check(self, inputs: Sequence[np.ndarray], factor: int) -> None:
        """The engine reads what it is given: nothing of another type or size may come to it."""
        for x, (dtype, nbytes, scales) in zip(inputs, self._expected, strict=True):
            if x.dtype != dtype or x.nbytes != nbytes * (factor if scales else 1):
                raise TypeError(f"a stage takes {dtype} of {nbytes} bytes a unit, got {x.dtype} of {x.nbytes} bytes")

    def __call__(self, inputs: Sequence[Any], draws: np.ndarray, length: int = UNIT) -> list[np.ndarray]:
        """The outputs. `draws`: three words a stream, see `place`. `length`: the elements of what scales."""
        factor = length // UNIT if self.code.scales else 1
        outputs = [aligned_empty(nbytes * factor) for nbytes, _, _ in self._outputs]
        keep = [x if isinstance(x, np.ndarray) and x.flags.c_contiguous else _contiguous(x) for x in inputs]
        self._check(keep, factor)
        addresses = [x.__array_interface__["data"][0] for x in (*keep, *outputs)]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        began = time.thread_time() if factor >= WIDE else 0.0
        if self._run(self.handle, factor, pointers, draws.ctypes.data, threads()):
            raise MemoryError("a stage's temporaries do not fit into memory")
        if factor >= WIDE:
            self.seconds += time.thread_time() - began
        shaped = []
        for raw, (_, dtype, shape) in zip(outputs, self._outputs):
            out = raw.view(dtype)
            shaped.append(out if self.code.scales else out.reshape(shape))
        return shaped


def _freed(lib: Any, handle: int, keep: Any) -> None:
    lib.spuvm_engine_free(handle)


def _contiguous(x: Any) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(np.shape(x))


def place(streams: Iterable[tuple[Stream | np.ndarray, int]]) -> np.ndarray:
    """Where each stream of a run begins: a keystream and its block, or an array of its bytes. Keep them alive."""
    words = []
    for source, block in streams:
        if isinstance(source, np.ndarray):
            words += [0, 0, source.__array_interface__["data"][0]]
        else:
            words += [source.schedule_address, block >> 64, block & (2**64 - 1)]
    return np.array(words, np.uint64)
