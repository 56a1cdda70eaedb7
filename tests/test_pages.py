"""The Python blocks of pages run one after another, as one program, and print what the pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_readme import ROOT, alike, blocks

import spuvm as spu


@pytest.mark.parametrize("page", ["joining.md", "sql.md"])
def test_python_blocks_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        for block in (b for b in blocks((ROOT / "docs" / page).read_text()) if b.kind == "python"):
            exec(block.source, names)
            printed = capsys.readouterr().out
            assert block.printed is None or alike(printed, block.printed), printed
    finally:
        spu.shutdown()
