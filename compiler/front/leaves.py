"""What the leaves of arguments may be: numbers and arrays of them, for JAX to trace. Names in, abstract arrays out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from spuvm.runtime.errors import EncodingError, InputError

NO_NUMBERS = {  # kinds of NumPy's dtypes, and what to do about them
    "M": "give dates as whole days or seconds, `x.astype('datetime64[D]').astype(np.int32)`",
    "m": "give durations as whole units, `x.astype('timedelta64[s]').astype(np.int32)`",
    "U": "give texts as integer codes, as `np.unique(x, return_inverse=True)` makes them",
    "S": "give texts as integer codes, as `np.unique(x, return_inverse=True)` makes them",
    "O": "give an array of one numeric dtype, `np.asarray(x, np.float32)`",
}


def _check_dtype(dtype: Any, name: str) -> None:
    """InputError for arrays of what is no number, or of numbers that JAX does not read."""
    if not isinstance(dtype, np.dtype):
        return
    advice = NO_NUMBERS.get(dtype.kind)
    if dtype.names is not None:
        advice = "give its fields as arrays of their own"
    elif dtype.byteorder == ">":
        advice = "give it in this machine's byte order, `x.astype(x.dtype.newbyteorder('='))`"
    elif dtype.kind in "fc" and dtype.itemsize > {"f": 8, "c": 16}[dtype.kind]:
        advice = "give it as float64"
    if advice is not None:
        raise InputError(f"`{name}` is an array of dtype {dtype}: {advice}.")


def _check_integer(x: int, name: str) -> None:
    bits = 64 if jax.dtypes.canonicalize_dtype(np.int64) == np.int64 else 32
    if not -(1 << bits - 1) <= x < 1 << bits - 1:
        more = " (`jax.enable_x64` gives 64)" if bits == 32 else ""
        raise EncodingError(
            f"`{name}` is {x}, which an integer of {bits} bits does not hold{more}: give a float, or less."
        )


def abstract(leaf: Any, name: str) -> Any:
    """What JAX can trace: its own arrays and numbers as they are, other array-likes by shape and dtype."""
    _check_dtype(getattr(leaf, "dtype", None), name)
    if isinstance(leaf, int):
        _check_integer(leaf, name)
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, bool, int, float, complex)):
        return leaf
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        struct: Any = jax.ShapeDtypeStruct
        try:
            return struct(leaf.shape, np.dtype(leaf.dtype))
        except TypeError:
            raise InputError(
                f"`{name}` of type `{type(leaf).__name__}` has a dtype that is not NumPy's, {leaf.dtype}: give an "
                "array of numbers, `x.to_numpy(np.float32)`."
            ) from None
    table = hasattr(leaf, "columns") and hasattr(leaf, "to_numpy")
    advice = (
        "pass its numbers, `x.to_numpy()`, or bring tables as frames, see `spu.data`."
        if table
        else "pass an array, or list its position in `static_argnums`."
    )
    raise InputError(f"`{name}` of type `{type(leaf).__name__}` is neither an array nor a number: {advice}")
