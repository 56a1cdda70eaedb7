"""The documentation site builds without a warning, every page is in its menu, tutorials show the very scripts."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "spuvm.marking" in (tmp_path / "reference" / "index.html").read_text()
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        shown = html.unescape(re.sub("<[^>]+>", "", (tmp_path / "tutorials" / page.stem / "index.html").read_text()))
        scripts = re.findall(r'--8<-- "(examples/.*)"', page.read_text())
        assert scripts and all((ROOT / script).read_text().strip() in shown for script in scripts), page


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in menu] == []
