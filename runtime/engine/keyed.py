"""Comparisons by keys as primitives of a choreography: who knows r makes keys, who has one reads it.

What they compute is in ring/keyed.py; the vector engine has them natively, XLA runs that definition.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from spuvm.runtime.ring import keyed, native
from spuvm.runtime.ring.keyed import COMPARISONS, Comparison

Array = jax.Array


def _native() -> Any:
    """The library, if it has these functions."""
    lib = native.library()
    if lib is None or not hasattr(lib, "spuvm_keyed"):
        return None
    if lib.spuvm_keyed.argtypes is None:
        lib.spuvm_keyed.argtypes = (ctypes.c_int, *(ctypes.c_void_p,) * 4, ctypes.c_int64)
        lib.spuvm_keyed.restype = None
    return lib


def _at_once(out: Any, which: int, *arrays: Any) -> Any:
    """The operation number `which` (native/keyed.h) on arrays that are there."""
    kept = [np.ascontiguousarray(x, np.uint64) for x in arrays]
    native_ = _native()
    native_.spuvm_keyed(which, out.ctypes.data, *(x.ctypes.data for x in kept), out.size)
    return out


def _keys(r: Any, first: Any, second: Any, *, relation: str, bits: int) -> Any:
    return keyed.make(r, (first, second), Comparison(relation, bits))


def _read(c: Any, key: Any, root: Any, *, relation: str, bits: int, party: int) -> Any:
    return keyed.read(c, key, root, Comparison(relation, bits), party)


def _keys_type(r: Any, first: Any, second: Any, *, relation: str, bits: int) -> Any:
    assert first.shape == second.shape == (2 * r.shape[0],)
    return jax.core.ShapedArray((r.shape[0] * Comparison(relation, bits).words,), np.dtype(np.uint64))


def _read_type(c: Any, key: Any, root: Any, *, relation: str, bits: int, party: int) -> Any:
    assert key.shape == (c.shape[0] * Comparison(relation, bits).words,) and root.shape == (2 * c.shape[0],)
    return jax.core.ShapedArray(c.shape, np.dtype(np.uint8))


def _primitive(name: str, function: Any, type_: Any) -> Primitive:
    """Where no engine's stage is: natively on arrays, if the library is there, and else by XLA."""

    def on_arrays(*x: Any, party: int = -1, **params: Any) -> Any:
        how = params if party < 0 else {**params, "party": party}
        if _native() is None:
            return jax.jit(partial(function, **how))(*x)
        aval = type_(*x, **how)
        which = 3 * COMPARISONS.index(Comparison(**params)) + 1 + party
        return jnp.asarray(_at_once(np.empty(aval.shape, aval.dtype), which, *x))

    made = Primitive(name)
    made.def_abstract_eval(type_)
    made.def_impl(on_arrays)
    mlir.register_lowering(made, mlir.lower_fun(function, multiple_results=False))
    return made


keys_p = _primitive("comparison_keys", _keys, _keys_type)
read_p = _primitive("read_comparison", _read, _read_type)


def make_keys(r: Array, roots: tuple[Array, Array], of: Comparison) -> Array:
    """uint64[n], and for each party uint64[2 n] -> what both keys hold beside the party's root, uint64[n words]."""
    out: Array = keys_p.bind(r, *roots, relation=of.relation, bits=of.bits)
    return out


def read_key(c: Array, key: Array, root: Array, of: Comparison, party: int) -> Array:
    """Public uint64[n] -> uint8[n], party 0's or 1's share of whether c is in that relation to r."""
    out: Array = read_p.bind(c, key, root, relation=of.relation, bits=of.bits, party=party)
    return out
