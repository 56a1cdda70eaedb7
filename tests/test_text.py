"""The text form: golden programs, the way back, and what is ill-formed."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from lowering import FRAC, lowered, run

from spuvm.compiler.compile import load
from spuvm.compiler.front.trace import reveal
from spuvm.compiler.ir.module import Location
from spuvm.compiler.ir.text import parse, program_hash, to_text
from spuvm.runtime.errors import IRError

GOLDEN = Path(__file__).parent / "golden"
X = jnp.ones((4, 3))


def gradient_step(w: Any, x: Any, y: Any) -> Any:
    return w - 0.125 * jax.grad(lambda v: ((x @ v - y) ** 2).sum())(w)


def search(x: Any, limit: Any) -> Any:
    def halve(i: Any, c: Any) -> Any:
        return jnp.where(c > limit, c * 0.5, c + i)

    inside = lax.fori_loop(0, 3, halve, x)
    return {"first": lax.cond(reveal(inside[0] > 0), jnp.sum, jnp.max, inside), "rest": inside}


PROGRAMS: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
    "gradient_step": (gradient_step, (X[0], X, X[:, 0]), "secret"),
    "search": (search, (X[0], 1.5), ["secret", 1]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden(name: str, update_golden: bool) -> None:
    fn, args, visibility = PROGRAMS[name]
    got = to_text(lowered(fn, *args, visibility=visibility), locations=False)
    path = GOLDEN / f"{name}.spux"
    if update_golden:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(got)
    assert got == path.read_text(), "run pytest with --update-golden if the change is meant"


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_way_back(name: str) -> None:
    fn, args, visibility = PROGRAMS[name]
    module = lowered(fn, *args, visibility=visibility)
    again = parse(to_text(module))
    assert to_text(again) == to_text(module)
    assert program_hash(again) == program_hash(module)
    assert (again.inputs, again.outputs, again.config) == (module.inputs, module.outputs, parse_config(module.config))
    for got, want in zip(run(again, *args), run(module, *args)):
        np.testing.assert_array_equal(got, want)


def parse_config(config: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def test_names_survive() -> None:
    odd = {'a "quoted" \\ name': X, "unicode é %1": X}
    module = lowered(lambda d: {"x: y  # z": sum(d.values())}, odd)
    again = parse(to_text(module))
    assert again.inputs == module.inputs
    assert again.outputs == ("out.x: y  # z",)


def test_long_constants_are_deflated() -> None:
    table = np.arange(3000.0).reshape(1000, 3) / 7
    module = lowered(lambda x: x + table, X[0])
    printed = to_text(module)
    assert len(printed) < 30_000
    np.testing.assert_array_equal(run(parse(printed), X[0])[0], run(module, X[0])[0])


def test_locations_are_in_the_text_but_not_in_the_hash() -> None:
    one = lowered(lambda x: x * 2.5, X)
    two = lowered(lambda x: x * 2.5, X)
    assert "test_text.py:" in to_text(one)
    assert to_text(one) != to_text(two)
    assert program_hash(one) == program_hash(two)


def test_other_programs_have_other_hashes() -> None:
    assert len({program_hash(lowered(lambda x, c=c: x * c, X)) for c in (2.5, 2.25)}) == 2


PROGRAM = f"""spux 1
module "m"
config {{"fxp_fraction_bits": {FRAC}}}
input %0 "x" float32 : fxp18[3] secret
%1 = const {{"data": [1, 2, 3], "to": "fxp18"}} : fxp18[3] public
%2 = add %0, %1 : fxp18[3] secret  # train.py:12
output %2 "out" float32
"""

ILL_FORMED = {
    "version": ("spux 1", "spux 2", "line 1: format version 2"),
    "header": ("module", "modul", "line 2: expected `module`"),
    "config": ('config {"', 'config {', "line 3: "),
    "input type": ("fxp18[3] secret\n%1", "fxp18[3]\n%1", "line 4: not a list of types"),
    "visibility": ("fxp18[3] secret\n%1", "fxp18[3] hidden\n%1", "line 4: not a list of types"),
    "element": ("fxp18[3] secret\n%1", "float[3] secret\n%1", "line 4|unknown element"),
    "constant": ("[1, 2, 3]", "[1, 2]", "line 5: 2 numbers"),
    "base64": ("[1, 2, 3]", '"!"', "line 5: damaged"),
    "deflated": ("[1, 2, 3]", '"AAAA"', "line 5: damaged"),
    "attributes": ('"to": "fxp18"', '"to" "fxp18"', "line 5: "),
    "no attributes": (' {"data": [1, 2, 3], "to": "fxp18"}', "", "attributes"),
    "twice": ("%2 = add", "%1 = add", "line 6: %1 is defined twice"),
    "undefined": ("%0, %1", "%0, %7", "line 6: %7 is not defined"),
    "count": ("fxp18[3] secret  #", "fxp18[3] secret, fxp18[3] secret  #", "line 6: 2 types for 1"),
    "operation": ("= add", "= frobnicate", "frobnicate"),
    "wrong type": ("fxp18[3] secret  #", "fxp18[4] secret  #", "should give"),
    "location": ("train.py:12", "train.py:x", "line 6: "),
    "junk": ("output", "outputs", "line 7: not an output"),
    "empty line": ('"m"\n', '"m"\n\n', "line 3: .*empty line"),
    "truncated": (PROGRAM[7:], "", "line 2: the text ends"),
    "region": ("# train.py:12", "# train.py:12\n  (%3: fxp18[3] secret) {", "line 7|line 8"),
}  # fmt: skip


def test_the_program_is_well_formed() -> None:
    assert to_text(parse(PROGRAM)) == PROGRAM


@pytest.mark.parametrize("name", ILL_FORMED)
def test_ill_formed(name: str) -> None:
    old, new, message = ILL_FORMED[name]
    assert old in PROGRAM
    with pytest.raises(IRError, match=message):
        parse(PROGRAM.replace(old, new, 1))


DECEIVING = {
    "escape sequence": ("train.py:12", "train\x1b[8m.py:12", r"U\+001B"),
    "carriage return": ("train.py:12", "train.py:12\r# other", r"U\+000D"),
    "next line": ("train.py:12", "train.py\x85:12", r"U\+0085"),
    "line separator": ("train.py:12", "train\u2028.py:12", r"U\+2028"),
    "right to left": ("train.py:12", "train\u202e.py:12", r"U\+202E"),
    "zero width": ("train.py:12", "train\u200b.py:12", r"U\+200B"),
    "tab": ("%0, %1 :", "%0,\t%1 :", r"U\+0009"),
    "spaces that push it out of sight": ('"to": "fxp18"}', '"to":' + 300 * " " + '"fxp18"}', "not as spuvm prints it"),
    "spaces at the end": ("secret  #", "secret   #", "line 6"),
    "indented": ("%2 = add", "  %2 = add", "not as spuvm prints it"),
    "a key twice": ('"to": "fxp18"}', '"to": "int64", "to": "fxp18"}', "not as spuvm prints it"),
    "a key escaped": ('"to": "fxp18"}', '"\\u0074o": "fxp18"}', "not as spuvm prints it"),
    "other digits": ("%0, %1 :", "%\u0660, %1 :", "line 6"),
    "numbered otherwise": ("output %2", "output %02", "line 7"),
    "a name that hides": ('"out"', '"o\\u202eut"', "line 7: a text with characters"),
    "a name of the module": ('module "m"', 'module "\\u001b[2J"', "line 2: a text with characters"),
    "an attribute that hides": ('"to": "fxp18"}', '"to": "fxp18\\u0007"}', "line 5: a text with characters"),
    "more at the end": ('"out" float32\n', '"out" float32\n\n', "line 8|empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECEIVING)
def test_what_would_deceive_a_reviewer_is_refused(name: str) -> None:
    old, new, message = DECEIVING[name]
    assert old in PROGRAM
    with pytest.raises(IRError, match=message):
        parse(PROGRAM.replace(old, new, 1))


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p.spux").write_bytes(PROGRAM.replace("\n", "\r\n").encode())
    with pytest.raises(IRError, match=r"U\+000D"):
        load(tmp_path / "p.spux")


def test_source_lines_with_odd_names_can_be_read_back(tmp_path: Path) -> None:
    module = lowered(lambda x: x * 2.5, X)
    module.body.ops[0].location = Location("a\nb\x1b\u202e.py", 3)
    assert "# a?b??.py:3" in to_text(module)
    parse(to_text(module))


HUNGRY = {
    "operations": "".join(f"%{i} = neg %{i - 1} : fxp18[] secret\n" for i in range(1, 3000)),
    "lists": '%1 = neg %0 {"a": [' + ", ".join(["[]"] * 30_000) + "]} : fxp18[] secret\n",
    "dictionaries": '%1 = neg %0 {"a": [' + ", ".join(["{}"] * 30_000) + "]} : fxp18[] secret\n",
    "depth": '%1 = neg %0 {"a": ' + "[" * 50_000 + "]" * 50_000 + "} : fxp18[] secret\n",
    "results": ", ".join(f"%{i}" for i in range(1, 20_000)) + " = neg %0 : fxp18[] secret\n",
    "a large type": "%1 = neg %0 : fxp18[9999999999999,9999999] secret\n",
    "a large constant": '%1 = const {"data": "'
    + base64.b64encode(zlib.compress(bytes(100_000_000))).decode()
    + '", "to": "fxp18"} : fxp18[12500000] public\n',
    "a long number": '%1 = neg %0 {"a": ' + "9" * 100_000 + "} : fxp18[] secret\n",
}


@pytest.mark.parametrize("name", HUNGRY)
def test_memory_is_bounded_by_a_multiple_of_the_text(name: str) -> None:
    head = f'spux 1\nmodule "m"\nconfig {{"fxp_fraction_bits": {FRAC}}}\ninput %0 "x" float32 : fxp18[] secret\n'
    text = head + HUNGRY[name] + 'output %1 "out" float32\n'
    tracemalloc.start()
    with suppress(IRError):
        parse(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000 + 60 * len(text)


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_change_of_a_text_is_refused_or_is_another_program(data: st.DataObject) -> None:
    """Bytes replaced, doubled or left out: an IRError, or a program that prints as the text says."""
    printed = data.draw(st.sampled_from([PROGRAM, (GOLDEN / "search.spux").read_text()]))
    at = data.draw(st.integers(0, len(printed) - 1))
    end = data.draw(st.integers(at, min(len(printed), at + 12)))
    piece = data.draw(st.text(max_size=6) | st.sampled_from([printed[at:end] * 2, "%", "[", "{", '"', " : ", "secret"]))
    text = printed[:at] + piece + printed[end:]
    try:
        module = parse(text)
    except IRError:
        return
    assert to_text(module) == (text if text.endswith("\n") else text + "\n")


def test_a_constant_cannot_inflate_beyond_its_type() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(10_000_000))).decode()
    with pytest.raises(IRError, match="line 5: 4 numbers"):
        parse(PROGRAM.replace("[1, 2, 3]", f'"{bomb}"'))
