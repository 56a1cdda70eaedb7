"""README's examples run, and print what it says; `--update-golden` writes what they print into it.

A `python` block is a program of its own, or, if it begins with a comment that names it, a file that later
blocks use. Commands of `sh` blocks that begin with `spuvm` are run. A `text` block is what the block before prints.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DATA = Path("examples/hospitals/data")
TIMEOUT = 240
LONG = re.compile(r"\d+\.\d{4,}")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, what the README says it prints, and where that stands."""

    kind: str
    source: str
    printed: str | None
    span: tuple[int, int]


def blocks(text: str) -> list[Block]:
    found = list(FENCE.finditer(text))
    out = []
    for block, after in zip(found, [*found[1:], None]):
        shown = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
        printed, span = (after[2], after.span(2)) if after is not None and shown else (None, (0, 0))
        if block[1] in ("python", "sh"):
            out.append(Block(block[1], block[2], printed, span))
    return out


def commands(block: Block) -> list[list[str]]:
    """The command lines of a shell block, continuations joined."""
    lines = block.source.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def output(block: Block, folder: Path) -> str | None:
    """What the block prints, after running it; None if there is nothing to run."""
    if block.kind == "sh":
        lines = [c[1:] for c in commands(block) if c[0] == "spuvm" and c[1] != "party"]
        printed = [run([sys.executable, "-m", "spuvm", *c], folder) for c in lines]
        return "".join(printed) if lines else None
    name = re.match(r"# (\w+\.py)\n", block.source)
    (folder / (name[1] if name else "example.py")).write_text(block.source)
    return None if name else run([sys.executable, "example.py"], folder)


def alike(printed: str, said: str) -> bool:
    """Equal but for the last digits of results: a truncation rounds up or down at random."""
    if LONG.sub("", printed) != LONG.sub("", said):
        return False
    return [float(x) for x in LONG.findall(printed)] == pytest.approx([float(x) for x in LONG.findall(said)], abs=1e-4)


def test_alike() -> None:
    assert alike("a 0.67909 12\n", "a 0.67908 12\n")
    assert not alike("a 0.6790 12\n", "a 0.6795 12\n")
    assert not alike("a 0.6790 12\n", "a 0.6790 13\n")
    assert not alike("a 6000.0\n", "a 6001.0\n")


@pytest.mark.usefixtures("preloaded")
def test_blocks_run_and_print_what_they_say(tmp_path: Path, update_golden: bool) -> None:
    run([sys.executable, str(ROOT / "examples/hospitals/prepare.py"), "--data", str(DATA)], tmp_path)
    text = README.read_text()
    results = [(block, output(block, tmp_path)) for block in blocks(text)]
    if update_golden:
        for block, printed in reversed(results):
            if block.printed is not None:
                text = text[: block.span[0]] + (printed or "") + text[block.span[1] :]
        README.write_text(text)
        return
    assert sum(block.printed is not None for block, _ in results) >= 4
    for block, printed in results:
        if block.printed is not None:
            assert alike(printed or "", block.printed), printed


def test_commands_name_what_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in (README, ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"):
        for block in blocks(page.read_text()):
            for argv in commands(block) if block.kind == "sh" else []:
                if argv[0] == "make":
                    assert re.search(rf"^{argv[1]}:", makefile, re.MULTILINE), argv
                elif argv[0] == "python":
                    assert (ROOT / argv[1]).is_file(), argv
                else:
                    assert argv[0] in ("spuvm", "pip"), argv


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"], ids=lambda p: p.name
)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    layout = next((b for b in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "compiler/" in b), "")
    for name in re.findall(r"\b(\w+\.py)\b", layout):
        assert list(ROOT.glob(f"*/{name}")), name
