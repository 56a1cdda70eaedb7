"""The shadow run: it names the line, the reason and the size of what went wrong, and nothing where nothing did."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spuvm as spu
from spuvm import cli
from spuvm.runtime.errors import EncodingError, InputError, RangeWarning, UnsupportedError

UNIT = 2.0**-18


def only(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The single finding, and at which line of the function's source it is."""
    report = spu.check(fn, *args, **options)
    assert not report.ok
    assert len(report.findings) == 1, str(report)
    (found,) = report.findings
    assert found.location.file.endswith("test_check.py")
    return found


def line_of(fn: Callable[..., Any], marker: str) -> int:
    """The line of the file where the function's source has a marker."""
    lines, first = inspect.getsourcelines(fn)
    return first + next(i for i, line in enumerate(lines) if marker in line)


# What a product of two numbers must be below, and a number.
RANGES = {32: (2.0**14, 2.0**22), 64: (2.0**26, 2.0**44), 128: (2.0**74, 2.0**100)}


@pytest.mark.parametrize("ring", RANGES)
def test_ranges_of_rings(ring: int) -> None:
    """Products, numbers and quotients: fine below the limits of a ring, found beyond them, by the limit's name."""
    product, number = RANGES[ring]
    root = np.float64(np.sqrt(product))
    with jax.enable_x64(True):
        assert spu.check(lambda x: x * x, root * 0.99, ring=ring).ok
        found = only(lambda x: x * x, root * 1.01, ring=ring)
        assert (found.why, found.operation) == ("range", "mul")
        assert f"the ring holds {product:.3g}" in found.reason
        found = only(lambda x: x * 3, np.float64(number * 0.99), ring=ring)
        assert (found.why, f"below {number:.3g}" in found.reason) == ("range", True)
        large = np.float64(number * 0.99)
        assert spu.check(lambda x, y: (x / y, x / 7, x - y), large, np.float64(3), ring=ring, rtol=2.0**-7).ok
        found = only(lambda x, y: x / y, large, np.float64(0.25), ring=ring)
        assert (found.why, found.operation) == ("range", "div")


def test_a_product_that_leaves_the_ring() -> None:
    def fn(x: Any, y: Any) -> Any:
        a = x + y
        b = a * y  # here
        return jnp.sum(b) / 100

    found = only(fn, np.array([3.0, 3e4]), np.array([1.0, 2e4]))
    assert found.location.line == line_of(fn, "# here")
    assert (found.operation, found.why, found.elements, found.size) == ("mul", "range", 1, 2)
    assert found.index == (1,)
    assert found.expected == 1e9
    assert abs(found.got - found.expected) == found.error
    assert "1e+09" in found.reason and "6.71e+07" in found.reason


def test_a_result_that_does_not_fit() -> None:
    found = only(lambda x: jnp.exp(x), np.array([35.0, 1.0]))
    assert (found.operation, found.why) == ("exp", "range")
    assert found.got == pytest.approx(2.0**44)


def test_a_sum_of_products() -> None:
    assert only(lambda x: x @ x, np.full(500_000, 100.0)).operation == "dot_general"
    assert spu.check(lambda x: x @ x / 500_000, np.full(5_000, 100.0)).ok


def test_products_that_are_truncated_together() -> None:
    """Each fits by itself; the improved program truncates their sum."""

    def fn(x: Any, y: Any) -> Any:
        return x * x + y * y + x * y  # here

    x = np.array([8100.0])
    found = only(fn, x, x)
    assert found.location.line == line_of(fn, "# here")
    assert found.why == "range"
    assert "truncated together" in found.reason
    with pytest.warns(RangeWarning, match="numbers leave the ring"):
        got = spu.reveal(spu.jit(fn)(x, x))
    assert abs(got[0] - 3 * 8100.0**2) > 1e6  # the real protocol agrees that it is wrong
    assert spu.check(fn, x / 2, x / 2).ok


