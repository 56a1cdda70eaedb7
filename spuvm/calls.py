"""Calls: a JAX function on a machine, compiled once for each signature; operators and indexing are calls, too."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from spuvm.arguments import bind, state
from spuvm.compiler.check.measuring import measured
from spuvm.compiler.compile import Program, compile_function
from spuvm.compiler.cost import Cost
from spuvm.compiler.front.trace import is_tracing, trace
from spuvm.compiler.ir.module import Visibility
from spuvm.compiler.passes.headroom import Scales, scales_of
from spuvm.compiler.passes.ranges import Ranges, fitted
from spuvm.missing import apart, positions, together
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.errors import InputError, RangeWarning

if TYPE_CHECKING:
    from spuvm.vm import VM


class Jitted:
    """A function compiled for a machine, once for each signature of its arguments.

    As an attribute of a class it is a method. In a function that is being compiled itself, it is a part of that.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        vm: VM,
        static_argnums: int | Sequence[int] = (),
        default: str = "secret",
        static_argnames: str | Sequence[str] = (),
        guard: bool = False,
        ranges: Ranges | None = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.vm = vm
        self.static_argnums = static_argnums
        self.static_argnames = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        self.default = default
        self.guard = guard
        self.ranges = ranges
        self._programs: dict[Any, tuple[Program, Any]] = {}
        self._methods: dict[Any, Jitted] = {}
        self._measured: Callable[[tuple[Visibility, ...]], Ranges] | None = None  # of a sample, for any owners

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it. Returns SPUObjects in the shape of the function's result."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._inlined(args, kwargs)
        program, out_tree, leaves = self._prepare(args, kwargs)
        return jax.tree.unflatten(out_tree, together(program, self.vm.run(program, apart(leaves))))

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        """The program for arguments like these (arrays or `jax.ShapeDtypeStruct`s), without running it."""
        return self._prepare(args, kwargs)[0]

    def calibrate(self, *sample: Any, **kwargs: Any) -> Jitted:
        """The same function with scales that fit the numbers of a sample: its own arguments, public or synthetic.

        It runs in the clear, in this process, in float64. The ranges of all numbers, as powers of two, become part of
        the program: all parties see them (`.ranges`). Arguments are then checked against eight times the sample's
        largest, rounded up.

        Raises:
            InputError: for shares among the sample, and when the result is called with other shapes or types.
        """
        given = bind(self.fn, sample, kwargs, self.static_argnums, self.static_argnames)
        leaves = jax.tree.leaves(given.dynamic)
        if any(isinstance(leaf, SPUObject) for leaf in leaves):
            raise InputError(
                "`calibrate` computes in the clear: give it public or synthetic arrays, not shared values."
            )
        owners = tuple(self.vm.visibility(leaf, "secret") for leaf in leaves)
        traced = trace(
            self.fn, _unmarked(given.args), given.static_positions, _unmarked(given.keywords), self.static_argnames
        )
        values = [leaf.value if isinstance(leaf, Marked) else leaf for leaf in apart(leaves)]

        @functools.cache
        def ranges(owners: tuple[Visibility, ...]) -> Ranges:
            return measured(traced, values, owners, self.vm.config, positions(leaves))

        found = Jitted(
            self.fn, self.vm, self.static_argnums, self.default, self.static_argnames, self.guard, ranges(owners)
        )
        found._measured = ranges
        return found

    def cost(self, *args: Any, **kwargs: Any) -> Cost:
        """Rounds and bytes per party, by operation and by source line, without running it."""
        return self.compile(*args, **kwargs).cost

    def scales(self, *args: Any, **kwargs: Any) -> Scales:
        """Fraction bits, limits and headroom by source line, without running it; prints as a table."""
        program, _, leaves = self._prepare(args, kwargs)
        assert program.traced is not None
        owners = [self.vm.visibility(leaf, self.default) for leaf in leaves]
        finer, bounds = self._fitted(leaves)
        ranges = self._ranges(owners)
        return scales_of(program.traced, owners, self.vm.config, finer, bounds, positions(leaves), ranges)

    def _ranges(self, owners: Sequence[Visibility]) -> Ranges | None:
        """A program has other operations for what all know, or one party: the sample is run through each."""
        return self.ranges if self._measured is None else self._measured(tuple(owners))

    def _fitted(self, leaves: Sequence[Any]) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        """Of each argument the fraction bits beyond the default, and its bound: its own, or what a sample gave."""
        finer, bounds = [*map(self.vm.finer, leaves)], [*map(_bound, leaves)]
        config = self.vm.config
        for i, leaf in enumerate(leaves if self.ranges is not None else ()):
            assert self.ranges is not None
            found = self.ranges.input(i)
            if found is not None and not isinstance(leaf, SPUObject):
                finer[i], bound = fitted(found, config.fxp_fraction_bits, config.ring_bits)
                bounds[i] = min(b for b in (bound, bounds[i]) if b is not None)
        return tuple(finer), tuple(bounds)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self._method(instance)

    def _method(self, instance: Any) -> Any:
        """A pytree of arrays is an argument like others; any other object is part of the program, as it is now."""
        if not jax.tree_util.all_leaves([instance]):
            return Method(self, instance)
        key = id(instance), state(instance)
        if key not in self._methods:
            numbers = (self.static_argnums,) if isinstance(self.static_argnums, int) else tuple(self.static_argnums)
            shifted = tuple(n - (n > 0) for n in numbers if n != 0)
            bound = self.fn.__get__(instance)
            self._methods[key] = Jitted(
                bound, self.vm, shifted, self.default, self.static_argnames, self.guard, self.ranges
            )
            self._methods[key]._measured = self._measured
        return self._methods[key]

    def _inlined(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Within another jitted function: that one's machine computes it."""
        if not is_tracing():
            raise InputError(
                f"`{self.__name__}` was made by `spu.jit` and runs on secret shares: `jax.jit`, `jax.vmap` and "
                "`jax.grad` cannot look inside. Transform the function first: `spu.jit(jax.grad(f))`, f what "
                "`spu.jit` was given."
            )
        return self.fn(*args, **kwargs)

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Program, Any, list[Any]]:
        given = bind(self.fn, args, kwargs, self.static_argnums, self.static_argnames)
        leaves, tree = jax.tree.flatten(given.dynamic)
        owners = [self.vm.visibility(leaf, self.default) for leaf in leaves]
        masked = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, SPUObject) and leaf.type.masked)
        key = (
            tree,
            tuple(map(_signature, leaves)),
            tuple(owners),
            masked,
            *(given_scales := self._fitted(leaves)),
            missing := positions(leaves),
            tuple((k, type(x), x) for k, x in given.static),  # 1, 1.0 and True are equal
            jax.config.jax_enable_x64,  # type: ignore[attr-defined]
        )
        try:
            found = self._programs.get(key)
        except TypeError:
            raise InputError("static arguments must be hashable, as in `jax.jit`.") from None
        if found is None:
            program = compile_function(
                self.fn,
                _unmarked(given.args),
                owners,
                self.vm.config,
                given.static_positions,
                masked,
                _unmarked(given.keywords),
                self.static_argnames,
                *given_scales,
                keeps_scales=True,
                guard=self.guard,
                missing=missing,
                ranges=self._ranges(owners),
            )
            assert program.traced is not None
            _warn(program)
            found = self._programs[key] = program, program.traced.out_tree
        return *found, leaves

    def __repr__(self) -> str:
        return f"<spu.jit {self.__name__} on {self.vm!r}>"

    __name__: str


