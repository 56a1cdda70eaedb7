"""`spuvm bench`: what it computes from timings, how it minds its workers, and a run of it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from spuvm.bench import bench, calls, kernels, measure, report
from spuvm.bench.measure import NETWORKED, SIMULATED, Result, Timing
from spuvm.bench.operations import APPLICATIONS, OPERATIONS, Sizes
from spuvm.bench.peer import PYTHON_VARIABLE, peer_python
from spuvm.bench.workers import BenchmarkError, Workers
from spuvm.runtime.errors import ConfigError

pytestmark = pytest.mark.usefixtures("preloaded")

ECHO = "import sys\nprint('{}', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)"


def worker(source: str, patience: float = 20.0, count: int = 1) -> Workers:
    return Workers([[sys.executable, "-c", source]] * count, patience)


def result(name: str = "less", seconds: float = 1.0, peer: Timing | None = None, **fields: Any) -> Result:
    return Result(
        name, fields.pop("mode", SIMULATED), fields.pop("rows", 10), Timing([seconds], 0.5), peer=peer, **fields
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_are_float32_and_the_function_takes_them(name: str) -> None:
    operation = OPERATIONS[name]
    rows = Sizes(size=40, matrix=4, sort=30).of(operation.sized_by)
    inputs = operation.inputs(np.random.default_rng(1), rows)
    again = operation.inputs(np.random.default_rng(1), rows)
    assert all(x.dtype == np.float32 and len(x) == rows for x in inputs)
    assert all(np.array_equal(x, y) for x, y in zip(inputs, again, strict=True))
    assert all(np.isfinite(np.asarray(out, np.float64)).all() for out in measure.expected(operation, inputs))


def test_what_is_compared_is_exact_in_fixed_point() -> None:
    for name in ("less", "one_less", "equal", "argmax"):
        for x in OPERATIONS[name].inputs(np.random.default_rng(2), 1000):
            assert np.array_equal(x * 2.0**16, np.rint(x * 2.0**16))
    (different,) = OPERATIONS["argmax"].inputs(np.random.default_rng(2), 1000)
    assert len(set(different.tolist())) == 1000


def test_expected_is_computed_in_float64() -> None:
    third = np.asarray([3.0], np.float32)
    assert measure.expected(OPERATIONS["reciprocal"], [third])[0].item() == 1 / 3


def test_error_of_a_result_that_is_not_a_number_is_infinite() -> None:
    zeros = np.zeros(3)
    assert measure.max_error([zeros, zeros + 1], [zeros, np.asarray([0.5, 1, 3])]) == 2
    assert measure.max_error([np.asarray([0, np.nan, 0])], [zeros]) == math.inf
    assert measure.max_error([np.asarray([True, False])], [np.asarray([True, True])]) == 1
    with pytest.raises(ValueError, match="zip"):
        measure.max_error([zeros], [zeros, zeros])


def test_a_billion_rows_scale_with_the_work() -> None:
    assert result(rows=10**6, seconds=0.002).billion == pytest.approx(2.0)
    assert result("sort", rows=10**3, seconds=1.0).billion == pytest.approx(3e6)
    assert math.isnan(result("one_less", rows=1).billion)
    assert [report.duration(s) for s in (5, 600, 86400, math.nan)] == ["5.0 s", "10.0 min", "24.0 h", ""]


def test_ratio_is_best_against_best() -> None:
    assert result(seconds=2.0, peer=Timing([8.0, 6.0])).ratio == 3
    assert math.isnan(result().ratio)


def test_what_is_quick_runs_for_a_second() -> None:
    assert measure.more_runs([2.0, 0.3, 0.25]) == 1
    assert measure.more_runs([2.0, 1.0]) == measure.more_runs([0.25] * 4) == 0
    assert measure.more_runs([1e-3, 0.5]) == measure.MOST


def test_missed_goals_are_told() -> None:
    assert report.missed([result(seconds=1.0, peer=Timing([25.0], 0.5))]) == []
    assert "24.00 times" in report.missed([result(peer=Timing([24.0], 0.5))])[0]
    assert "an error of 0.5" in report.missed([result("maximum", peer=Timing([1.0], 0.25))])[0]
    assert "failed: no link" in report.missed([Result("less", SIMULATED, 1, Timing(failure="no link"))])[0]
    assert report.missed([result(peer=Timing(failure="gone"))]) == []


def test_reports_hold_all_results_and_no_nan() -> None:
    results = [
        result(peer=Timing([3.0], 0.25), rounds=8, bytes_sent=240),
        result("one_less", rows=1, mode=NETWORKED),
        Result("sort", NETWORKED, 5, Timing(failure="too slow")),
    ]
    about = measure.machine()
    figures = json.loads(json.dumps(report.as_dict(about, results, []), allow_nan=False))
    assert [r["operation"] for r in figures["results"]] == ["less", "one_less", "sort"]
    assert figures["results"][0]["bytes_per_row_and_party"] == 24
    assert figures["results"][0]["ratio"] == 3
    assert figures["results"][2]["failure"] == "too slow"
    back = report.from_dicts(figures["results"])
    assert [report.cells(r, True) for r in back] == [report.cells(r, True) for r in results]
    page = report.page(about, results, [{"cache": "cold", "start": 1.0, "first": 2.0, "second": 3.0, "overhead": 1e-4}])
    assert "| less | 10 | 1,000 | 1,000 | 10 | 8 | 24 |" in page
    assert "| cold | 1 | 2 | 3 | 0.1 |" in page
    assert "sort (network) failed: too slow" in page
    for block in page.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_applications_are_timed_from_arrays_to_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "APPLICATIONS", {"mlp": APPLICATIONS["mlp"]})
    found = list(calls.measure([SIMULATED, NETWORKED], 1, 600.0, None, lambda _: None))
    assert [a.mode for a in found] == [SIMULATED, NETWORKED]
    for a in found:
        assert a.ours.failure is None
        assert a.ours.error < 1e-3
        assert min(a.ours.first, a.ours.cached, a.ours.again, a.ours.run) > 0
    assert [calls.lines(calls.from_dicts(calls.as_dicts(found)), m) for m in (SIMULATED, NETWORKED)] == [
        calls.lines(found, m) for m in (SIMULATED, NETWORKED)
    ]


@pytest.mark.parametrize("peer", [None, calls.Calls(4.0, again=0.5, run=0.25, error=0.1), calls.Calls(failure="gone")])
def test_tables_of_applications(peer: calls.Calls | None) -> None:
    ours = calls.Calls(2.0, 1.0, 0.1, 0.05, 0.01)
    found = [
        calls.Application("mlp", SIMULATED, 64, 14.0, 4e5, ours, peer),
        calls.Application("lenet", SIMULATED, 64, math.nan, math.nan, calls.Calls(failure="no link"), peer),
    ]
    back = calls.from_dicts(json.loads(json.dumps(calls.as_dicts(found), allow_nan=False)))
    _, header, rows = calls.lines(back, SIMULATED)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][:9] == ["mlp", "64", "14", "0.4", "2.00", "1.00", "100", "50", "1.0e-02"]
    if peer is not None and not peer.failure:
        assert rows[0][9:] == ["4.00", "500", "250", "1.0e-01", "2.0", "4.0", "5.0", "5.0"]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_have_results(name: str) -> None:
    operation = APPLICATIONS[name]
    inputs = operation.inputs(np.random.default_rng(1), 64)
    assert all(x.dtype == np.float32 for x in inputs)
    (first, *_) = measure.expected(operation, inputs)
    assert 0.1 < np.abs(first).max() < 100


def test_workers_answer_by_rank() -> None:
    source = ECHO.replace(
        "print(line, end='', flush=True)", "print('{\"pid\": %d}' % __import__('os').getpid(), flush=True)"
    )
    with worker(source, count=3) as three:
        first, second = three.ask({}), three.ask({})
    assert first == second
    assert len({reply["pid"] for reply in first}) == 3


def test_a_worker_says_why_it_failed_and_is_gone() -> None:
    source = (
        'import os\nprint(\'{"pid": 1}\', flush=True)\ninput()\nprint(\'{"error": "no rule"}\', flush=True)\ninput()'
    )
    failing = worker(source, count=2)
    with pytest.raises(BenchmarkError, match="no rule"):
        failing.ask({})
    with pytest.raises(BenchmarkError, match="out of memory"):
        worker("import sys; sys.exit('out of memory')")


def test_a_silent_worker_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = time.monotonic()
    with pytest.raises(BenchmarkError, match="no answer within 3 s"):
        worker(f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)", patience=3)
    assert time.monotonic() - start < 300
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_peers_python_must_have_the_peer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        peer_python(str(tmp_path / "python"), print)
    with pytest.raises(ConfigError, match="No module named 'spu'"):
        peer_python(sys.executable, print)


def test_without_its_python_a_peer_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 99))
    with pytest.raises(ConfigError, match=r"needs Python 3\.11"):
        peer_python(None, lambda _: None)


def test_unknown_operations_are_refused() -> None:
    refused = CliRunner().invoke(bench, ["--ops", "add,frobnicate"])
    assert refused.exit_code == 2
    assert "frobnicate" in refused.output


def test_bench_simulated_and_networked(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    options = ["--ops", "multiply,dot", "--size", "50", "--repeat", "2", "--json", str(path)]
    done = CliRunner().invoke(bench, options, catch_exceptions=False)
    assert done.exit_code == 0
    results = json.loads(path.read_text())["results"]
    assert [(r["operation"], r["mode"]) for r in results] == [
        (name, mode) for name in ("multiply", "dot") for mode in (SIMULATED, NETWORKED)
    ]
    for r in results:
        assert r["failure"] is None
        assert r["max_error"] < 1e-3
        assert r["best_seconds"] > 0
    by_mode = [[r[key] for key in ("rounds", "bytes_per_row_and_party")] for r in results]
    assert by_mode[0] == by_mode[1]
    assert by_mode[2] == by_mode[3]


def test_a_failed_operation_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(process: Workers, request: dict[str, Any]) -> Any:
        return asked(process, {**request, "op": "frobnicate"} if request["op"] == "add" else request)

    asked = Workers.ask
    monkeypatch.setattr(Workers, "ask", ask)
    plan = measure.Plan(("add", "multiply"), Sizes(20), 1, (SIMULATED,), 300.0)
    with measure.measuring(plan, lambda _: None) as measured:
        add, multiply = measured
    assert add.ours.failure == "KeyError: 'frobnicate'"
    assert multiply.ours.failure is None


@pytest.mark.skipif(not os.environ.get(PYTHON_VARIABLE), reason=f"needs {PYTHON_VARIABLE}: a Python with the peer")
@pytest.mark.parametrize("mode", [SIMULATED, NETWORKED])
def test_the_peer_runs_on_the_same_inputs(mode: str) -> None:
    python = peer_python(os.environ[PYTHON_VARIABLE], print)
    plan = measure.Plan(("multiply",), Sizes(100), 2, (mode,), 60.0, python)
    with measure.measuring(plan, lambda _: None) as measured:
        (only,) = measured
    assert only.peer is not None
    assert only.peer.failure is None
    assert 0 < only.peer.max_error < 1e-3
    assert only.ratio > 0


# benchmarks/billion/products.py -------------------------------------------------------------------


@pytest.fixture(scope="module")
def products() -> Any:
    path = Path(__file__).parent.parent / "benchmarks" / "billion" / "products.py"
    spec = importlib.util.spec_from_file_location("products", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_factors_reach_the_limit_and_no_further(products: Any) -> None:
    x, y = products.factors(np.random.default_rng(3), 10_000)
    exact = [abs(int(a) * int(b)) for a, b in zip(x, y)]
    assert 2**61 < max(exact) < 2**62
    assert 2**60 < np.abs(x).max() < 2**62
    assert np.abs(x).min() >= 1
    assert np.abs(y).max() < 2**62


def test_differences_see_errors_that_the_shift_would_lose(products: Any) -> None:
    x, y = np.asarray([3.0 * 2**20, 2.0**30]), np.asarray([2.0**20, -(2.0**30)])
    right = x * y / products.UNIT**2
    assert np.array_equal(products.differences(right, x, y), [0, 0])
    one_off = right + np.asarray([1 / products.UNIT, 0])
    assert np.array_equal(products.differences(one_off, x, y), [products.UNIT, 0])
    wrapped = right + np.asarray([2.0**46 / products.UNIT, 0])
    assert products.differences(wrapped, x, y)[0] > products.UNIT


def test_products_are_right_to_one_unit(products: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import jax

    with jax.enable_x64(True):
        histogram, worst = products.measure(5000, 2000, 1)
    assert histogram.sum() == 5000
    assert 0 < worst <= products.UNIT
    assert "5,000 products" in capsys.readouterr().out


def test_kernels_give_the_bits_of_their_twins() -> None:
    rows = kernels.kernels(64, images=1)
    forms = ("product 64^3", "convolution 1x32x32x64, 3x3x64")
    names = [f"{bits}-bit {form}" for form in forms for bits in (64, 32, 128)]
    assert [r.name for r in rows] == [*names, "AES-128-CTR, one core"]
    assert all(r.same is not False and r.twin > 0 for r in rows)
    assert all((r.native is None) == (r.same is None) for r in rows)
    assert rows[-1].unit == "bytes"
    assert kernels.table(rows).row_count == len(rows)
    assert kernels.from_dicts(kernels.as_dicts(rows)) == rows
    assert len(kernels.markdown(rows)) == 2 + len(rows)


# benchmarks/results.py ----------------------------------------------------------------------------


def test_the_page_of_results_has_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flax")
    folder = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    results = importlib.import_module("results")
    monkeypatch.setattr(results, "HERE", tmp_path)
    monkeypatch.setattr(results.published, "ROWS", results.published.ROWS[:2])
    assert results.page().count("Not measured yet") == len(results.SECTIONS) - 1
    about = measure.machine()
    done = {"seconds": 1.0, "processor": 0.75, "error": 0.5}
    clear = {"seconds": 0.5, "processor": 0.5, "error": 0.0}
    shape = {"rows": 10, "features": 2, "depth": 1, "bins": 4, "rounds": 7, "each": 1.5, "once": 0.5}
    records = {
        "kernels": {"features": "aes=openssl", "kernels": kernels.as_dicts([kernels.Kernel("k", "bytes", 2, 1, True)])},
        "operations": report.as_dict(about, [result(peer=Timing([3.0], 0.25))], []),
        "applications": {"applications": []},
        "first_call": {
            "programs": [
                {"program": "steps", "network": True, "cold": done, "warm": {"failure": "no link"}, "jax": clear}
            ]
        },
        "boosting": {"growth": [shape], "seconds": [9.0, 4.0, 3.0]},
    }
    (tmp_path / "records").mkdir()
    for name, record in records.items():
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps({"machine": about} | record))
    (tmp_path / "billion").symlink_to(folder / "billion")
    page = results.page()
    assert "Not measured" not in page
    assert "| multiply and truncate | aby3 | 2 | 10.5 | 3 | 16 | MP-SPDZ" in page
    assert "| k | 10^9 bytes/s | 2.0 | 1.0 | 2.0 | yes |" in page
    assert "| less | 10 | 1,000 |" in page
    assert "| steps | TLS | 1.00 | 0.75 | failed | failed | 0.50 | 0.50 | 5.0e-01 |" in page
    assert "the first tree takes 9.0 s, compiling included, each of the next 2 at least 3.0 s" in page
    assert "| moments | 1,000,000,000 |" in page
    for block in page.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1
    with pytest.raises(SystemExit, match="no section kernel:"):
        results.chosen("kernel")
