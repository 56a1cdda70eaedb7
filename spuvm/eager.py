"""Operators, methods and indices of objects: each call is a small program of its own, compiled once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.calls import Jitted
from spuvm.objects import SPUObject

if TYPE_CHECKING:
    from spuvm.vm import VM

INDICES = (np.ndarray, jax.Array, SPUObject)
ARGUMENT = "argument"  # stands for an array among what is part of the program


@functools.cache
def _operator(name: str, vm: VM) -> Jitted:
    return Jitted(getattr(jnp, name), vm, default="public")


@functools.lru_cache(maxsize=None, typed=True)
def _power(exponent: float, vm: VM) -> Jitted:
    return Jitted(lambda x: x**exponent, vm)


def operator(name: str, vm: VM, operands: tuple[Any, ...]) -> Any:
    """A `jax.numpy` function applied to objects; plain operands are public.

    A Python number as exponent is part of the program: an integer power is right for negative numbers too.
    """
    if name == "power" and isinstance(operands[1], int | float):
        return _power(operands[1], vm)(operands[0])
    return _operator(name, vm)(*operands)


def indexed(vm: VM, x: SPUObject, index: Any) -> Any:
    """x[index] with a public index: its arrays are arguments, the rest is part of the program."""
    index = index if isinstance(index, tuple) else (index,)
    _check_bounds(x, index)
    parts = [p for part in index for p in _positions(part)]
    arrays = [p for p in parts if isinstance(p, INDICES)]
    fixed = tuple(ARGUMENT if isinstance(p, INDICES) else p for p in parts)
    return _indexer(vm, repr(fixed), fixed)(x, *arrays)


def _check_bounds(x: SPUObject, index: tuple[Any, ...]) -> None:
    """IndexError for whole numbers that no element has, as NumPy: JAX would take the nearest element."""
    if any(part is None or isinstance(part, (*INDICES, list, bool)) for part in index):
        return  # positions of axes follow from values there
    ellipsis = index.index(...) if ... in index else len(index)
    axes = [*range(ellipsis), ..., *range(x.ndim - (len(index) - ellipsis - 1), x.ndim)]
    for axis, part in zip(axes, index):
        if isinstance(part, int | np.integer) and not -x.shape[axis] <= part < x.shape[axis]:
            raise IndexError(f"index {part} is out of bounds for axis {axis} of size {x.shape[axis]}.")


_INDEXERS: dict[tuple[VM, str], Jitted] = {}
_METHODS: dict[tuple[Any, ...], Jitted] = {}


def _positions(part: Any) -> tuple[Any, ...]:
    """A list as an array, and a mask as the positions where it is true: their number must be known."""
    if isinstance(part, list):
        part = np.asarray(part)
    return np.nonzero(part) if isinstance(part, np.ndarray | jax.Array) and part.dtype == bool else (part,)


def _indexer(vm: VM, key: str, fixed: tuple[Any, ...]) -> Jitted:
    def item(x: Any, *arrays: Any) -> Any:
        rest = iter(arrays)
        return x[tuple(next(rest) if p is ARGUMENT else p for p in fixed)]

    return _INDEXERS.setdefault((vm, key), Jitted(item, vm, default="public"))


def method(name: str, vm: VM, x: SPUObject, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A method of JAX's arrays. Arrays and floats among its arguments are the program's, the rest is part of it."""
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    taken = [isinstance(leaf, (*INDICES, float)) for leaf in leaves]
    fixed = tuple(ARGUMENT if t else leaf for t, leaf in zip(taken, leaves))

    def call(x: Any, *given: Any) -> Any:
        rest = iter(given)
        args, kwargs = jax.tree.unflatten(tree, [next(rest) if p is ARGUMENT else p for p in fixed])
        return getattr(x, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    jitted = _METHODS.setdefault((vm, name, tree, repr(fixed)), Jitted(call, vm, default="public"))
    return jitted(x, *(leaf for t, leaf in zip(taken, leaves) if t))
