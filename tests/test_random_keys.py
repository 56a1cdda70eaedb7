"""JAX's random keys that are known when a program runs: public arguments, and keys of iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random
from lowering import agrees, names

import spuvm as spu
from spuvm.runtime.errors import UnsupportedError

X = np.array([0.5, -1.0, 2.0], np.float32)
WORDS = np.asarray(random.PRNGKey(3))

USES: dict[str, Callable[[Any, Any], Any]] = {
    "uniform": lambda k, x: x + random.uniform(random.split(k)[0], (3,)),
    "normal": lambda k, x: x * random.normal(random.fold_in(k, 7), (3,)),
    "bernoulli": lambda k, x: jnp.where(random.bernoulli(k, 0.4, (3,)), x, 0),
    "integers": lambda k, x: x + random.randint(k, (3,), -5, 10),
    "permutation": lambda k, x: [random.permutation(k, x), random.choice(k, x, (2,), replace=False)],
    "rows": lambda k, x: jax.vmap(lambda one: x + random.uniform(one, (3,)))(random.split(k, 2)),
    "scan": lambda k, x: lax.scan(lambda c, one: (c + random.uniform(one, (3,)), None), x, random.split(k, 4))[0],
    "carried": lambda k, x: lax.fori_loop(
        0, 3, lambda i, s: (random.split(s[0])[0], s[1] + random.uniform(s[0], (3,))), (k, x)
    )[1],
}


@pytest.mark.parametrize("name", USES)
def test_public_keys_draw_what_jax_draws(name: str) -> None:
    """Words as before JAX had keys with a type, and keys with a type that are made of them."""
    use = USES[name]
    agrees(use, WORDS, X, visibility=["public", "secret"], units=64)
    if name == "uniform":
        agrees(lambda k, x: use(random.wrap_key_data(k), x), WORDS, X, visibility=["public", "secret"], units=64)


def test_keys_of_iterations() -> None:
    agrees(
        lambda x: lax.scan(lambda c, k: (c + random.uniform(k, (3,)), None), x, random.split(random.key(0), 3))[0],
        X,
        units=64,
    )
    agrees(lambda x: lax.fori_loop(0, 3, lambda i, c: c + random.uniform(random.fold_in(random.key(1), i), (3,)), x), X)


def test_constant_keys_cost_nothing() -> None:
    assert "xor" not in names(agrees(lambda x: x + random.normal(random.split(random.key(0))[0], (3,)), X))


def test_keys_as_arguments() -> None:
    f = spu.jit(lambda k, x: x + random.uniform(k, (3,)))
    key = random.key(1)
    want = X + np.asarray(random.uniform(key, (3,)))
    np.testing.assert_allclose(spu.reveal(f(spu.public(key), X)), want, atol=1e-5)
    assert f.cost(spu.public(key), X).rounds == 0
    with pytest.raises(UnsupportedError, match=r"test_random_keys.py:\d+.*not public: pass it as `spu.public"):
        f(key, X)
    with pytest.raises(UnsupportedError, match=r"result `out\[0\]` is a random key: return its words"):
        spu.jit(lambda k: (random.split(k)[0], 1))(spu.public(key))
