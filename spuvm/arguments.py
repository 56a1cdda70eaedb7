"""Arguments of a call as its function takes them, and what belongs to the program rather than to its inputs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spuvm.compiler.front.trace import static_positions


@dataclass(frozen=True)
class Given:
    """Arguments by position and by keyword; `static` names those that are part of the program, `dynamic` all others."""

    args: tuple[Any, ...]
    keywords: dict[str, Any]
    static_positions: tuple[int, ...]
    static: tuple[tuple[Any, Any], ...]
    dynamic: tuple[Any, ...]


def bind(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    static_argnums: int | Sequence[int] = (),
    static_argnames: Sequence[str] = (),
) -> Given:
    """Arguments as the function's parameters take them, by position where they may be."""
    keywords: dict[str, Any] = {}
    fixed: frozenset[int] = frozenset()
    if kwargs or static_argnames:
        bound = inspect.signature(fn).bind(*args, **kwargs)
        args, keywords = bound.args, dict(sorted(bound.kwargs.items()))
        names = list(inspect.signature(fn).parameters)
        fixed = frozenset(i for i, name in enumerate(names[: len(args)]) if name in static_argnames)
    if static_argnums != ():
        fixed |= static_positions(_given(fn, static_argnums, len(args)), len(args))
    static = [(i, args[i]) for i in sorted(fixed)] + [(k, v) for k, v in keywords.items() if k in static_argnames]
    dynamic = [a for i, a in enumerate(args) if i not in fixed]
    dynamic += [v for k, v in keywords.items() if k not in static_argnames]
    return Given(args, keywords, tuple(sorted(fixed)), tuple(static), tuple(dynamic))


def _given(fn: Callable[..., Any], static_argnums: int | Sequence[int], count: int) -> list[int]:
    """Without those of arguments that are left to their defaults, as `jax.jit` does."""
    numbers = [static_argnums] if isinstance(static_argnums, int) else list(static_argnums)
    if any(n >= count for n in numbers):
        known = len(inspect.signature(fn).parameters)
        numbers = [n for n in numbers if n < count or n >= known]
    return numbers


def state(x: Any, within: tuple[int, ...] = ()) -> Any:
    """What a method's object holds, to be compared: a program that was compiled for other values is not used."""
    if x is None or isinstance(x, bool | int | float | complex | str | bytes):
        return type(x), x if x == x else "nan"
    if isinstance(x, np.ndarray | jax.Array) and isinstance(x.dtype, np.dtype):
        array = np.ascontiguousarray(x)
        return array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()
    if id(x) in within:
        return id(x)
    within = (*within, id(x))
    if isinstance(x, list | tuple):
        return type(x), tuple(state(v, within) for v in x)
    if isinstance(x, dict):
        return type(x), tuple((state(k, within), state(v, within)) for k, v in x.items())
    if isinstance(x, type) or callable(x) or not hasattr(x, "__dict__"):
        return id(x)
    return id(x), tuple((k, state(v, within)) for k, v in sorted(vars(x).items()))
