"""`spu.jit`: an ordinary JAX function, run on secret values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.compiler.compile import Program, compile_function
from spuvm.compiler.cost import Cost
from spuvm.compiler.front.trace import masked as masked_inside
from spuvm.compiler.front.trace import reveal as reveal_inside
from spuvm.compiler.front.trace import static_positions
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.errors import InputError
from spuvm.vm import VM, make_config, simulator


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


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    protocol: str = "aby3",
    ring: int = 64,
    fxp_fraction_bits: int | None = None,
    world_size: int | None = None,
    parties: Sequence[str] | None = None,
    static_argnums: int | Sequence[int] = (),
) -> Any:
    """Run a JAX function on secret-shared data, simulated among `world_size` parties in this process.

    Arrays and numbers among the arguments are secret; `spu.public` and `spu.private` say otherwise.
    The result is an SPUObject, or a pytree of them; `spu.reveal` shows it.

    Args:
        fn: a function of arrays that JAX can trace. Without it, `jit(...)` is a decorator.
        protocol: "aby3" (three parties, semi-honest, honest majority), "semi2k" (two or more parties,
            semi-honest, dishonest majority, with a dealer), or "ref2k" (no security).
        ring: bits of a ring element: 32, 64 or 128.
        fxp_fraction_bits: of fixed point, up to half the ring less 4; 18 for a ring of 64 (a resolution of 3.8e-6), 8
            for 32 (3.9e-3), 26 for 128 (1.5e-8).
        world_size: how many parties; the protocol's usual number if not given.
        parties: their names, instead of `world_size`.
        static_argnums: positions of arguments that are Python values, as in `jax.jit`.

    Raises:
        ConfigError: for a configuration that no protocol has.
        CompileError: when called, for a function that cannot be compiled; it names the user's line.
    """
    if fn is None:
        return functools.partial(
            jit,
            protocol=protocol,
            ring=ring,
            fxp_fraction_bits=fxp_fraction_bits,
            world_size=world_size,
            parties=parties,
            static_argnums=static_argnums,
        )
    config = make_config(protocol, ring, fxp_fraction_bits, world_size, parties)
    return Jitted(fn, simulator(config), static_argnums)


def secret(x: Any) -> Any:
    """Mark every array of a pytree as secret (which arguments of `jit` are by default)."""
    return jax.tree.map(lambda leaf: Marked(leaf, "secret"), x)


def public(x: Any) -> Any:
    """Mark every array of a pytree as public: known to all parties, computed with in the clear."""
    return jax.tree.map(lambda leaf: Marked(leaf, "public"), x)


def private(x: Any, owner: str) -> Any:
    """Mark every array of a pytree as known to the party `owner` alone."""
    return jax.tree.map(lambda leaf: Marked(leaf, owner), x)


def reveal(x: Any, to: str | None = None) -> Any:
    """Show secret values.

    Inside a jitted function: make `x` public there, or known to the party `to`. Outside: the values
    of a pytree of SPUObjects (and of objects on devices) as NumPy arrays, at every party.
    """
    leaves, tree = jax.tree.flatten(x)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return jax.tree.unflatten(tree, [reveal_inside(leaf, to=to) for leaf in leaves])
    from spuvm.devices import PYUObject, fetch

    if to is not None:
        raise InputError("outside of a jitted function use `x.to(party)` to reveal to one party.")
    objects = [leaf for leaf in leaves if isinstance(leaf, SPUObject)]
    shown = _reveal_grouped(objects)
    out = []
    for leaf in leaves:
        if isinstance(leaf, SPUObject):
            out.append(shown[id(leaf)])
        else:
            out.append(fetch(leaf) if isinstance(leaf, PYUObject) else leaf)
    return jax.tree.unflatten(tree, out)


def masked(x: Any) -> Any:
    """Inside a jitted function: every private array of a pytree in masked form.

    The owner sends its array once, masked; every product of it with a secret (`*`, `@`) is then one
    local product a party. What a function returns masked, the next one takes masked, so

        a = dev(spu.masked)(alice_matrix)          # 8 bytes an element, once
        gradient = dev(lambda a, g: a.T @ g)(a, g) # and as often as you like: only the result is reshared

    It stays private to its owner, who can compute with it as before. Numbers 0 and 1 are best masked
    as an array of bools and converted where they are multiplied (`a.astype(jnp.float32).T @ g`): a
    byte an element at the owner, and no truncation. Secret and public arrays are returned as they are.
    """
    leaves, tree = jax.tree.flatten(x)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise InputError("`spu.masked` belongs into a jitted function: `spu.jit(spu.masked)(x)`, `dev(spu.masked)(x)`.")
    return jax.tree.unflatten(tree, [masked_inside(leaf) for leaf in leaves])


def _reveal_grouped(objects: list[SPUObject]) -> dict[int, Any]:
    """One reveal for each machine that the objects live on."""
    out: dict[int, Any] = {}
    machines = {id(o.vm): o.vm for o in objects}
    for key, vm in machines.items():
        mine = [o for o in objects if id(o.vm) == key]
        out.update(zip(map(id, mine), vm.reveal(mine)))
    return out


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
