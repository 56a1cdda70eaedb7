"""From what is named on the command line, `file.py:fn` or `f.spux`, to a Program."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.calls import Jitted
from spuvm.commands.options import Argument, make_config
from spuvm.compiler.check.measuring import measured
from spuvm.compiler.compile import Program, compile_function, load
from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir.module import Visibility
from spuvm.compiler.passes.ranges import Ranges, scales_of_inputs
from spuvm.marking import reveal
from spuvm.runtime.config import Config
from spuvm.runtime.errors import CompileError, InputError, SpuError


@dataclass(frozen=True)
class Options:
    """The values of `options.function_options`."""

    arguments: tuple[Argument, ...] = ()
    statics: tuple[tuple[int | str, Any], ...] = ()
    reveal: str | None = None
    protocol: str | None = None
    ring: int | None = None
    fxp: int | None = None
    truncation: str | None = None
    optimize: str | None = None
    parties: tuple[str, ...] | None = None
    others: tuple[str, ...] | None = None
    x64: bool = False
    guard: bool = False
    missing: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        return self != Options()


@dataclass(frozen=True)
class Leaf:
    """An array among the arguments: its type, and who knows it."""

    struct: jax.ShapeDtypeStruct
    who: str


def is_saved(target: str) -> bool:
    """Whether it is a compiled program, and not a function.

    Raises InputError if it is neither by its name.
    """
    if target.endswith(".spux"):
        return True
    file, colon, name = target.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"{target!r} is neither a compiled program (f.spux) nor a function in a file (file.py:fn).")
    return False


def program_of(
    target: str, options: Options, inputs: Mapping[str, Leaf] | None = None, sample: Mapping[str, Any] | None = None
) -> Program:
    """Load `f.spux`, or compile `file.py:fn` for the arguments of the options and of `inputs` by name.

    `sample`: public or synthetic arrays by name, to which scales are fitted.
    """
    if is_saved(target):
        if options.given:
            raise InputError(f"{target} is compiled already: `--arg` and its like belong to `spuvm compile`.")
        return load(target)
    with jax.enable_x64(True) if options.x64 else nullcontext():
        return _compile(target, load_function(target), options, inputs or {}, sample)


def _compile(
    target: str,
    fn: Callable[..., Any],
    options: Options,
    inputs: Mapping[str, Leaf],
    sample: Mapping[str, Any] | None = None,
) -> Program:
    base, guard, ranges = None, options.guard, None
    if isinstance(fn, Jitted):
        base, guard, ranges = fn.vm.config, guard or fn.guard, fn.ranges
        fn = fn.fn
    o = options
    config = make_config(o.protocol, o.ring, o.fxp, o.parties, base, o.others, o.truncation, o.optimize)
    described = [(a.name, leaf_of(a, options.x64)) for a in options.arguments]
    named = {**inputs, **{name: leaf for name, leaf in described if name}}
    positional = [leaf for name, leaf in described if not name]
    args, static = bind(fn, target, named, positional, dict(options.statics))
    leaves = jax.tree.leaves([a for i, a in enumerate(args) if i not in static])
    owners = [visibility(leaf.who, config) for leaf in leaves]
    types = [a if i in static else jax.tree.map(lambda leaf: leaf.struct, a) for i, a in enumerate(args)]
    if options.reveal is not None:
        fn = revealing(fn, None if options.reveal == "all" else options.reveal, config)
    try:
        if sample is not None:
            ranges = _measured(fn, types, owners, config, tuple(static), sample)
        finer, bounds = scales_of_inputs(ranges, len(leaves), config.fxp_fraction_bits, config.ring_bits)
        missing = _missing(fn, types, static, o.missing) if o.missing else ()
        return compile_function(
            fn,
            types,
            owners,
            config,
            tuple(static),
            finer=finer,
            bounds=bounds,
            guard=guard,
            missing=missing,
            ranges=ranges,
        )
    except SpuError:
        raise
    except Exception as error:
        _raise_in_user_code(error, target.rpartition(":")[0])
        raise


def _missing(fn: Callable[..., Any], types: Sequence[Any], static: Sequence[int], names: Sequence[str]) -> list[int]:
    """The positions of the arguments of which cells may be missing."""
    traced = trace(fn, types, tuple(static))
    for name in names:
        if name not in traced.inputs:
            raise InputError(f"`--missing`: the function has no argument `{name}`{nearest(name, traced.inputs)}.")
        dtype = traced.in_avals[traced.inputs.index(name)].dtype
        if not np.issubdtype(dtype, np.floating):
            raise InputError(f"`--missing`: `{name}` is {dtype}: give it a float dtype, which NaN is one of.")
    return sorted(traced.inputs.index(name) for name in set(names))


def _measured(
    fn: Callable[..., Any],
    types: Sequence[Any],
    owners: Sequence[Visibility],
    config: Config,
    static: tuple[int, ...],
    sample: Mapping[str, Any],
) -> Ranges:
    """The ranges of a sample that has the arrays of all arguments."""
    traced = trace(fn, types, static)
    missing = [n for n in traced.inputs if n not in sample]
    if missing or len(sample) > len(traced.inputs):
        raise InputError(f"the sample has {', '.join(sample)}; the function takes {', '.join(traced.inputs)}.")
    for name, aval in zip(traced.inputs, traced.in_avals):
        if np.shape(sample[name]) != tuple(aval.shape):
            raise InputError(f"`{name}` of the sample has shape {np.shape(sample[name])}, `--arg` says {aval.shape}.")
    return measured(traced, [sample[n] for n in traced.inputs], owners, config)


def load_function(target: str) -> Callable[..., Any]:
    """The function of `file.py:fn`, its module run as Python would import it."""
    file, _, name = target.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{target}: there is no file {path}.")
    folder = str(path.parent.absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # Under a name of its own: a file called like an installed package must not replace that.
    module_name = f"spuvm_program_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except SpuError:
        raise
    except Exception as error:
        _raise_in_user_code(error, file)
        raise
    if not hasattr(module, name):
        functions = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise InputError(f"{file} has no function `{name}`{nearest(name, functions)}.")
    fn = getattr(module, name)
    if not callable(fn):
        raise InputError(f"`{name}` in {file} is no function but `{type(fn).__name__}`.")
    result: Callable[..., Any] = fn
    return result


def _raise_in_user_code(error: Exception, file: str) -> None:
    """Raise the error as one line that names the user's line, if it came from the file."""
    if isinstance(error, SyntaxError) and error.filename:
        raise CompileError(f"{error.filename}:{error.lineno}: {error.msg}.") from error
    path = str(Path(file).absolute())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if lines:
        text = str(error).strip().partition("\n")[0].rstrip(".")
        raise CompileError(f"{file}:{lines[-1]}: {type(error).__name__}: {text}.") from error