def _warn(program: Program) -> None:
    """Once for each program: what is stated of its numbers is more than it holds."""
    refused = program.module.refused
    if refused:
        few = ", ".join(refused[:3]) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        what = "the sample has" if program.module.ranges else "the bounds that are stated allow"
        warnings.warn(
            f"`{program.module.name}`: {what} numbers that the ring does not hold, at {few}. "
            "`f.scales(*args)` lists all lines; state what the numbers are, or scale them.",
            RangeWarning,
            stacklevel=4,
        )


class Method:
    """A jitted function with its first argument."""

    def __init__(self, function: Jitted, instance: Any) -> None:
        self.function, self.instance = function, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.instance, *args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        return self.function.compile(self.instance, *args, **kwargs)

    def cost(self, *args: Any, **kwargs: Any) -> Cost:
        return self.function.cost(self.instance, *args, **kwargs)

    def calibrate(self, *sample: Any, **kwargs: Any) -> Method:
        return Method(self.function.calibrate(self.instance, *sample, **kwargs), self.instance)

    def scales(self, *args: Any, **kwargs: Any) -> Scales:
        return self.function.scales(self.instance, *args, **kwargs)

    def __repr__(self) -> str:
        return f"{self.function!r} of {type(self.instance).__name__}"


def _bound(leaf: Any) -> float | None:
    return leaf.bound if isinstance(leaf, Marked) else None


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
