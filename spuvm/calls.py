"""Calls: a JAX function on a machine, compiled once for each signature; operators and indexing are calls, too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.compiler.compile import Program, compile_function
from spuvm.compiler.cost import Cost
from spuvm.compiler.front.trace import static_positions
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.errors import InputError

if TYPE_CHECKING:
    from spuvm.vm import VM


class Jitted:
    """A function compiled for a machine, once for each signature of its arguments."""

    def __init__(
        self,
        fn: Callable[..., Any],
        vm: VM,
        static_argnums: int | Sequence[int] = (),
        default: str = "secret",
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.vm = vm
        self.static_argnums = static_argnums
        self.default = default
        self._programs: dict[Any, tuple[Program, Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it. Returns SPUObjects in the shape of the function's result."""
        program, out_tree, leaves = self._prepare(args, kwargs)
        return jax.tree.unflatten(out_tree, self.vm.run(program, leaves))

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for arguments like these (arrays or `jax.ShapeDtypeStruct`s), without running it."""
        return self._prepare(args, kwargs)[0]

    def cost(self, *args: Any, **kwargs: Any) -> Cost:
        """Rounds and bytes per party, by operation and by source line, without running it."""
        return self.compile(*args, **kwargs).cost

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Program, Any, list[Any]]:
        if kwargs:
            args = self._positional(args, kwargs)
        static = static_positions(self.static_argnums, len(args)) if self.static_argnums != () else frozenset()
        dynamic = tuple(a for i, a in enumerate(args) if i not in static)
        leaves, tree = jax.tree.flatten(dynamic)
        owners = [self.vm.visibility(leaf, self.default) for leaf in leaves]
        masked = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, SPUObject) and leaf.type.masked)
        key = (
            tree,
            tuple(map(_signature, leaves)),
            tuple(owners),
            masked,
            tuple((type(args[i]), args[i]) for i in sorted(static)),  # 1, 1.0 and True are equal
            jax.config.jax_enable_x64,  # type: ignore[attr-defined]
        )
        try:
            found = self._programs.get(key)
        except TypeError:
            raise InputError("static arguments must be hashable, as in `jax.jit`.") from None
        if found is None:
            program = compile_function(self.fn, _unmarked(args), owners, self.vm.config, self.static_argnums, masked)
            assert program.traced is not None
            found = self._programs[key] = program, program.traced.out_tree
        return *found, leaves

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        bound = inspect.signature(self.fn).bind(*args, **kwargs)
        if bound.kwargs:
            raise InputError(
                f"`{self.__name__}` has keyword-only arguments {sorted(bound.kwargs)}: pass them by position."
            )
        return bound.args

    def __repr__(self) -> str:
        return f"<spu.jit {self.__name__} on {self.vm!r}>"

    __name__: str


def _unmarked(args: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.value if isinstance(leaf, Marked) else leaf, args)


def _signature(leaf: Any) -> Any:
    """What a compiled program depends on: shape and dtype; Python scalars are weakly typed."""
    if isinstance(leaf, Marked):
        leaf = leaf.value
    if isinstance(leaf, bool | int | float):
        return type(leaf)
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return type(leaf)  # `trace` says what is wrong with it
    return tuple(leaf.shape), leaf.dtype, bool(getattr(leaf, "weak_type", False))


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
    parts = [p for part in (index if isinstance(index, tuple) else (index,)) for p in _positions(part)]
    arrays = [p for p in parts if isinstance(p, INDICES)]
    fixed = tuple(ARGUMENT if isinstance(p, INDICES) else p for p in parts)
    return _indexer(vm, repr(fixed), fixed)(x, *arrays)


INDICES = (np.ndarray, jax.Array, SPUObject)
ARGUMENT = "argument"  # stands for an array in an index
_INDEXERS: dict[tuple[VM, str], Jitted] = {}


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
