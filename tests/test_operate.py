"""docs/operate.md followed word by word: three folders, three services, from nothing to a joined table."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from spuvm.runtime.link.certificates import free_ports

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PORTS = ("9443", "9444", "9445", "8443", "8444", "8445")
# On exit, with an error or not, all services end.
SETUP = """set -eu -o pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
"""


def steps() -> list[str]:
    """`cd` to the folder of a party, then its commands, in the order of the page."""
    out = []
    for block in BLOCK.findall((ROOT / "docs" / "operate.md").read_text()):
        for part in re.split(r"^# at (?=\w+$)", block, flags=re.MULTILINE)[1:]:
            party, _, commands = part.partition("\n")
            out.append(f'cd "$ROOT/{party}"\n{commands}')
    return out


def test_from_nothing_to_a_joined_table(tmp_path: Path) -> None:
    text = "\n".join(steps())
    for old, new in zip(PORTS, map(str, free_ports(len(PORTS)))):
        text = re.sub(rf"\b{old}\b", new, text)
    assert text.count("spuvm serve") == 3
    for party in ("alice", "bob", "carol"):
        (tmp_path / party).mkdir()
    path = tmp_path / "steps.sh"
    path.write_text(SETUP + text)
    command = tmp_path / "bin" / "spuvm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m spuvm "$@"\n')
    command.chmod(0o755)
    env = {**os.environ, "ROOT": str(tmp_path), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    with open(tmp_path / "said", "wb") as said:
        ran = subprocess.run(["bash", str(path)], env=env, stdout=said, stderr=said, timeout=900)
    assert ran.returncode == 0, (tmp_path / "said").read_text()
    joined = pyarrow.parquet.read_table(tmp_path / "alice" / "joined.parquet").to_pydict()
    assert joined == {"id": [2, 4], "age": [51, 63]}
    report = (tmp_path / "alice" / "report.html").read_text()
    assert "which of its own rows all have (rows) to alice" in report
    assert "34" not in re.sub(r"<style>.*?</style>|[0-9a-f:T-]{8,}", "", report, flags=re.DOTALL)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "spuvm.service").read_text().replace("/opt/spuvm/bin/spuvm", "/bin/true")
    (tmp_path / "spuvm.service").write_text(unit)
    ran = subprocess.run(["systemd-analyze", "verify", tmp_path / "spuvm.service"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
