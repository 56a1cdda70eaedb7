"""A JAX function as a closed jaxpr, with names for its inputs and outputs and source lines.

Tracing runs under the caller's x64 setting, which `Traced` remembers: constants are folded
under the same one. `reveal` is the only primitive of ours that a user's function may contain.
"""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from spuvm.compiler.front.leaves import abstract
from spuvm.compiler.front.private_jax import frames
from spuvm.compiler.ir.module import Location
from spuvm.runtime.errors import InputError, VisibilityError
from spuvm.runtime.sources import FOLDERS, PACKAGE

# Frames that are never the user's: the compiler's, and those of `spu.reveal`. Frames outside of `ENTRIES` called
# the compiler. Frames of a library, such as flax, are the user's only if there are no others.
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")  # of the user, of the system, of another environment
ENTRIES = ("trace", "apply")
OURS = (str(FOLDERS["compiler"]) + os.sep, str(PACKAGE / "marking.py"))


@dataclass(frozen=True)
class Traced:
    """`inputs` and `outputs` name the leaves of the trees: "x", "params.w", "args[0]"; "out", "out[1]"."""

    name: str
    jaxpr: jex.ClosedJaxpr
    in_tree: Any
    out_tree: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    x64: bool
    location: Location

    @property
    def in_avals(self) -> list[Any]:
        return list(self.jaxpr.in_avals)

    @property
    def out_avals(self) -> list[Any]:
        return list(self.jaxpr.out_avals)


def trace(
    fn: Callable[..., Any],
    args: Sequence[Any],
    static_argnums: int | Sequence[int] = (),
    keywords: Mapping[str, Any] | None = None,
    static_argnames: Collection[str] = (),
) -> Traced:
    """Trace `fn(*args, **keywords)`. Leaves of arguments are arrays, numbers, or anything with shape and dtype."""
    static = static_positions(static_argnums, len(args))
    fixed = {k: v for k, v in (keywords or {}).items() if k in static_argnames}
    named = {k: v for k, v in sorted((keywords or {}).items()) if k not in static_argnames}
    dynamic = [*(a for i, a in enumerate(args) if i not in static), *named.values()]
    inputs = _input_names(fn, args, static, named)
    leaves, tree = jax.tree.flatten(dynamic)
    leaves = jax.tree.unflatten(tree, [abstract(leaf, name) for leaf, name in zip(leaves, inputs)])
    results: list[tuple[tuple[Any, ...], Any]] = []
    trees: list[Any] = []

    def call(*given: Any) -> list[Any]:
        rest = iter(given)
        positional = [args[i] if i in static else next(rest) for i in range(len(args))]
        out = fn(*positional, **fixed, **dict(zip(named, rest)))
        results[:], tree = jax.tree_util.tree_flatten_with_path(out)  # now: a rebuilt object may have other leaves
        trees[:] = [tree]
        return [leaf for _, leaf in results]

    try:
        with _inside():
            closed = jax.make_jaxpr(call)(*leaves)
    except NEED_A_VALUE as e:
        raise VisibilityError(_needs_a_value(fn, e)) from e
    except TypeError as e:
        if "SPUObject" in str(e):
            raise VisibilityError(
                f"{_where(fn, e)}an SPUObject is used inside a jitted function, but is no argument of it: "
                "pass it as one."
            ) from e
        if "concrete" not in str(e):  # what JAX says of a traced shape
            raise
        raise VisibilityError(_needs_a_value(fn, e)) from e
    return Traced(
        name=getattr(fn, "__name__", type(fn).__name__).strip("<>"),
        jaxpr=closed,
        in_tree=jax.tree.structure(tuple(dynamic)),
        out_tree=trees[0],
        inputs=tuple(inputs),
        outputs=tuple("out" + _path(path) for path, _ in results),
        x64=jax.dtypes.canonicalize_dtype(np.float64) == np.float64,
        location=_definition(fn),
    )


NEED_A_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


_tracing = ContextVar("tracing", default=False)


@contextmanager
def _inside() -> Iterator[None]:
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)


def is_tracing() -> bool:
    """Whether a function is being traced here for a machine, not by a transformation of JAX alone."""
    return _tracing.get()


def _needs_a_value(fn: Callable[..., Any], error: Exception) -> str:
    """What to do about Python code that asks for the value of an argument while it is traced."""
    return (
        f"{_where(fn, error)}Python needs the value of a traced argument here (an `if`, a `while`, a shape, a mask as "
        "index, `int()`, `np.array()`): write `jnp.where` or `lax.cond` for a secret condition, or list the argument "
        "in `static_argnums` if all parties may know it."
    )


