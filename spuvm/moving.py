"""What a networked run says openly about a party's objects: their form to all, their values to who is to have them.

The form of a value is JSON: containers (with the keys of dictionaries), dtypes and shapes. A value is its form, and
the bytes of its arrays. What a peer says is checked before it is used: it may be anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from spuvm.runtime.errors import InputError, PeerMismatchError

LENGTH = 8  # bytes that count those of the form
SCALARS: dict[str, Any] = {"bool": False, "int": 0, "float": 0.0}
NUMBERS = "biufc"  # dtype kinds that JAX and the ring know
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, IndexError)


def form(x: Any) -> Any:
    """A pytree of arrays without their values, as what JSON can write.

    Raises InputError for what other parties cannot have: keys that are no texts, texts, dates, objects.
    """
    if isinstance(x, Mapping):
        if not all(isinstance(k, str) for k in x):
            raise InputError("a dictionary that goes to an SPU or another party must have texts as keys.")
        return {"dict": {k: form(x[k]) for k in sorted(x)}}
    if isinstance(x, list | tuple):
        return {"list" if type(x) is list else "tuple": [form(v) for v in x]}
    if x is None:
        return {"none": 0}
    if isinstance(x, bool | int | float):
        name = next(name for name, v in SCALARS.items() if isinstance(x, type(v)))
        if np.asarray(x).dtype != np.asarray(SCALARS[name]).dtype:
            raise InputError("a whole number that goes to an SPU or another party must fit into 64 bits.")
        return {"scalar": name}
    dtype = np.asarray(x).dtype
    if dtype.kind not in NUMBERS and dtype.name not in ("bfloat16", "float16"):
        raise InputError(f"a `{type(x).__name__}` cannot go to an SPU or another party: return arrays or numbers.")
    return {"array": [list(np.shape(x)), dtype.name]}


def plain(x: Any) -> Any:
    """The pytree with containers as its form names them, which is what the other parties have."""
    if isinstance(x, Mapping):
        return {k: plain(x[k]) for k in sorted(x)}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x] if type(x) is list else tuple(plain(v) for v in x)
    return x


def shapes(described: Any) -> Any:
    """The pytree of a form: `jax.ShapeDtypeStruct`s in place of arrays, zeros of scalars."""
    ((kind, body),) = described.items()
    match kind:
        case "dict":
            return {str(k): shapes(v) for k, v in body.items()}
        case "list":
            return [shapes(v) for v in body]
        case "tuple":
            return tuple(shapes(v) for v in body)
        case "scalar":
            return SCALARS[body]
        case "array":
            dims, dtype = body
            if not all(type(d) is int and 0 <= d < 1 << 48 for d in dims):
                raise ValueError(dims)
            return jax.ShapeDtypeStruct(tuple(dims), jax.numpy.dtype(dtype))
        case "none":
            return None
    raise ValueError(kind)


def listed(text: bytes, party: str) -> list[Any]:
    """The forms that a party says; PeerMismatchError if they are none."""
    try:
        found = json.loads(text)
    except MALFORMED:
        found = None
    if not isinstance(found, list):
        raise PeerMismatchError(f"{party} describes its objects in a way that this version does not know.")
    return found


def heard(described: Any, party: str) -> Any:
    """The pytree that a party's form means; PeerMismatchError if it is none."""
    try:
        return shapes(described)
    except MALFORMED:
        raise PeerMismatchError(f"{party} describes an object in a way that this version does not know.") from None


def packed(x: Any) -> bytes:
    """A value with its form; `unpacked` reads it."""
    described = json.dumps(form(x)).encode()
    arrays = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(plain(x))]
    return b"".join([len(described).to_bytes(LENGTH, "little"), described, *(a.tobytes() for a in arrays)])


def unpacked(body: bytes, party: str) -> Any:
    """The value that `party` packed, of NumPy arrays and numbers; PeerMismatchError if it is not one."""
    end = LENGTH + int.from_bytes(body[:LENGTH], "little")
    leaves, tree = jax.tree.flatten(heard([*listed(b"[" + body[LENGTH:end] + b"]", party), None][0], party))
    values = []
    try:
        for leaf in leaves:
            scalar = isinstance(leaf, bool | int | float)
            dtype = np.asarray(leaf).dtype if scalar else leaf.dtype
            count = 1 if scalar else math.prod(leaf.shape)
            array = np.frombuffer(body, dtype, count, end)
            end += array.nbytes
            values.append(type(leaf)(array[0]) if scalar else array.reshape(leaf.shape).copy()[()])
        if end != len(body):
            raise ValueError(end)
    except MALFORMED:
        raise PeerMismatchError(f"{party} sends an object that has not the size of its form.") from None
    return jax.tree.unflatten(tree, values)
