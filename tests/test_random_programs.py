"""Programs made at random of products, comparisons, choices, sorts, loops and branches: the values that JAX gives.

Inputs are multiples of 1/4 and products nest twice at most, so that nothing has more than the fraction's bits:
truncations are exact then, and so is every result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spuvm as spu

Step = Callable[[Any, Any], Any]

# Of two rows; none makes more fraction bits than it is given, but for `LONGER`, which doubles them.
STEPS: dict[str, Step] = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - 2 * y,
    "chosen": lambda x, y: jnp.where(x < y, y - 1, x),
    "absolute": lambda x, y: jnp.abs(x) - y,
    "largest": lambda x, y: jnp.maximum(x, jnp.flip(y)),
    "sorted": lambda x, y: jnp.sort(x) + y,
    "rounded": lambda x, y: jnp.floor(x) + y,
    "total": lambda x, y: jnp.cumsum(x) - y[0],
    "equal": lambda x, y: (x == y).astype(np.float32) + x,
    "loop": lambda x, y: jax.lax.fori_loop(0, 2, lambda i, c: jnp.where(c > y, c - y, c + i), x),
    "scan": lambda x, y: jax.lax.scan(lambda c, v: (c + v, jnp.minimum(c, v)), x[0], y)[1],
    "branch": lambda x, y: jax.lax.cond(spu.reveal(x[0] > y[1]), jnp.sort, lambda v: v + 1, x),
    "while": lambda x, y: jax.lax.while_loop(lambda c: spu.reveal(c[0] < 0), lambda c: c + 4, x) - y,
}
LONGER: dict[str, Step] = {
    "product": lambda x, y: x * y,
    "square": lambda x, y: x * x - y,
    "inner": lambda x, y: x + jnp.dot(x, y),
    "select": lambda x, y: jnp.where(x * y > x, x, y),
}
PROTOCOLS = ("aby3", "semi2k")


def made(names: list[str], order: list[bool]) -> Callable[[Any, Any], Any]:
    """Each step takes the last row and one before it, in either order."""

    def program(x: Any, y: Any) -> Any:
        rows = [x, y]
        for name, turned in zip(names, order, strict=True):
            step = (STEPS | LONGER)[name]
            rows.append(step(rows[-2], rows[-1]) if turned else step(rows[-1], rows[-2]))
        return rows[-1], rows[-2]

    return program


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[str], list[bool]]:
    names = draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3))
    for longer in draw(st.lists(st.sampled_from(sorted(LONGER)), max_size=2)):
        names.insert(draw(st.integers(0, len(names))), longer)
    return names, draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))


ROWS = st.lists(st.integers(-8, 8), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32) / 4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(programs(), ROWS, ROWS)
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_values_that_jax_gives(protocol: str, program: tuple[list[str], list[bool]], x: Any, y: Any) -> None:
    function = made(*program)
    for got, want in zip(spu.reveal(spu.jit(function, protocol=protocol)(x, y)), function(x, y), strict=True):
        np.testing.assert_array_equal(got, np.asarray(want))


@pytest.mark.parametrize("name", STEPS | LONGER)
def test_every_step_alone(name: str) -> None:
    """What programs are made of is right, so that one that is not is wrong by how they are joined."""
    x, y = np.array([-1.5, 0.25, 2], np.float32), np.array([0.5, 0.25, -1], np.float32)
    step = (STEPS | LONGER)[name]
    np.testing.assert_array_equal(spu.reveal(spu.jit(step)(x, y)), np.asarray(step(x, y)))
