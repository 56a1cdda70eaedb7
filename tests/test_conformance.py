"""A slice of the conformance run, and that the table and the documents are complete. `make conformance` runs all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sweeps
from conformance import operations, precision, whole
from conformance.batch import Combination, combinations, configurations, covering, difference, name_of, patterns, run
from conformance.cases import CASES, SAME_AS
from conformance.interpreted import OTHERS, stages_by_numpy
from conformance.refusals import by_design
from conformance.table import ANY, EXACT, UNIT, Case, elementwise
from machine import shared_inputs, simulate

from spuvm.compiler.compile import compile_function
from spuvm.compiler.functions.precision import STATED
from spuvm.compiler.lower.registry import RULES
from spuvm.runtime.config import Config

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHEAP = ("add", "mul", "lt", "and", "select_n", "shift_left", "concatenate", "reduce_sum", "dot_general", "scan")
SLICES = {
    "aby3/64": ("add", "mul", "lt", "select_n", "shift_left", "reduce_sum", "dot_general", "gather"),
    "aby3/64 exact": ("mul", "dot_general", "logistic"),
    "semi2k of 2/64": ("mul", "lt", "dot_general"),
    "semi2k of 3/64": ("mul", "select_n"),
    "semi2k_ot/64": ("mul",),
    "rep4/64": ("mul", "lt"),
    "aby3_malicious/64": ("mul", "lt"),
    "ref2k/64": CHEAP,
}


@pytest.mark.parametrize("name", SLICES)
def test_a_slice(name: str) -> None:
    """Of each case of the slice every dtype, every shape and every pattern."""
    (config,) = [c for c in configurations() if name_of(c) == name]
    cases = [c for c in CASES if c.primitive in SLICES[name]]
    outcomes = [o for case in cases for o in run(list(covering([case])), config)]
    assert len(outcomes) >= 3 * len(cases)
    assert [f"{o.combination}: {o.error}" for o in outcomes if o.error] == []
    assert [f"{o.combination}: {o.reason}" for o in outcomes if o.reason and not by_design(o.reason)] == []


def test_a_slice_of_comparisons_by_keys() -> None:
    config = Config("semi2k", 64, 18, ("alice", "bob"), optimize="latency")
    cases = [c for c in CASES if c.primitive in ("lt", "eq")]
    outcomes = [o for case in cases for o in run(list(covering([case])), config)]
    assert len(outcomes) >= 3 * len(cases)
    assert [f"{o.combination}: {o.error}" for o in outcomes if o.error] == []
    assert [f"{o.combination}: {o.reason}" for o in outcomes if o.reason and not by_design(o.reason)] == []


def test_every_rule_has_a_case() -> None:
    shown = {c.primitive for c in CASES}
    missing = sorted(set(RULES) - shown - set(SAME_AS))
    assert missing == [], "add a case to tests/conformance/cases_*.py"
    assert set(SAME_AS.values()) <= shown


def test_wrong_results_are_noticed() -> None:
    case = Case("add", lambda x, y: x + y, (ANY, ANY), elementwise(2), ("float32", "int32"), EXACT)
    c = Combination(case, "float32", ((2,), (2,)), ("secret", "secret"))
    want = [np.array([1.0, 2.0])]
    config = Config()
    assert difference(c, [], [np.array([1.0, 2.0], np.float32)], want, config) is None
    assert "1 of 2 differ" in str(difference(c, [], [np.array([1.0, 2.0 + 2.0**-18], np.float32)], want, config))
    loose = replace(c, case=replace(case, stated=UNIT))
    assert difference(loose, [], [np.array([1.0, 2.0 + 2.0**-18], np.float32)], want, config) is None
    assert "nan" in str(difference(loose, [], [np.array([1.0, np.nan], np.float32)], want, config))
    assert "shape" in str(difference(c, [], [np.float32(1)], want, config))
    assert "int64" in str(difference(c, [], [np.array([1, 2])], [np.array([1, 2], np.int32)], config))
    assert by_design("something else") is None


@pytest.mark.parametrize(("protocol", "ring"), [("aby3", 64), ("semi2k", 128)])
def test_numpy_gives_the_shares_of_compiled_stages(protocol: str, ring: int) -> None:
    """The same components, bit for bit, of a program with most kinds of kernels."""

    def function(x: Any, i: Any) -> Any:
        return x * x[::-1] / 3, jnp.sort(x), x < 0.5, jnp.exp(x), i // 3, i.astype(jnp.int8), x[i], x @ x

    args = np.array([0.25, -1.5, 3.0, 0.75], np.float32), np.array([3, 0, 2, 1], np.int32)
    config = Config(protocol, ring, 18, ("a", "b", "c"))
    choreography = compile_function(function, args, ["secret"] * 2, config).choreography
    inputs = shared_inputs(choreography, [np.array([1, -5, 12, 3]) << 16, args[1]], ring)
    compiled = simulate(choreography, inputs)
    with stages_by_numpy():
        assert all(np.array_equal(x, y) for x, y in zip(compiled, simulate(choreography, inputs), strict=True))
    assert OTHERS.keys() <= {"shift_right_arithmetic", "sign", "ffi_call", "gather", "sort"}


def test_tiers_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where one does not, that is found, as is where it fails."""
    config = next(c for c in configurations() if name_of(c) == "aby3/64")
    (case,) = (c for c in CASES if c.primitive == "mul" and "float32" in c.dtypes and not c.note)
    batch = [Combination(case, "float32", case.shapes[0], ("secret", "secret"))]
    (same,) = whole.in_tiers(batch, config, ("native", "numpy"))
    assert same.error is None and same.bits
    other = replace(same, bits="others")
    outcomes = iter([[same], [other], [same], [replace(same, error="wrong")]])
    monkeypatch.setattr(whole, "run", lambda *_: next(outcomes))
    assert [o.error for o in whole.in_tiers(batch, config, ("native", "xla"))] == ["xla: other bits than native"]
    assert [o.error for o in whole.in_tiers(batch, config, ("native", "xla"))] == ["xla: wrong"]


def test_the_table_is_the_whole_product() -> None:
    case = Case("add", lambda x, y: x + y, (ANY, ANY), elementwise(2), ("float32", "int32"))
    every = list(combinations([case]))
    assert len(every) == len(set(every)) == 2 * 4 * len(patterns(2))
    sample = list(covering([case]))
    assert {c.pattern for c in sample} == set(patterns(2))
    assert {c.shapes for c in sample} == set(case.shapes)
    assert {c.dtype for c in sample} == set(case.dtypes)


def test_the_operations_document_is_current() -> None:
    """Its rows are the table's; `make docs` writes it."""
    assert set(operations.documented((DOCS / "operations.md").read_text())) == set(operations.expected())


def test_the_precision_document_is_current() -> None:
    text = (DOCS / "precision.md").read_text()
    assert precision.documented(text) == list(sweeps.SWEEPS) * len(precision.RINGS)
    stated = [STATED[name].in_ring(ring, f) for ring, f in precision.RINGS.items() for name in sweeps.SWEEPS]
    assert precision.stated_in(text) == [str(s) for s in stated]
    for name, sweep in sweeps.SWEEPS.items():
        if len(sweep.points(18, 8, sweeps.BITS)) == 1:
            assert f"plots/{name}.svg" in text
            assert (DOCS / "plots" / f"{name}.svg").read_text().startswith("<?xml")
