"""A script's command line in the tests' own process, where parties that it starts can be copies of a loaded one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest


def run_script(script: Path, *arguments: str) -> int:
    """Its exit status; what it prints goes where tests capture it. Its folder's modules are its own."""
    names = {p.stem for p in script.parent.glob("*.py")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.syspath_prepend(str(script.parent))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            for name in names:
                sys.modules.pop(name, None)
    return 0
