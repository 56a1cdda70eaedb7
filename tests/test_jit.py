"""`spu.jit` and SPUObject, as a user meets them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import spuvm as spu
from spuvm.runtime.errors import (
    CompileError,
    ConfigError,
    EncodingError,
    InputError,
    UnsupportedError,
    VisibilityError,
)

V = np.array([1.5, -2.0, 0.25, 4.0], np.float32)
W = np.array([2.0, 3.0, -1.0, 0.5], np.float32)


def plain(fn: Any, **options: Any) -> Any:
    """No protocol to compile: what is tested here does not depend on it."""
    return spu.jit(fn, protocol="ref2k", **options)


def close(got: Any, want: Any, units: float = 4) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), atol=units * 2.0**-18)


def secret(x: Any) -> Any:
    """An object to work on."""
    return plain(lambda x: x)(x)


# The introduction -------------------------------------------------------------------------------------------


def test_the_introduction() -> None:
    @spu.jit
    def mean(a: Any, b: Any, c: Any) -> Any:
        return (a + b + c) / 3

    r = mean(5000.0, 6000.0, 7000.0)
    assert repr(r) == "<SPUObject float32[] secret aby3/64>"
    assert spu.reveal(r) == 6000.0
    assert r.reveal() == 6000.0
    assert isinstance(spu.reveal(r), np.float32)


@pytest.mark.parametrize("divisor", [3, 7.0, -10, 1000])
def test_division_by_a_public_number_is_correctly_rounded(divisor: float) -> None:
    x = np.array([5000, 1, -1, 22, 100000.5, -3.75, 0], np.float32)
    got = spu.reveal(spu.jit(lambda x: x / divisor)(x))
    raw = np.rint(np.rint(x.astype(np.float64) * 2**18) / divisor) / 2**18
    np.testing.assert_array_equal(got, raw.astype(np.float32))


# Pytrees and arguments -------------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: Any
    y: Any


def test_pytrees_in_and_out() -> None:
    def fn(data: Any, point: Point) -> Any:
        return {"sum": data["a"] + data["b"][0], "points": [point, Point(point.y, None)], "n": (3,)}

    out = plain(fn)({"a": V, "b": (W, 1.0)}, Point(2.0, V))
    assert set(out) == {"sum", "points", "n"}
    assert isinstance(out["points"][0], Point)
    assert out["points"][1].y is None
    shown = spu.reveal(out)
    close(shown["sum"], V + W)
    close(shown["points"][0].x, 2.0)
    assert shown["n"] == (3,)


def test_reveal_leaves_other_things_alone() -> None:
    out = spu.reveal({"a": secret(V), "b": 3, "c": "text", "d": None})
    close(out["a"], V)
    assert (out["b"], out["c"], out["d"]) == (3, "text", None)


def test_keyword_arguments_are_positional_ones() -> None:
    fn = plain(lambda x, y: x - 2 * y)
    close(spu.reveal(fn(V, y=W)), V - 2 * W)
    close(spu.reveal(fn(y=W, x=V)), V - 2 * W)


@pytest.mark.parametrize("positions", [1, (1,), -1])
def test_static_arguments(positions: Any) -> None:
    fn = plain(lambda x, n: x**n if n else x, static_argnums=positions)
    close(spu.reveal(fn(V, 2)), V * V)
    close(spu.reveal(fn(V, 0)), V)
    text = spu.jit(lambda x, how: x + 1 if how == "up" else x - 1, protocol="ref2k", static_argnums=1)
    close(spu.reveal(text(V, "up")), V + 1)
    close(spu.reveal(text(V, "down")), V - 1)


def test_static_arguments_of_different_types_are_different() -> None:
    fn = plain(lambda x, n: x * 2 if n is True else x * 3 if isinstance(n, float) else x * 5, static_argnums=1)
    assert [float(spu.reveal(fn(np.float32(1), n))) for n in (1, True, 1.0)] == [5, 2, 3]


def test_static_arguments_must_be_hashable() -> None:
    with pytest.raises(InputError, match="hashable"):
        plain(lambda x, n: x, static_argnums=1)(V, [1])


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(InputError, match="str"):
        plain(lambda x: x)("text")


def test_the_decorator_keeps_name_and_documentation() -> None:
    @spu.jit(protocol="ref2k")  # type: ignore[untyped-decorator]
    def documented(x: Any) -> Any:
        """What it does."""
        return x

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "What it does."
    assert "documented" in repr(documented)


# Visibility --------------------------------------------------------------------------------------------------------


def test_marks() -> None:
    fn = spu.jit(lambda x, y: (x, y, x + y))
    for marks, who in (
        ((spu.public(V), spu.public(W)), ("public", "public", "public")),
        ((spu.private(V, owner="party1"), spu.public(W)), ("private(party1)", "public", "private(party1)")),
        ((spu.private(V, owner="party1"), spu.secret(W)), ("private(party1)", "secret", "secret")),
        ((V, spu.private(W, owner="party0")), ("secret", "private(party0)", "secret")),
    ):
        out = fn(*marks)
        assert tuple(o.visibility for o in out) == who
        close(spu.reveal(out)[2], V + W)


def test_marks_apply_to_every_array_of_a_pytree() -> None:
    out = plain(lambda d: d)(spu.public({"a": V, "b": [1, 2.0]}))
    assert {o.visibility for o in jax.tree.leaves(out)} == {"public"}


def test_an_unknown_owner_is_refused() -> None:
    with pytest.raises(InputError, match=r"`owner` must be one of .*party0.*, got 'eve'"):
        spu.jit(lambda x: x)(spu.private(V, owner="eve"))


def test_reveal_inside() -> None:
    fn = spu.jit(lambda x: (spu.reveal(jnp.sum(x)), spu.reveal(x, to="party2")))
    total, mine = fn(V)
    assert total.visibility == "public"
    assert mine.visibility == "private(party2)"
    assert total.known_value() == V.sum()
    close(mine.known_value(), V)


def test_reveal_to_a_party_from_outside() -> None:
    out = spu.jit(lambda x: x)(V).to("party1")
    assert out.visibility == "private(party1)"
    close(spu.reveal(out), V)
    with pytest.raises(ConfigError, match="must be one of"):
        out.to("eve")


def test_names_of_parties() -> None:
    fn = spu.jit(lambda x, y: x + y, parties=("alice", "bob", "carol"))
    close(spu.reveal(fn(spu.private(V, owner="alice"), spu.private(W, owner="carol"))), V + W)


# Objects -----------------------------------------------------------------------------------------------------------


def test_objects_pass_through_without_sharing_them_again() -> None:
    first = spu.jit(lambda x: (x, x * 2))
    x, _ = first(V)
    again, y = first(x)
    for a, b in zip(x.components, again.components, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    close(spu.reveal(y), V * 2)
    assert not first.cost(x).bytes_sent.any()


def test_shape_dtype_and_readiness() -> None:
    x = secret(np.zeros((2, 3), np.float32))
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), np.float32, 2, 6, 2)
    assert x.block_until_ready() is x
    jax.block_until_ready([x])
    with pytest.raises(TypeError, match="scalar"):
        len(secret(1.0))


def test_printing_shows_no_value() -> None:
    x = spu.jit(lambda x: x)(np.array([123456.0, 654321.0], np.float32))
    for text in (repr(x), str(x), f"{x}", repr([x]), repr({"a": x})):
        assert "123456" not in text
        assert "654321" not in text
        assert "<SPUObject float32[2] secret aby3/64>" in text


@pytest.mark.parametrize(
    "turn", [bool, float, int, complex, np.asarray, np.array, lambda x: [1, 2, 3][x], lambda x: 1 if x else 0]
)
def test_python_gets_no_value_out_of_an_object(turn: Callable[..., Any]) -> None:
    with pytest.raises(VisibilityError, match="reveal"):
        turn(secret(1.0))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "@": lambda x, y: x @ y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    fn = OPERATORS[name]
    want = fn(V, W)
    for x, y in ((secret(V), secret(W)), (secret(V), W), (V, secret(W)), (jnp.asarray(V), secret(W))):
        out = fn(x, y)
        assert isinstance(out, spu.SPUObject)
        assert out.visibility == "secret"
        close(spu.reveal(out), want, 16)


def test_operators_with_python_numbers_and_of_one_operand() -> None:
    x = secret(V)
    for got, want in (
        (2 * x - 1, 2 * V - 1),
        (1 / (x + 3), 1 / (V + 3)),
        (-x, -V),
        (abs(x), abs(V)),
        (x**2, V**2),
        (x**3.0, V**3),
        (2.0**x, 2.0**V),
        (x.T, V.T),
    ):
        close(spu.reveal(got), want, 64)
    n = secret(np.array([5, -6, 7], np.int32))
    for got, integers in ((n & 3, [1, 2, 3]), (n | 8, [13, -6, 15]), (n ^ 1, [4, -5, 6]), (~n, [-6, 5, -8])):
        assert spu.reveal(got).tolist() == integers
    assert spu.reveal(secret(np.array([True, False])) & True).tolist() == [True, False]


def test_indexing() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = secret(a)
    for index in (0, -1, (1, 2), slice(1, 3), (slice(None), 1), (Ellipsis, slice(None, None, 2)), (None, 0)):
        close(spu.reveal(x[index]), a[index])
    rows = np.array([2, 0, 2])
    close(spu.reveal(x[rows]), a[rows])
    close(spu.reveal(x[jnp.asarray(rows)]), a[rows])
    close(spu.reveal(x[(rows, 1)]), a[rows, 1])
    close(spu.reveal(x[[0, 1], ..., rows[:2]]), a[[0, 1], ..., rows[:2]])
    mask = np.array([True, False, True])
    close(spu.reveal(x[mask]), a[mask])
    close(spu.reveal(x[mask, 2:]), a[mask, 2:])


def test_long_indices_are_told_apart() -> None:
    """Their text leaves out the middle, where they differ."""
    a = np.arange(3000, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    x = secret(a)
    first = np.arange(3000)
    second = first.copy()
    second[1500] = 7
    for rows in (first, second):
        close(spu.reveal(x[(rows, 0)]), a[rows, 0])


def test_objects_of_another_configuration_are_refused() -> None:
    x = spu.jit(lambda x: x, fxp_fraction_bits=20)(V)
    with pytest.raises(InputError, match="another machine"):
        spu.jit(lambda x: x)(x)


# dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "bfloat16", "float32"]
)
def test_dtypes(dtype: str) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    x = np.array([0, 1, 1, 0] if dtype == "bool" else [0, 1, 5, 100]).astype(kind)
    out = plain(lambda x: (x, jnp.flip(x)))(x)
    shown = spu.reveal(out)
    assert out[0].dtype == kind
    assert shown[0].dtype == kind
    np.testing.assert_array_equal(shown[0], x)
    np.testing.assert_array_equal(shown[1], x[::-1])


def test_results_have_the_dtypes_of_jax() -> None:
    def fn(x: Any, n: Any) -> Any:
        return x * n, n / 2, n // 2, x > 1, n + 1.5, jnp.sum(n), n.astype(jnp.uint8), jnp.argmax(x)

    n = np.array([1, 2, 3, 4], np.int32)
    out = plain(fn)(V, n)
    want = jax.tree.map(lambda x: x.dtype, jax.eval_shape(fn, V, n))
    assert tuple(o.dtype for o in out) == want
    for got, value in zip(spu.reveal(out), jax.jit(fn)(V, n), strict=True):
        assert got.dtype == value.dtype
        close(got, value)


def test_sixty_four_bits_as_the_user_set_them() -> None:
    """As in JAX itself: without x64 a float64 array is a float32 one, with it it is not."""
    x = np.array([1.0, 2.5]), np.array([2**40, -3])
    fn = plain(lambda x, n: (x * 2, n + 1))
    with jax.enable_x64(False):
        out = fn(x[0], x[1].astype(np.int32))
        assert [o.dtype for o in out] == [np.float32, np.int32]
        assert spu.reveal(out)[0].dtype == np.float32
    with jax.enable_x64(True):
        out = fn(*x)
        assert [o.dtype for o in out] == [np.float64, np.int64]
        assert spu.reveal(out)[1].tolist() == [2**40 + 1, -2]
    shown = spu.reveal(out)  # whatever the setting is by then
    assert [o.dtype for o in shown] == [np.float64, np.int64]


def test_importing_changes_nothing_in_jax() -> None:
    code = (
        "import jax, numpy as np; before = dict(jax.config.values)\n"
        "import spuvm as spu\n"
        "assert dict(jax.config.values) == before\n"
        "f = spu.jit(lambda x: x + 1, protocol='ref2k')\n"
        "assert spu.reveal(f(1.0)) == 2\n"
        "assert dict(jax.config.values) == before\n"
        "assert jax.numpy.asarray(np.zeros(3)).dtype == np.float32\n"
        "print('same')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "same", done.stderr


unheard_of_p: Any = jax.extend.core.Primitive("unheard_of")
unheard_of_p.def_abstract_eval(lambda x: x)


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 2.0**44, -(2.0**44)])
@pytest.mark.parametrize("mark", [lambda x: x, spu.public, lambda x: spu.private(x, owner="party0")])
def test_numbers_that_the_ring_cannot_hold(bad: float, mark: Callable[..., Any]) -> None:
    fn = spu.jit(lambda x, y: x + y)
    with pytest.raises(EncodingError, match=r"`y` has 1 of 2 elements .* below 1\.75922e\+13"):
        fn(V[:2], mark(np.array([1.0, bad], np.float32)))


def test_another_shape_is_another_program_and_a_bad_one_is_an_error() -> None:
    fn = plain(lambda x, y: x + y)
    close(spu.reveal(fn(V, W)), V + W)
    with pytest.raises((TypeError, ValueError)):
        fn(V, W[:3])


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (lambda x: jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: c + 1, x), VisibilityError, "condition"),
        (lambda x: unheard_of_p.bind(x), UnsupportedError, "unheard_of"),
        (lambda x: jnp.linalg.eigvals(jnp.outer(x, x)), CompileError, "eigh"),
    ],
)
def test_what_cannot_be_compiled_names_the_line(fn: Callable[..., Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        spu.jit(fn).compile(V)
    assert "test_jit.py" in str(caught.value)


def test_if_on_a_secret_names_the_line_and_the_way_out() -> None:
    with pytest.raises(VisibilityError, match=r"test_jit\.py:\d+: .*jnp\.where"):
        spu.jit(lambda x: x if x.sum() > 0 else -x)(V)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "bgw"}, "`protocol` must be one of"),
        ({"ring": 48}, "`ring` must be one of"),
        ({"world_size": 2}, "runs among 3 parties, got 2"),
        ({"fxp_fraction_bits": 40}, "`fxp_fraction_bits` must be between"),
        ({"parties": ("a", "b", "a")}, "different names"),
    ],
)
def test_configurations_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spu.jit(lambda x: x, **options)


# Compilation ----------------------------------------------------------------------------------------------------------


def test_tracing_again_only_when_needed() -> None:
    traces = []

    def fn(x: Any, n: Any) -> Any:
        traces.append(x.shape)
        return x * n

    jitted = plain(fn, static_argnums=1)
    assert len(traces) == 0
    jitted(V, 2)
    once = len(traces)
    for x in (W, jnp.asarray(V), spu.secret(W), jitted(V, 2)):
        jitted(x, 2)
    jitted.cost(jax.ShapeDtypeStruct((4,), np.float32), 2)
    assert len(traces) == once
    for count, args in enumerate([(V, 3), (V[:2], 2), (V.astype(np.int32), 2), (spu.public(V), 2)], 2):
        jitted(*args)
        assert len(traces) == count * once


def test_compile_gives_the_program_and_runs_nothing() -> None:
    jitted = spu.jit(lambda x, y: x * y)
    program = jitted.compile(V, W)
    assert program is jitted.compile(W, V)
    assert "mul" in program.text
    assert len(program.hash) == 64
    for stage, word in (("jaxpr", " mul "), ("ir", "mul"), ("choreography", "mul_trunc_aa"), ("stages", "party2")):
        assert word in program.emit(stage)
    with pytest.raises(InputError, match="`emit` must be one of"):
        program.emit("assembly")


def test_a_saved_program_is_the_same_program(tmp_path: Any) -> None:
    program = spu.jit(lambda x, y: x * y + 1).compile(V, W)
    program.save(tmp_path / "f.spux")
    loaded = spu.load(tmp_path / "f.spux")
    assert loaded.hash == program.hash
    assert loaded.text == program.text
    assert loaded.cost.as_dict() == program.cost.as_dict()


def test_more_fraction_bits_are_more_precise() -> None:
    x = np.float32(1 / 3)
    errors = [
        abs(float(spu.reveal(spu.jit(lambda x: x * x, protocol="ref2k", fxp_fraction_bits=f)(x))) - 1 / 9)
        for f in (8, 18, 24)
    ]
    assert errors[0] > errors[1] > errors[2]