@pytest.mark.parametrize(
    ("fn", "operation"),
    [
        (lambda x: jnp.log(x - 3.0), "log"),
        (lambda x: jnp.sqrt(x - 3.0), "sqrt"),
        (lambda x: 1.0 / (x - 1.0), "div"),
        (lambda x: lax.rsqrt(x - 1.0), "rsqrt"),
    ],
)
def test_outside_of_the_domain(fn: Any, operation: str) -> None:
    found = only(fn, np.array([1.0, 5.0]))
    assert (found.operation, found.why, found.elements, found.index) == (operation, "domain", 1, (0,))
    assert not np.isfinite(found.expected)


def test_too_few_units_are_found_where_they_arise() -> None:
    """1/x is wrong by less than a unit; that shows only when it is multiplied."""

    def fn(x: Any) -> Any:
        y = 1 / x  # here
        z = y + 0.0
        return z * 1e4

    found = only(fn, np.array([3.0, 2e5]))
    assert found.location.line == line_of(fn, "# here")
    assert (found.why, found.operation, found.index) == ("precision", "div", (1,))
    assert found.error < UNIT
    assert "1.3 units" in found.reason
    assert spu.check(fn, np.array([3.0, 200.0])).ok


def test_a_difference_of_near_numbers() -> None:
    def fn(a: Any, b: Any) -> Any:
        d = a - b  # here
        return d * 1e5

    found = only(fn, np.array([1000.00001]), np.array([1000.0]))
    assert found.location.line == line_of(fn, "# here")
    assert (found.why, found.reason) == ("precision", "a small difference of large numbers")


def test_an_input_of_a_few_units() -> None:
    found = only(lambda x: x * 1e5, np.array([1.3e-5]))
    assert (found.operation, found.why) == ("input x", "precision")


def test_comparisons_that_turn_out_differently() -> None:
    found = only(lambda x: jnp.where(x > 1.0, 1.0, 0.0), np.array([1.0 + 1e-7, 1.0]))
    assert (found.operation, found.why, found.index) == ("gt", "precision", (0,))


@pytest.mark.parametrize("secret", [True, False])
def test_loops_name_the_iteration(secret: bool) -> None:
    def fn(x: Any, n: Any) -> Any:
        def body(state: Any) -> Any:
            i, c = state
            return i + 1, c * c * 2.0  # here

        trips = 6 if secret else n
        return lax.while_loop(lambda s: s[0] < trips, body, (0, x))[1]

    found = only(fn, np.array([1.5, 0.1]), spu.public(np.int32(6)))
    assert found.location.line == line_of(fn, "# here")
    assert (found.why, found.operation, found.iteration, found.index) == ("range", "mul", (4,), (0,))


def test_scans_and_branches() -> None:
    def fn(x: Any, i: Any) -> Any:
        def step(c: Any, row: Any) -> Any:
            return c + row, lax.switch(i, [jnp.sin, lambda r: jnp.log(r)], row)

        return lax.scan(step, jnp.zeros(2), x, reverse=True)

    x = np.array([[1.0, 2.0], [-1.0, 3.0], [4.0, 5.0]])
    for index in (np.int32(1), spu.public(np.int32(1))):
        found = only(fn, x, index)
        assert (found.operation, found.why, found.iteration) == ("log", "domain", (1,))
    for index in (np.int32(0), spu.public(np.int32(0))):
        assert spu.check(fn, x, index).ok


