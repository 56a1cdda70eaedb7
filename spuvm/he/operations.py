"""What is computed on ciphertexts, semi-honest evaluators: sums, products with plaintexts, matrix products, buckets.

Every operation is done at one evaluator; what lies elsewhere is encrypted and moved there first. Shapes, types, bounds
and noise are public, and decided alike by all parties' scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np

from spuvm.he import layout
from spuvm.he.object import HEUObject
from spuvm.runtime.errors import DataError, InputError


def combine(dtype: Any, other: Any) -> np.dtype[Any]:
    """Of a result: whole numbers are int64, all else as NumPy does."""
    out = np.result_type(dtype, other)
    return np.dtype(np.int64) if out.kind in "biu" else out


def broadcast(x: HEUObject, shape: tuple[int, ...]) -> HEUObject:
    if x.shape == shape:
        return x
    if not x.encrypted:
        return x.with_(shape=shape, value=None if x.value is None else np.broadcast_to(x.value, shape))
    assert x.places is not None
    m = x.places.shape[-1]
    padded = x.places.reshape((1,) * (len(shape) - x.ndim) + x.places.shape)
    return x.heu.settled(x.with_(shape=shape, places=np.broadcast_to(padded, (*shape, m))))


def with_frac(x: HEUObject, frac: int) -> HEUObject:
    """The same number with more fraction bits."""
    return x if x.frac == frac else times_number(x, 1 << (frac - x.frac)).with_(frac=frac, dtype=x.dtype)


def times_number(x: HEUObject, factor: int) -> HEUObject:
    """Whole numbers times a public one."""
    bound = x.bound * max(abs(factor), 1)
    if not x.encrypted:
        return x.with_(bound=bound, value=None if x.value is None else exact(x.value, bound) * factor)
    noise = x.noise + log2(max(abs(factor), 1))
    scheme, key = x.heu.scheme, x.heu.public
    value = x.heu.at(x.party, lambda: scheme.times_number(x.value, factor, key))
    return x.heu.checked(x.with_(bound=bound, noise=noise, value=value, computed=True))


def exact(value: Any, bound: int) -> Any:
    """Numbers whose result may reach `bound`, as Python's if int64 does not hold that."""
    return np.asarray(value) if bound < 1 << 63 else np.asarray(value).astype(object)


def limit(bound: int, largest: int, x: HEUObject, what: str) -> None:
    if bound > largest:
        raise InputError(
            f"{x!r}: a result may reach 2^{bound.bit_length()}, and {what} holds numbers below "
            f"2^{largest.bit_length()}: say "
            " how large values are (`x.to(heu, bits=...)`), or use fewer fraction bits."
        )


def add(x: HEUObject, y: HEUObject) -> HEUObject:
    frac = max(x.frac, y.frac)
    x, y = with_frac(x, frac), with_frac(y, frac)
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise InputError(f"{x!r} and {y!r} do not have shapes that can be added.") from None
    x, y = x.heu.together(broadcast(x, shape), broadcast(y, shape))
    heu, bound, dtype = x.heu, x.bound + y.bound, combine(x.dtype, y.dtype)
    if not x.encrypted and not y.encrypted:
        value = heu.at(x.party, lambda: exact(x.value, bound) + y.value)
        return x.with_(value=value, bound=bound, dtype=dtype)
    if not x.encrypted:
        x, y = y, x
    scheme, key = heu.scheme, heu.public
    if y.encrypted:
        x, y = heu.aligned(x, y)
        value = heu.at(x.party, lambda: scheme.add(x.value, y.value, key))
        noise = _sum_noise(x.noise, y.noise)
    else:
        value = heu.at(x.party, lambda: scheme.add_plain(x.value, heu.spread(x, y.value, once=True), key))
        noise = x.noise + 1
    ring = x.ring or y.ring
    return heu.checked(x.with_(value=value, bound=bound, noise=noise, dtype=dtype, ring=ring, computed=True))


def subtract(x: HEUObject, y: HEUObject) -> HEUObject:
    return add(x, times_number(y, -1))


def multiply(x: HEUObject, y: HEUObject) -> HEUObject:
    x, y = _factors(x, y)
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise InputError(f"{x!r} and {y!r} do not have shapes that can be multiplied.") from None
    heu, bound, dtype, frac = x.heu, x.bound * y.bound, combine(x.dtype, y.dtype), x.frac + y.frac
    if not x.encrypted:
        value = heu.at(x.party, lambda: np.broadcast_to(exact(x.value, bound), shape) * y.value)
        return x.with_(shape=shape, value=value, bound=bound, dtype=dtype, frac=frac)
    if y.party is None and not y.shape:
        return times_number(broadcast(x, shape), int(y.value)).with_(bound=bound, dtype=dtype, frac=frac)
    x, y = broadcast(x, shape), broadcast(y, shape)
    scheme, key = heu.scheme, heu.public
    value = heu.at(x.party, lambda: scheme.times_plain(x.value, heu.spread(x, y.value), key))
    noise = x.noise + scheme.times_plain_noise
    out = x.with_(value=value, bound=bound, noise=noise, dtype=dtype, frac=frac, computed=True)
    return heu.checked(out)


