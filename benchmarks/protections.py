"""Whether tests can fail: each protection is taken away from a copy, and the test that holds it must notice.

    python benchmarks/protections.py [NUMBER ...]

The numbers are those of the table in docs/trust.md. It ends with the number of protections that nothing noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LIMIT = 600  # seconds of a test


class Taken(NamedTuple):
    """A protection: the text in a file that is it, what stands there without it, and the test that notices."""

    number: str
    file: str
    old: str
    new: str
    test: str


TAKEN = (
    Taken(
        "1",
        "spuvm/devices.py",
        "ranks = [context.parties.index(p) for p in receivers]",
        "ranks = list(range(len(context.parties)))",
        "test_diverging.py::test_an_object_goes_to_its_receiver_alone",
    ),
    Taken(
        "2",
        "runtime/errors.py",
        "    if not isinstance(error, SpuError):\n        return OWN_ERROR\n",
        "    return str(error)\n",
        "test_canary.py",
    ),
    Taken(
        "3",
        "runtime/link/link.py",
        "        contribution = os.urandom(KEY_BYTES)\n",
        "        contribution = bytes(KEY_BYTES)\n",
        "test_stream_attempts.py::test_rewinding_shows_nothing",
    ),
    Taken(
        "4",
        "compiler/lower/sort_words.py",
        '    if t.kind == "int" and t.bits < 64:\n',
        "    if True:\n",
        "test_sort.py::test_keys_of_any_word_are_in_one_order",
    ),
    Taken(
        "5",
        "compiler/expand/arithmetic.py",
        "        if ex.exact:\n",
        "        if False:\n",
        "test_exact_truncation.py::test_many_of_one_value_tell_no_more_than_one",
    ),
    Taken(
        "6",
        "runtime/link/link.py",
        '        secret = b"".join(self._contribution(rank, holders) for rank in contributors)\n',
        "        secret = bytes(KEY_BYTES)\n",
        "test_processors.py",
    ),
    Taken(
        "7",
        "runtime/link/link.py",
        "        if len(set(said.values())) > 1:\n",
        "        if False:\n",
        "test_diverging.py",
    ),
    Taken(
        "8",
        "spuvm/streaming/sealed.py",
        "    if not isinstance(body, dict) or body.pop(CHECK, None) != _digest(body):\n",
        "    if not isinstance(body, dict) or body.pop(CHECK, None) is None:\n",
        "test_stream_attempts.py::test_damage_is_never_taken_for_data",
    ),
    Taken(
        "9",
        "spuvm/context.py",
        "        if self.protocols is not None and protocol not in self.protocols:\n",
        "        if False:\n",
        "test_diverging.py::test_a_protocol_that_the_operator_does_not_allow",
    ),
    Taken(
        "10",
        "spuvm/ml/training.py",
        '    if column.type != "category":\n',
        "    if True:\n",
        "test_told.py::test_labels_that_are_text",
    ),
    Taken(
        "11",
        "spuvm/streaming/run.py",
        "    agree_on_attempts(vm, folder)\n",
        "",
        "test_stream_attempts.py::test_a_journal_of_another_attempt_is_noticed",
    ),
    Taken(
        "12",
        "compiler/ir/text.py",
        "(found := [c for c in line if hidden(c)])",
        "(found := [c for c in line if False])",
        "test_text.py::test_what_would_deceive_a_reviewer_is_refused",
    ),
    Taken(
        "13",
        "runtime/link/tls/door.py",
        "            if crowd is same or len(crowd) >= GREETED:\n",
        "            if False:\n",
        "test_door.py::test_at_most_so_many_are_greeted",
    ),
    Taken(
        "14",
        "runtime/link/tls/stalled.py",
        "            work += said.awaited\n",
        "",
        "test_stalled.py",
    ),
    Taken(
        "15",
        "spuvm/data/targets.py",
        "        kept = kept_aside(path.name, save)\n",
        "        kept = None\n",
        "test_saved.py",
    ),
    Taken(
        "run again",
        "spuvm/streaming/recognising.py",
        "    return finished.is_tag(",
        "    return True or finished.is_tag(",
        "test_stream_ended.py::test_what_is_not_its_own_is_refused",
    ),
    Taken(
        "leaks",
        "runtime/protocols/aby3/products.py",
        "z[i] + rho[i] - rho[(i + 1) % 3]",
        "z[i]",
        "test_leakage.py::test_every_kernel_is_proved[aby3-0]",
    ),
)


def copied(to: Path) -> Path:
    """The sources and tests, with links as they are."""
    wanted = ("spuvm", "compiler", "runtime", "tests", "benchmarks", "examples", "pyproject.toml")
    for name in wanted:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def notices(where: Path, taken: Taken) -> bool:
    """Whether the test fails without the protection, and passes with it."""
    path = where / taken.file
    whole = path.read_text()
    assert taken.old in whole, f"{taken.file} has changed: {taken.old!r} is not in it"
    return passes(where, taken.test) and not _without(where, path, whole, taken)


def _without(where: Path, path: Path, whole: str, taken: Taken) -> bool:
    path.write_text(whole.replace(taken.old, taken.new, 1))
    try:
        return passes(where, taken.test)
    finally:
        path.write_text(whole)


def passes(where: Path, test: str) -> bool:
    """Run it."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"]
    ran = subprocess.run(
        command, cwd=where, env={**os.environ, "PYTHONPATH": str(where)}, timeout=LIMIT, capture_output=True
    )
    assert ran.returncode in (0, 1), ran.stdout.decode()[-2000:] + ran.stderr.decode()[-2000:]
    return ran.returncode == 0


def main(wanted: Sequence[str]) -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        where = copied(Path(folder))
        for taken in TAKEN:
            if not wanted or taken.number in wanted:
                found = notices(where, taken)
                missed += not found
                print(f"{taken.number}: {taken.test} {'notices' if found else 'DOES NOT NOTICE'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