def _where(fn: Callable[..., Any], error: Exception) -> str:
    """The line of the function's file that an error came from, and a colon."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == inspect.getsourcefile(fn)]
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""


def static_positions(static_argnums: int | Sequence[int], count: int) -> frozenset[int]:
    """The positions of the static arguments; negative numbers count from the end, as in `jax.jit`."""
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    for n in numbers:
        if not -count <= n < count:
            raise InputError(f"`static_argnums` has {n}, but there are {count} arguments.")
    return frozenset(n % count for n in numbers)


# Names of leaves ---------------------------------------------------------------------------------


def _input_names(
    fn: Callable[..., Any], args: Sequence[Any], static: frozenset[int], keywords: Mapping[str, Any]
) -> list[str]:
    given = [*zip(_argument_names(fn, len(args)), args), *keywords.items()]
    dynamic = [pair for i, pair in enumerate(given) if i not in static]
    return [name + _path(path) for name, arg in dynamic for path, _ in jax.tree_util.tree_leaves_with_path(arg)]


def _argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return [f"args[{i}]" for i in range(count)]
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    more = [f"{rest}[{i}]" for i in range(count - len(positional))]
    return (positional + more)[:count]


def _path(keys: Sequence[Any]) -> str:
    return "".join(map(_key, keys))


def _key(key: Any) -> str:
    match key:
        case DictKey(key=str(name)):
            return f".{name}"
        case GetAttrKey(name=name):
            return f".{name}"
        case SequenceKey(idx=i):
            return f"[{i}]"
        case DictKey(key=other) | FlattenedIndexKey(key=other):
            return f"[{other}]"
    return f"[{key}]"


# Source lines --------------------------------------------------------------------------------------


def location_of(eqn: Any, body: Any = None) -> Location | None:
    """The user's line that made an equation, of one of `body` (a jaxpr) within its function, or None."""
    library = None
    for frame in frames(eqn, body):
        ours = frame.file_name.startswith(OURS)
        if ours and frame.function_name in ENTRIES:
            break
        if not ours:
            here = Location(_short(frame.file_name), frame.start_line)
            if not (frame.file_name.startswith(LIBRARIES) or INSTALLED.search(frame.file_name)):
                return here
            library = library or here
    return library


def _definition(fn: Callable[..., Any]) -> Location:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return Location(_short(code.co_filename), code.co_firstlineno) if code else Location()


def _short(file: str) -> str:
    """Relative to the working directory where it lies inside, else the bare name."""
    path = Path(file)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


# reveal and masked ----------------------------------------------------------------------------------------------

reveal_p: Any = jex.Primitive("spu_reveal")
masked_p: Any = jex.Primitive("spu_masked")
bound_p: Any = jex.Primitive("spu_bound")


def reveal(x: Any, to: str | int | None = None) -> Any:
    """Inside a traced function: make every leaf of `x` public, or known to the party `to` alone."""
    return jax.tree.map(lambda leaf: reveal_p.bind(jax.numpy.asarray(leaf), to=to), x)


def masked(x: Any) -> Any:
    """Inside a traced function: every private leaf of `x` in masked form."""
    return jax.tree.map(lambda leaf: masked_p.bind(jax.numpy.asarray(leaf)), x)


def bound(x: Any, limit: float) -> Any:
    """Inside a traced function: state that every leaf of `x` is below `limit` in magnitude."""
    return jax.tree.map(lambda leaf: bound_p.bind(jax.numpy.asarray(leaf), limit=limit), x)


def _reveal_jvp(primals: Any, tangents: Any, *, to: Any) -> Any:
    # The derivative of the identity. The tangent stays as it is: only what the program names is revealed.
    return reveal_p.bind(*primals, to=to), tangents[0]


def _reveal_batch(args: Any, dims: Any, *, to: Any) -> Any:
    return reveal_p.bind(*args, to=to), dims[0]


for _primitive in (reveal_p, masked_p, bound_p):
    _primitive.def_impl(lambda x, **_: x)
    _primitive.def_abstract_eval(lambda x, **_: x)
    mlir.register_lowering(_primitive, lambda ctx, x, **_: [x])
ad.primitive_jvps[reveal_p] = _reveal_jvp
batching.primitive_batchers[reveal_p] = _reveal_batch
ad.primitive_jvps[masked_p] = lambda primals, tangents: (masked_p.bind(*primals), tangents[0])
ad.primitive_jvps[bound_p] = lambda primals, tangents, **limit: (bound_p.bind(*primals, **limit), tangents[0])
batching.primitive_batchers[bound_p] = lambda args, dims, **limit: (bound_p.bind(*args, **limit), dims[0])
batching.primitive_batchers[masked_p] = lambda args, dims: (masked_p.bind(*args), dims[0])