def _factors(x: HEUObject, y: HEUObject) -> tuple[HEUObject, HEUObject]:
    """At one evaluator, the ciphertext first; InputError if both are encrypted."""
    x, y = x.heu.together(x, y)
    if x.encrypted and y.encrypted:
        raise InputError(
            f"{x!r} times {y!r}: of two factors one may be encrypted. Keep the evaluator's own a plaintext (no "
            "`.encrypt()`), or multiply secrets on an SPU."
        )
    return (y, x) if y.encrypted else (x, y)


def matmul(x: HEUObject, y: HEUObject) -> HEUObject:
    """x @ y of vectors and matrices, one of them a plaintext at the evaluator."""
    if x.ndim not in (1, 2) or y.ndim not in (1, 2) or x.shape[-1] != y.shape[0]:
        raise InputError(f"{x!r} @ {y!r}: vectors and matrices, of which the inner dimensions are equal.")
    left = x.shape if x.ndim == 2 else (1, *x.shape)
    right = y.shape if y.ndim == 2 else (*y.shape, 1)
    shape = (*x.shape[:-1], *y.shape[1:])
    x, y = x.heu.together(reshape(x, left), reshape(y, right))
    _factors(x, y)
    heu, bound, dtype = x.heu, x.bound * y.bound * max(left[1], 1), combine(x.dtype, y.dtype)
    if not x.encrypted and not y.encrypted:
        value = heu.at(x.party, lambda: np.reshape(exact(x.value, bound) @ y.value, shape))
        return x.with_(shape=shape, value=value, bound=bound, dtype=dtype, frac=x.frac + y.frac)
    if 0 in shape:
        made = (y if y.encrypted else x).with_(shape=shape, places=np.zeros((*shape, 1), np.int64), computed=True)
    elif y.encrypted:
        labels = np.broadcast_to(np.arange(right[1]), right)
        made = _inner(y, labels, right[1], left[0], lambda i: np.broadcast_to(x.value[i][:, None], right))
    else:
        labels = np.broadcast_to(np.arange(left[0])[:, None], left)
        turned = _inner(x, labels, left[0], right[1], lambda j: np.broadcast_to(y.value[:, j], left))
        made = _transposed(turned)
    return reshape(heu.checked(made.with_(bound=bound, dtype=dtype, frac=x.frac + y.frac)), shape)


def _inner(x: HEUObject, labels: Any, count: int, outs: int, weights: Callable[[int], Any]) -> HEUObject:
    """[outs, count]: sums of x times weights(i), int64 of x's shape, over the elements of each label below `count`."""
    heu, slots = x.heu, x.heu.scheme.slots
    assert x.places is not None
    groups = layout.grouped(x.places, labels, count)
    small = layout.folded(groups, slots)
    cells = 1 if small is not None else x.cells
    places = groups if small is None else small
    scheme, key = heu.scheme, heu.public

    def compute() -> Any:
        rows = (scheme.products(x.value, heu.spread(x, weights(i)), small is not None, key) for i in range(outs))
        return scheme.joined(list(rows), key)

    at = np.arange(outs)[:, None, None] * (cells * slots) + places
    noise = x.noise + scheme.times_plain_noise + log2(x.cells if small is not None else 1)
    out = x.with_(
        shape=(outs, count), places=at, cells=outs * cells, noise=noise, value=heu.at(x.party, compute), computed=True
    )
    return heu.settled(out)