def leaf_of(argument: Argument, x64: bool) -> Leaf:
    """An argument that `--arg` describes.

    Raises InputError for a dtype that JAX does not have, or needs x64 for.
    """
    try:
        dtype = jax.numpy.dtype(argument.dtype)
    except TypeError:
        raise InputError(f"`--arg`: there is no dtype {argument.dtype!r}: use f32, i32, bool or the like.") from None
    if dtype.itemsize == 8 and jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InputError(f"`--arg`: {dtype} needs 64-bit tracing: give `--x64`, or use a 32-bit dtype.")
    struct: Any = jax.ShapeDtypeStruct
    return Leaf(struct(argument.shape, dtype), argument.who or "secret")


def visibility(who: str, config: Config) -> Visibility:
    """Of an argument: "public", "secret", or its owner's rank."""
    if who in ("public", "secret"):
        return who
    if who not in config.members:
        raise InputError(
            f"`@{who}`: the parties are {', '.join(config.members)}{nearest(who, config.members)}. "
            "Name others with `--parties`, and those that do not compute with `--others`."
        )
    return config.members.index(who)


def revealing(fn: Callable[..., Any], to: str | None, config: Config) -> Callable[..., Any]:
    """The function with all its results revealed, to one party or (None) to all."""
    if to is not None and to not in config.members:
        raise InputError(f"`--reveal` must be `all` or one of {', '.join(config.members)}, got {to!r}.")

    def wrapper(*args: Any) -> Any: return reveal(fn(*args), to=to)  # fmt: skip

    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is not None:  # the reveal is reported at the user's line, where the function begins
        place = {"co_filename": code.co_filename, "co_firstlineno": code.co_firstlineno}
        wrapper.__code__ = wrapper.__code__.replace(**place)
    return functools.update_wrapper(wrapper, fn)


# Arguments ----------------------------------------------------------------------------------------------


def bind(
    fn: Callable[..., Any],
    target: str,
    named: Mapping[str, Leaf],
    positional: Sequence[Leaf],
    statics: Mapping[int | str, Any],
) -> tuple[list[Any], list[int]]:
    """The function's arguments in order, and the positions of those that are Python values.

    `named` may hold "params.w": the argument `params` is then a dictionary. Parameters that have a
    default and are not given are Python values, too.
    """
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        raise InputError(f"{target}: its arguments are not known: wrap it in a function.") from None
    tree, rest, python = _nested(named), list(positional), dict(statics)
    ordered = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    args: list[Any] = []
    static: list[int] = []
    missing: list[str] = []
    for i, p in enumerate(ordered):
        if i in python or p.name in python:
            static.append(i)
            args.append(python.pop(i) if i in python else python.pop(p.name))
        elif p.name in tree:
            args.append(tree.pop(p.name))
        elif rest:
            args.append(rest.pop(0))
        elif p.default is not p.empty:
            static.append(i)
            args.append(p.default)
        else:
            missing.append(p.name)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        args += rest
        rest = []
    missing += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    head = f"{target} takes ({', '.join(map(str, parameters))})"
    unknown = [str(k) for k in (*tree, *python)]
    if unknown:
        raise InputError(f"{head}: it has no `{unknown[0]}`{nearest(unknown[0], [p.name for p in ordered])}.")
    if missing:
        raise InputError(f"{head}: nothing is given for {', '.join(f'`{m}`' for m in missing)}.")
    if rest:
        raise InputError(f"{head}: {len(rest)} of the `--arg` given are left over.")
    return args, static


def _nested(named: Mapping[str, Leaf]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *path, last = name.split(".")
        inner = tree
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return tree


def nearest(name: str, known: Sequence[str]) -> str:
    """ " (did you mean `...`?)" if something like it is known."""
    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean `{found[0]}`?)" if found else ""
