"""`spu.jit`, an ordinary JAX function run on secret values, and the marks of what goes in and comes out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from spuvm.calls import Jitted
from spuvm.compiler.front.trace import bound as bound_inside
from spuvm.compiler.front.trace import masked as masked_inside
from spuvm.compiler.front.trace import reveal as reveal_inside
from spuvm.objects import Marked, Remote, SPUObject, Tabular
from spuvm.runtime.errors import InputError
from spuvm.vm import make_config, simulator


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    protocol: str = "aby3",
    ring: int = 64,
    fxp_fraction_bits: int | None = None,
    truncation: str = "probabilistic",
    world_size: int | None = None,
    parties: Sequence[str] | None = None,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (),
    guard: bool = False,
    device: str | None = None,
    optimize: str = "auto",
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
        truncation: "probabilistic" (fixed point is rounded to one of its neighbours by chance) or "exact" (always down:
            results are a function of the inputs alone, equal from run to run; a product takes 9 rounds instead of 2).
        world_size: how many parties; the protocol's usual number if not given.
        parties: their names, instead of `world_size`.
        static_argnums, static_argnames: positions and names of arguments that are Python values, as in `jax.jit`.
        donate_argnums, donate_argnames: accepted as in `jax.jit`. Shares of arguments are never overwritten.
        guard: notice numbers that leave what the ring holds (docs/numbers.md). Where bounds do not rule it out,
            operands are checked; one bit, whether any of them was too large, is revealed before anything else, and at
            the end of each call. If it is set every party raises RangeError, and there is no result.
        device: what shares are computed on, by XLA: any device that JAX has here, as "gpu" or "cpu". Without it (and
            without SPUVM_DEVICE) the vector engine computes, on the processor.
        optimize: "latency" takes circuits of fewer rounds where a message is 40 ms on its way, "bandwidth" those of
            fewer bytes where links have 20 Mbit a second, "auto" the usual ones (docs/engine.md). Results are as exact.

    Of a method, an object that is no pytree is part of the program: it is compiled again where attributes have changed.
    Within another jitted function, `fn` is a part of it and its machine is that one's.

    Raises:
        ConfigError: for a configuration that no protocol has, or a device that is not there.
        RangeError: when called, with `guard`.
        CompileError: when called, for a function that cannot be compiled; it names the user's line.
    """
    if fn is None:
        return functools.partial(
            jit,
            protocol=protocol,
            ring=ring,
            fxp_fraction_bits=fxp_fraction_bits,
            truncation=truncation,
            world_size=world_size,
            parties=parties,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            guard=guard,
            device=device,
            optimize=optimize,
        )
    config = make_config(protocol, ring, fxp_fraction_bits, world_size, parties, truncation, optimize)
    return Jitted(fn, simulator(config, device), static_argnums, static_argnames=static_argnames, guard=guard)


def secret(x: Any, bound: float | None = None, missing: bool = False) -> Any:
    """Mark every array of a pytree as secret (which arguments of `jit` are by default).

    With `bound`, numbers are below it in magnitude: that is checked where they come in, and known to the program.
    With `missing`, numbers may be NaN: each comes with a secret bool that says so, and `jnp.isnan`, `jnp.nanmean` and
    all others see it. Nobody learns where entries are missing, or whether any is.
    """
    limit = None if bound is None else _positive(bound)
    return jax.tree.map(lambda leaf: Marked(leaf, "secret", bound=limit, missing=missing), x)


def bound(x: Any, limit: float) -> Any:
    """Inside a jitted function: the same pytree, of whose numbers you know that they are below `limit` in magnitude.

    Scales are chosen by it (`f.scales(*args)`). It is not checked: where it does not hold, results may be wrong.
    `spu.check` on test data says where numbers leave what the ring holds.
    """
    leaves, tree = jax.tree.flatten(x)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise InputError("`spu.bound` belongs into a jitted function; of an argument, use `spu.secret(x, bound=8)`.")
    return jax.tree.unflatten(tree, [bound_inside(leaf, limit=_positive(limit)) for leaf in leaves])


def _positive(limit: float) -> float:
    if not isinstance(limit, int | float) or not 0 < limit < float("inf"):
        raise InputError(f"a bound is a positive number, got {limit!r}.")
    return float(limit)


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
    if to is not None:
        raise InputError("outside of a jitted function use `x.to(party)` to reveal to one party.")
    if any(isinstance(leaf, Tabular) for leaf in leaves):
        raise InputError(
            "a table's cells stay with those who have them: reveal what a function makes of it, `device(fn)(table)`, "
            'or what one of them shows, `frame["age"].at("alice")`.'
        )
    objects = [leaf for leaf in leaves if isinstance(leaf, SPUObject)]
    shown = _reveal_grouped(objects)
    out = [shown[id(x)] if isinstance(x, SPUObject) else x.reveal() if isinstance(x, Remote) else x for x in leaves]
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
