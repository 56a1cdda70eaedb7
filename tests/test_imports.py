"""What may import what: spuvm -> compiler -> runtime, and nothing heavy or global on `import spuvm`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"spuvm.runtime": ROOT / "runtime", "spuvm.compiler": ROOT / "compiler", "spuvm": ROOT / "spuvm"}
MAY_IMPORT = {
    "spuvm.runtime": ("spuvm.runtime",),
    "spuvm.compiler": ("spuvm.compiler", "spuvm.runtime"),
    "spuvm": ("spuvm",),
}
ALWAYS = {"jax", "jaxlib", "numpy", "ml_dtypes", "cryptography"}  # the package's dependencies; all else is an extra


def files() -> dict[str, Path]:
    """Module name -> source file; `spuvm/compiler` and `spuvm/runtime` are links to the other two folders."""
    out = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder).with_suffix("").parts
            if inner[0] not in ("compiler", "runtime"):
                out[".".join([package, *(p for p in inner if p != "__init__")])] = path
    return out


FILES = files()


def imports(tree: ast.AST, everywhere: bool = True) -> Iterator[str]:
    """Names of imported modules (`from a import b` gives a and a.b); those inside functions if `everywhere`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or everywhere:
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            if everywhere or not guarded:
                yield from imports(node, everywhere)


def wrong(module: str, tree: ast.AST) -> list[str]:
    """Imports of a module's source that its layer does not allow."""
    layer = next(package for package in PACKAGES if module == package or module.startswith(package + "."))
    found = [name for name in imports(tree) if name.split(".")[0] in ("", "spuvm", "compiler", "runtime")]
    return [n for n in found if not any(n == ok or n.startswith(ok + ".") for ok in MAY_IMPORT[layer])]


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module: str) -> None:
    assert wrong(module, ast.parse(FILES[module].read_text())) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("spuvm.runtime.link.link", "from spuvm.compiler.ir import Type"),
        ("spuvm.runtime.link.link", "def f():\n    import spuvm.compiler.ir.module"),
        ("spuvm.runtime.link.link", "from spuvm import Config"),
        ("spuvm.compiler.ir.module", "if TYPE_CHECKING:\n    from spuvm.jit import jit"),
        ("spuvm.compiler.ir.module", "from .builder import Builder"),
        ("spuvm.jit", "import compiler.ir.module"),
    ],
)
def test_the_check_finds_what_is_wrong(module: str, source: str) -> None:
    assert wrong(module, ast.parse(source))


def reached(module: str) -> set[str]:
    """All modules that importing `module` imports, as far as they are ours, and what these import."""
    seen, work = set(), [module]
    while work:
        name = work.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in FILES:
            work += [".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1)]
            work += list(imports(ast.parse(FILES[name].read_text()), everywhere=False))
    return seen


def test_the_package_needs_no_extras() -> None:
    reach = reached("spuvm")
    assert "spuvm.runtime.link.tls.link" in reach  # the walk goes somewhere
    outside = {name.split(".")[0] for name in reach} - {"spuvm", "__future__"} - set(sys.stdlib_module_names)
    assert outside <= ALWAYS


def test_importing_changes_nothing_in_jax_and_loads_nothing_heavy() -> None:
    script = """
import jax, json, sys, threading
values = lambda: {k: repr(v) for k, v in jax.config.values.items()}
before = values()
import spuvm
after = values()
print(json.dumps({
    "changed": [k for k in before if before[k] != after[k]],
    "x64": jax.numpy.arange(3).dtype.name,
    "threads": threading.active_count(),
    "modules": sorted({m.split(".")[0] for m in sys.modules}),
}))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen = json.loads(run.stdout)
    assert seen["changed"] == []
    assert seen["x64"] == "int32"
    assert seen["threads"] == 1
    assert not {"pyarrow", "pandas", "sklearn", "rich", "click", "pytest"} & set(seen["modules"])
