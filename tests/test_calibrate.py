"""Scales fitted to a sample: what small numbers gain, what is agreed on, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm import cli
from spuvm.compiler.compile import load
from spuvm.compiler.ir import text
from spuvm.runtime.errors import EncodingError, InputError, RangeWarning

FILE = """
import jax.numpy as jnp
def fn(x, y):
    return jnp.sum((x * 1e-4 * y) ** 2) * 1e6
"""


def small(x: Any, y: Any) -> Any:
    """Squares of 1e-6: below the unit, until a factor makes them large again."""
    b = x * 1e-4 * y
    return jnp.sum(b * b) * 1e6, b


def data(seed: int, n: int = 20) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n).astype(np.float32), rng.normal(0, 1e-2, n).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return spu.jit(small).calibrate(*data(0))


def test_small_numbers_keep_their_digits(fitted: Any) -> None:
    """On other data than the sample's."""
    x, y = data(1)
    want = [np.asarray(v) for v in small(x.astype(np.float64), y.astype(np.float64))]
    errors = [[np.abs(got - true).max() / np.abs(true).max() for got, true in zip(spu.reveal(f(x, y)), want)]
              for f in (spu.jit(small), fitted)]  # fmt: skip
    assert min(errors[0]) > 0.5
    assert max(errors[1]) < 1e-3


def test_check_says_what_is_gained(fitted: Any) -> None:
    x, y = data(2)
    report = spu.check(fitted, x, y)
    (squares,) = [key for key in report.lines if key[1] == "reduce_sum"]
    assert report.before[squares] > 0.5 and report.lines[squares] < 1e-3
    assert all(report.lines[key] <= error + 1e-6 for key, error in report.before.items())
    assert "relative error before" in str(report) and "test_calibrate.py:" in str(report)
    assert not spu.check(small, x, y).before


def test_ranges_are_part_of_what_is_agreed_on(fitted: Any) -> None:
    """Listed, in the text, which reads back, and in the hash."""
    x, y = data(0)
    assert re.search(r"x  input  2\^-\d to 2\^2\n", str(fitted.ranges))
    program, plain = fitted.compile(x, y), spu.jit(small).compile(x, y)
    assert "\nranges [" in program.text and "ranges" not in plain.text
    assert text.parse(program.text).ranges == program.module.ranges
    assert len({program.hash, plain.hash, spu.jit(small).calibrate(x * 64, y).compile(x, y).hash}) == 3
    row = next(r for r in fitted.scales(x, y).rows if r.operation == "sum")
    assert row.fraction_bits > 40 and row.proved


def test_what_a_sample_does_not_cover_is_refused(fitted: Any) -> None:
    x, y = data(0)
    with pytest.raises(EncodingError, match="`x` has numbers that are not below its bound"):
        fitted(x * 50, y)
    with pytest.raises(InputError, match="calibrated for arguments of other shapes"):
        fitted(x[:3], y[:3])
    with pytest.raises(InputError, match="computes in the clear"):
        fitted.calibrate(spu.jit(lambda v: v)(x), y)


def test_shared_objects_come_in_as_they_are(fitted: Any) -> None:
    x, y = data(1)
    shared = spu.jit(lambda v: v * 1.0)(x)
    got = spu.reveal(fitted(shared, y)[1])
    np.testing.assert_allclose(got, x.astype(np.float64) * 1e-4 * y, atol=2e-9)


def test_on_devices_whoever_owns_the_arguments() -> None:
    """One sample for all: arguments of parties, shared objects, what everybody knows; pytrees and static ones."""

    def scaled(given: Any, power: int) -> Any:
        return given["x"] * 1e-4 * given["y"] * 10.0**power

    x, y = data(1)
    spu.init(parties=["alice", "bob", "carol"], address="local")
    try:
        device = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
        alice, bob = spu.PYU("alice"), spu.PYU("bob")
        f = device(scaled, static_argnums=1).calibrate(dict(zip("xy", data(0))), 3)
        for given in (
            {"x": alice(lambda: x)(), "y": bob(lambda: y)()},
            {"x": alice(lambda: x)().to(device), "y": y},
        ):
            np.testing.assert_allclose(spu.reveal(f(given, 3)), x.astype(np.float64) * 0.1 * y, rtol=1e-3, atol=1e-7)
        assert f.scales(given, 3).rows and "to 2^" in str(f.ranges)
        with pytest.raises(InputError, match="not objects of devices"):
            f.calibrate(given, 3)
    finally:
        spu.shutdown()


def test_zeros_loops_and_guards() -> None:
    """A sample of zeros says nothing; numbers of all iterations count; a guard goes with it."""
    zeros = spu.jit(lambda v: v * 0.5).calibrate(np.zeros(3, np.float32))
    np.testing.assert_allclose(spu.reveal(zeros(np.full(3, 8.0, np.float32))), 4.0)

    def decayed(x: Any) -> Any:
        for _ in range(4):
            x = x * 0.01
        return x * 1e6

    x = np.array([3.0, -1.0], np.float32)
    f = spu.jit(decayed, guard=True).calibrate(x)
    np.testing.assert_allclose(spu.reveal(f(x)), decayed(x.astype(np.float64)), rtol=1e-3)


def test_a_program_is_calibrated_on_the_command_line(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(FILE)
    x, y = data(0)
    np.savez("sample.npz", x=x, y=y)
    np.savez("short.npz", x=x)
    command = ["compile", "f.py:fn", "--arg", "f32[20]@alice", "--arg", "f32[20]@bob", "-o", "f.spux"]
    assert cli.run([*command, "--calibrate", "sample.npz", "--guard"]) == 0
    said = capsys.readouterr().err
    assert (
        "fitted to the ranges of a sample" in said
        and "whether a number left what the ring holds, to everyone: f.py" in said
    )
    program = load("f.spux")
    assert ("input x", 2) in [(what, high) for what, _, high in program.module.ranges]
    assert cli.run([*command, "--calibrate", "short.npz", "--force"]) == 2
    assert "the sample has x; the function takes x, y" in capsys.readouterr().err
    np.save("x.npy", x * 50)
    np.save("y.npy", y)
    assert cli.run(["run", "f.spux", "--input", "x=x.npy@alice", "--input", "y=y.npy@bob"]) != 0
    assert "`x` has numbers that are not below its bound" in capsys.readouterr().err


def test_a_sample_beyond_the_ring_is_said() -> None:
    """Squares of 10,000 are more than a ring of 64 bits holds: calibrating cannot mend that."""
    sample = np.array([-10000.0, 9000.0], np.float32)
    found = spu.jit(lambda g: g / jnp.sqrt(jnp.sum(g * g))).calibrate(sample)
    with pytest.warns(RangeWarning, match=r"the sample has numbers that the ring does not hold, at .*\(product\)"):
        found(sample)
    table = str(found.scales(sample))
    assert "refused" in table and "smaller numbers, or ring=128" in table
    fits = spu.jit(lambda g: g / jnp.sqrt(jnp.sum(g * g))).calibrate(sample / 10)
    assert "refused" not in str(fits.scales(sample / 10))
    fits(sample / 10)  # and nothing is warned of
