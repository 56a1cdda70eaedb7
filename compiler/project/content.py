"""What a function does, as a digest: equal for functions that compute the same from the same sources.

Covered are its code, what it has bound (arguments, a method's object, variables of the functions around it), and all
functions that it names. The package's own sources are not gone through: what is on disk belongs to one version of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from spuvm.runtime.protocols.algebra import Algebra

OURS = "spuvm."


@lru_cache(maxsize=1 << 16)
def content(function: Callable[..., Any]) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(_text(function, ()).encode()).hexdigest()


_SHARED: dict[int, tuple[Any, str]] = {}  # functions and objects that stand within many others, with their texts
_NAMES_ITSELF = re.compile("<[0-9]+>")


PLAIN = (type(None), bool, int, float, complex, str, bytes)


def _text(x: Any, within: tuple[int, ...]) -> str:
    """`within` are the identities of what is being described: a function may name itself."""
    if (kind := type(x)) in PLAIN:
        return f"{kind.__name__} {x!r}"
    if id(x) in within:
        return f"<{within.index(id(x))}>"
    if id(x) in _SHARED:
        return _SHARED[id(x)][1]
    found = _described(x, within)
    if within and _stays(x) and not _NAMES_ITSELF.search(found):
        _SHARED[id(x)] = x, found  # keeps x, and with it the id
    return found


def _stays(x: Any) -> bool:
    """Whether it is one of the package's own, which last as long as the process: a function of a module, a protocol."""
    if isinstance(x, FunctionType):
        return x.__closure__ is None and x.__module__.startswith(OURS) and "<" not in x.__qualname__
    return isinstance(x, Algebra)


def _described(x: Any, within: tuple[int, ...]) -> str:
    inner = (*within, id(x))

    def each(*parts: Any) -> str:
        return f"{type(x).__name__}({', '.join(_text(p, inner) for p in parts)})"

    match x:
        case bool() | int() | float() | complex() | str() | bytes() | np.dtype() | np.generic():
            return f"{type(x).__name__} {x!r}"
        case np.ndarray():
            return f"{x.dtype}{x.shape} {x.tobytes().hex()}"
        case tuple() | list():
            return each(*x)
        case set() | frozenset():
            return f"{type(x).__name__}({sorted(_text(p, inner) for p in x)})"
        case Mapping():
            return each(*(part for item in x.items() for part in item))
        case partial():
            return each(x.func, x.args, x.keywords)
        case MethodType():
            return each(x.__self__, x.__func__)
        case FunctionType():
            return f"{x.__module__}.{x.__qualname__}" + each(*_of_function(x))
        case CodeType():
            return _of_code(x)
        case type() | BuiltinFunctionType():
            return f"{x.__module__}.{x.__qualname__}"
        case ModuleType():
            return x.__name__
    if is_dataclass(x):
        return f"{type(x).__qualname__}" + each(*(getattr(x, f.name) for f in fields(x)))
    if (wrapped := getattr(x, "__wrapped__", None)) is not None:  # what a decorator made of a function
        return each(wrapped)
    return f"{type(x).__module__}.{type(x).__qualname__}" + each(getattr(x, "__dict__", {}))


def _of_function(f: FunctionType) -> list[Any]:
    parts = [f.__code__, f.__defaults__, f.__kwdefaults__, [_contained(cell) for cell in f.__closure__ or ()]]
    if not f.__module__.startswith(OURS):
        parts.append({n: f.__globals__[n] for n in _names(f.__code__) if n in f.__globals__})
    return parts


@lru_cache(maxsize=1 << 12)
def _of_code(code: CodeType) -> str:
    """Many functions have one code: what a function makes differs in what is bound alone."""
    return _text((code.co_code, code.co_consts, code.co_names, code.co_varnames), ())


def _contained(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _names(code: CodeType) -> list[str]:
    """All names that the code and the functions within it use."""
    inner = [n for c in code.co_consts if isinstance(c, CodeType) for n in _names(c)]
    return list(dict.fromkeys([*code.co_names, *inner]))
