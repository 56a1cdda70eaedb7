"""The Python environment of a peer: found, or made once in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from spuvm.runtime.errors import ConfigError

PYTHON = "3.11"  # the newest that the peer's versions are built for
PACKAGES = ("spu==0.9.5", "jax[cpu]==0.4.34", "numpy<2", "flax<0.10")
PYTHON_VARIABLE = "SPUVM_PEER_PYTHON"


def cache_folder() -> Path:
    """Where environments of peers live."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spuvm" / "peers"


def peer_python(given: str | None, say: Callable[[str], None]) -> Path:
    """The Python that has the peer: `given`, or that of the environment made for it.

    Raises ConfigError if `given` lacks the peer, or if the environment cannot be made.
    """
    if given:
        python = Path(given)
        _check(python)
        return python
    folder = cache_folder() / PACKAGES[0].replace("==", "-")
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(f"making an environment with {', '.join(PACKAGES)} in {folder}")
        _run([_base_python(), "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES])
        _check(python)
        done.touch()
    return python


def _base_python() -> str:
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        return sys.executable
    found = shutil.which(f"python{PYTHON}")
    if found is None:
        raise ConfigError(
            f"`--against spu` needs Python {PYTHON}, which is not on the path: install it, or give the Python of an "
            f"environment with {' '.join(map(repr, PACKAGES))} by `--peer-python` or {PYTHON_VARIABLE}."
        )
    return found


def _check(python: Path) -> None:
    if not python.exists():
        raise ConfigError(f"`--peer-python`: there is no {python}.")
    _run([str(python), "-P", "-c", "import spu.libspu, spu.utils.frontend, jax, numpy"])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise ConfigError(f"`{' '.join(command[:5])} ...` failed: {last[0]}")
