"""What NumPy folds while lowering has XLA's bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spuvm.compiler.lower import folded

EDGES = {
    "float32": [0.0, -0.0, 1.5, -2.25, 1e-7, 3e38, np.inf, -np.inf, np.nan, 7.0, 3.0, -1e-3],
    "float64": [0.0, -0.0, 1.5, -2.25, 1e-300, 3e307, np.inf, -np.inf, np.nan, 7.0, 3.0, -1e-3],
    "int32": [0, 1, -1, 2, 2**31 - 1, -(2**31), 7, -7, 3, 100, -100, 5],
    "uint8": [0, 1, 255, 2, 127, 128, 7, 200, 3, 100, 50, 5],
    "bool": [False, True] * 6,
}
FLOATS, NUMBERS = ("float32", "float64"), ("float32", "float64", "int32", "uint8")
WHOLE = ("int32", "uint8", "bool")
ONE: dict[Any, tuple[str, ...]] = {
    lax.neg: NUMBERS,
    lax.abs: (*FLOATS, "int32"),
    lax.is_finite: FLOATS,
    lax.sqrt: FLOATS,
    lax.floor: FLOATS,
    lax.ceil: FLOATS,
    lax.bitwise_not: WHOLE,
    lax.square: NUMBERS,
    (lambda x: lax.integer_pow(x, 2)): NUMBERS,
    (lambda x: lax.reshape(x, (3, 4))): NUMBERS,
    (lambda x: lax.rev(x, (0,))): NUMBERS,
    (lambda x: lax.slice(x, (1,), (11,), (3,))): NUMBERS,
    (lambda x: lax.transpose(x.reshape(3, 2, 2), (2, 0, 1))): NUMBERS,
    (lambda x: lax.squeeze(x.reshape(1, 12), (0,))): NUMBERS,
    (lambda x: lax.broadcast_in_dim(x, (3, 12, 2), (1,))): NUMBERS,
    (lambda x: jnp.sum(x.reshape(3, 4), 1, dtype=x.dtype)): ("int32", "uint8"),
    (lambda x: jnp.max(x.reshape(3, 4), 0)): NUMBERS,
    (lambda x: jnp.all(x)): ("bool",),
    **{(lambda x, d=d: lax.convert_element_type(x, d)): (*NUMBERS, "bool") for d in EDGES},
}
TWO: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((lax.add, lax.sub, lax.mul, lax.max, lax.min), NUMBERS),
    **dict.fromkeys((lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge), NUMBERS),
    **dict.fromkeys((lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor), WHOLE),
    lax.div: NUMBERS,
    (lambda x, y: lax.select(x < y, x, y)): NUMBERS,
    (lambda x, y: lax.concatenate((x, y, x), 0)): NUMBERS,
}


def folds(function: Any, *args: np.ndarray) -> list[np.ndarray]:
    """The function, each of its equations by `fold`."""
    closed = jax.make_jaxpr(function)(*args)
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts)) | dict(zip(jaxpr.invars, args))
    for eqn in jaxpr.eqns:
        operands = [np.asarray(v.val) if hasattr(v, "val") else env[v] for v in eqn.invars]
        env.update(zip(eqn.outvars, folded.fold(eqn, operands)))
    return [env[v] for v in jaxpr.outvars]


def same(a: Any, b: Any) -> bool:
    """Bit by bit, but that of NaN one is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    nan = np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.shape, bool)
    return bool((nan | ((a == b) & (np.signbit(a) == np.signbit(b)) if a.dtype.kind == "f" else a == b)).all())


@pytest.mark.parametrize("dtype", EDGES)
def test_the_bits_are_those_of_xla(dtype: str) -> None:
    x = np.array(EDGES[dtype], dtype)
    cases: list[tuple[Any, tuple[np.ndarray, ...]]] = [(f, (x,)) for f, types in ONE.items() if dtype in types]
    cases += [(f, (x, np.roll(x, by))) for f, types in TWO.items() for by in (0, 5) if dtype in types]
    with jax.enable_x64(True):
        right = jax.jit(lambda args: [f(*a) for (f, _), a in zip(cases, args)])([args for _, args in cases])
        for (function, args), wanted in zip(cases, right, strict=True):
            (found,) = folds(function, *args)
            assert same(found, wanted), (args, found, wanted)


def test_what_is_exact_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither are subnormal numbers and conversions beyond an integer's limits taken from NumPy."""
    asked = []
    real = jax.ensure_compile_time_eval

    def watched() -> Any:
        asked.append(1)
        return real()

    monkeypatch.setattr(jax, "ensure_compile_time_eval", watched)
    x = np.array([1.5, -2.0], np.float32)
    (found,) = folds(lambda x: (2 * x + 1).reshape(2, 1).astype(jnp.int32), x)
    assert found.tolist() == [[4], [-3]] and not asked
    folds(lambda x: x * 2, np.array([1e-40], np.float32))
    assert len(asked) == 1
    folds(lambda x: x.astype(jnp.int32), np.array([3e9], np.float32))
    assert len(asked) == 2