def test_integers_that_overflow() -> None:
    found = only(lambda x: x * 100_000, np.array([1, 50_000], np.int32))
    assert (found.why, found.expected, found.got) == ("range", 5_000_000_000, 705_032_704)
    assert "int32" in found.reason
    assert spu.check(lambda x: (x * 3 + 1) // 7, np.array([1, 50_000], np.int32)).ok
    with jax.enable_x64(True):
        found = only(lambda x: x * x, np.array([2**33], np.int64))
        assert found.expected == 2.0**66


def test_unsigned_integers_may_wrap() -> None:
    def hashed(u: Any) -> Any:
        return (u * jnp.uint32(2654435761)) ^ (u << 3)

    assert spu.check(hashed, np.array([1, 2**31 + 5], np.uint32)).ok


def test_what_a_where_drops_is_a_note() -> None:
    report = spu.check(lambda x: jnp.where(x > 0, jnp.log(x), 0.0), np.array([-1.0, 2.0]))
    assert report.ok
    assert not report.findings
    assert [(n.operation, n.why) for n in report.notes] == [("log", "domain")]
    assert "without effect" in str(report)


def test_a_clean_program_says_how_near_it_was() -> None:
    def fn(x: Any, y: Any) -> Any:
        return jnp.mean(jax.nn.sigmoid(x @ y)), jnp.argmax(y), y > 0

    rng = np.random.default_rng(0)
    report = spu.check(fn, rng.normal(size=(5, 3)), rng.normal(size=3))
    assert report.ok
    assert not report.findings and not report.notes
    assert report.largest is not None
    assert 0 < report.largest.error < 10 * UNIT
    assert set(report.results) == {"out[0]", "out[1]", "out[2]"}
    text = str(report)
    assert "all fine: largest deviation" in text and "test_check.py:" in text
    assert "in the clear" in text


def test_every_family_has_a_truth() -> None:
    """Eigenvectors, sorting, indexing, gradients, inner functions: nothing parts."""

    def fn(a: Any, i: Any) -> Any:
        @jax.jit
        def inner(x: Any) -> Any:
            return jnp.sort(x, axis=0), jnp.cumsum(x), x[x[:, 0].argmin()]

        vectors = jnp.linalg.eigh(a @ a.T)[1]
        gradient = jax.grad(lambda x: (jnp.tanh(x) * jax.nn.softmax(x)).sum())(a)
        parts = lax.cond(a[0, 0] > 0, lambda x: x * 2, lambda x: jnp.sqrt(x), jnp.abs(a))
        return inner(a), vectors, gradient, parts, a.at[i].add(1.0)

    a = np.random.default_rng(1).normal(size=(2, 2))
    report = spu.check(fn, a, np.int32(1))
    assert report.ok, str(report)


def test_flax_and_private_inputs_and_the_users_line() -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.Dense(4)(x))
            return nn.LayerNorm()(x * self.scale)  # here

        scale: float = 1.0

    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    parameters = Model().init(jax.random.key(0), x)
    assert spu.check(lambda p, x: Model().apply(p, x), spu.private(parameters, "party1"), spu.public(x)).ok
    found = only(lambda p, x: Model(scale=1e6).apply(p, x), parameters, x)
    assert found.location.line == line_of(Model, "# here")
    assert found.why == "range"


def test_configurations_and_refusals() -> None:
    coarse = spu.jit(lambda x: x * x, fxp_fraction_bits=8, protocol="semi2k", world_size=2)
    assert not spu.check(coarse, np.array([0.01]), rtol=1e-2, atol=1e-6).ok
    assert spu.check(coarse, np.array([3e6])).ok
    assert not spu.check(lambda x: x * x, np.array([3e6])).ok
    assert spu.check(lambda n, x: x**n, 3, np.array([2.0]), static_argnums=0).ok
    with pytest.raises(EncodingError, match="`x`"):
        spu.check(lambda x: x, np.array([np.nan]))
    with pytest.raises(UnsupportedError, match=r"test_check\.py"):
        spu.check(lambda x: jnp.nextafter(x, 2.0), np.array([1.0]))
    with pytest.raises(InputError, match="in the clear"):
        spu.check(lambda x: x, spu.jit(lambda x: x)(1.0))


PROGRAM = """
import jax.numpy as jnp

def ratio(x, y):
    total = x * y
    return jnp.sum(total) / jnp.sum(y)
"""


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "stats.py"
    source.write_text(PROGRAM)
    for name, values in {"small": "1.5\n2.5\n", "large": "30000.5\n20000.5\n"}.items():
        (tmp_path / f"{name}.csv").write_text("v\n" + values)

    def run(name: str, *more: str) -> int:
        data = tmp_path / f"{name}.csv"
        inputs = ["--input", f"x={data}:v@alice", "--input", f"y={data}:v@bob"]
        return cli.run(["run", f"{source}:ratio", "--check", *inputs, "--reveal", "all", *more])

    assert run("small") == 0
    assert "ratio: all fine" in capsys.readouterr().out
    assert run("large") == 4
    out = capsys.readouterr().out
    assert "stats.py:5" in out and "range" in out