def total(x: HEUObject, axis: Any = None) -> HEUObject:
    """The sum over some axes. Local, and free but for adding cells up."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    try:
        axes = tuple(sorted({range(x.ndim)[a] for a in axes}))
    except (IndexError, TypeError):
        raise InputError(f"`axis` {axis} is none of {x!r}.") from None
    rest = [a for a in range(x.ndim) if a not in axes]
    shape, count = tuple(x.shape[a] for a in rest), int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    bound, dtype = x.bound * max(count, 1), combine(x.dtype, x.dtype)
    if not x.encrypted:
        summed = x.heu.at(x.party, lambda: np.asarray(exact(x.value, bound).sum(axes)))
        return x.with_(shape=shape, value=summed, bound=bound, dtype=dtype)
    assert x.places is not None
    heu, scheme, key = x.heu, x.heu.scheme, x.heu.public
    slots = (int(np.prod(shape, dtype=np.int64)), count * x.places.shape[-1])
    groups = x.places.transpose(*rest, *axes, x.ndim).reshape(slots)
    out = x.with_(bound=bound, dtype=dtype, computed=True, shape=shape)
    small = layout.folded(groups, scheme.slots) if x.cells > 1 else None
    if small is not None:
        value = heu.at(x.party, lambda: scheme.fold(x.value, key))
        out = out.with_(value=value, cells=1, noise=x.noise + log2(x.cells))
        groups = small
    return heu.checked(heu.settled(out.with_(places=groups.reshape(*shape, groups.shape[-1]))))


def bucket_sum(x: HEUObject, indices: HEUObject, buckets: int) -> HEUObject:
    """Sums of x's rows by bucket; `indices` [rows] or [rows, features] are an evaluator's."""
    if not isinstance(buckets, int) or buckets < 1:
        raise InputError(f"`buckets` must be a number from 1 on, got {buckets!r}.")
    if not x.ndim or indices.ndim not in (1, 2) or indices.shape[0] != x.shape[0] or indices.dtype.kind not in "iu":
        raise InputError(f"`indices` {indices!r} must be whole numbers, one (or a row of them) for each row of {x!r}.")
    if indices.encrypted:
        raise InputError(f"`indices` {indices!r} must be a plaintext at an evaluator: leave out `.encrypt()`.")
    x, indices = x.heu.together(x.encrypt(), indices)
    if indices.encrypted:
        raise InputError("`indices` must be the evaluator's who computes: values encrypted by others cannot choose.")
    heu, shape = x.heu, x.shape[1:]
    features = indices.shape[1] if indices.ndim == 2 else 1
    flat = reshape(x, (x.shape[0], int(np.prod(shape, dtype=np.int64))))
    own = heu.at(x.party, lambda: np.asarray(indices.value).reshape(x.shape[0], features))
    if own is not None and own.size and (own.min() < 0 or own.max() >= buckets):
        heu.fail(DataError(f"`indices` holds numbers outside of 0 to {buckets - 1}."))
    labels = np.broadcast_to(np.arange(flat.shape[1]), flat.shape)

    def weights(i: int) -> Any:
        assert own is not None
        inside = own[:, i // buckets] == i % buckets
        return np.broadcast_to(inside.astype(np.int64)[:, None], flat.shape)

    out = _inner(flat, labels, flat.shape[1], features * buckets, weights)
    out = out.with_(bound=x.bound * max(x.shape[0], 1), dtype=combine(x.dtype, x.dtype))
    ahead = (features, buckets) if indices.ndim == 2 else (buckets,)
    return reshape(heu.checked(out), (*ahead, *shape))


# Moving elements ------------------------------------------------------------------------------------------


def reshape(x: HEUObject, shape: Any) -> HEUObject:
    try:
        new = np.empty(x.shape, bool).reshape(shape).shape
    except (ValueError, TypeError):
        raise InputError(f"{x!r} cannot be reshaped to {shape}.") from None
    if not x.encrypted:
        return x.with_(shape=new, value=None if x.value is None else np.reshape(x.value, new))
    assert x.places is not None
    return x.with_(shape=new, places=x.places.reshape(*new, x.places.shape[-1]))


def _transposed(x: HEUObject) -> HEUObject:
    if not x.encrypted:
        return x.with_(shape=x.shape[::-1], value=None if x.value is None else np.transpose(x.value))
    assert x.places is not None
    return x.with_(shape=x.shape[::-1], places=x.places.transpose(*reversed(range(x.ndim)), x.ndim))


def index(x: HEUObject, at: Any) -> HEUObject:
    """x[at] with a public index."""
    at = tuple(np.asarray(p) if isinstance(p, list) else p for p in at) if isinstance(at, tuple) else at
    if isinstance(at, list):
        at = np.asarray(at)
    numbers = np.arange(x.size).reshape(x.shape)
    try:
        chosen = np.asarray(numbers[at])
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"{x!r} has no such index: {error}.") from None
    if not x.encrypted:
        return x.with_(shape=chosen.shape, value=None if x.value is None else np.asarray(x.value)[at])
    assert x.places is not None
    places = x.places.reshape(x.size, x.places.shape[-1])[chosen]
    return x.heu.settled(x.with_(shape=chosen.shape, places=places))


def _sum_noise(a: float, b: float) -> float:
    return max(a, b) + log2(1 + 2 ** -abs(a - b))


BINARY: dict[str, Callable[..., HEUObject]] = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "matmul": matmul,
    "bucket_sum": bucket_sum,
}
UNARY: dict[str, Callable[..., HEUObject]] = {
    "sum": total,
    "reshape": reshape,
    "transpose": _transposed,
    "index": index,
}
