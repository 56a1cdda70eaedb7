"""What may import what: spuvm -> compiler -> runtime, and nothing heavy or global on `import spuvm`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
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
        ("spuvm.compiler.ir.module", "if TYPE_CHECKING:\n    from spuvm.marking import jit"),
        ("spuvm.compiler.ir.module", "from .builder import Builder"),
        ("spuvm.marking", "import compiler.ir.module"),
    ],
)
def test_the_check_finds_what_is_wrong(module: str, source: str) -> None:
    assert wrong(module, ast.parse(source))


def room(module: str) -> str:
    """The folder of a module, below its layer; the files right inside of a layer are a room each."""
    layer = next(package for package in PACKAGES if module == package or module.startswith(package + "."))
    inner = module[len(layer) + 1 :].split(".")
    return f"{layer}.{inner[0]}" if inner[0] else layer


def folder(module: str) -> str:
    """A module's room, or its layer if it lies right inside."""
    return module.rpartition(".")[0] if module.rpartition(".")[0] in PACKAGES else room(module)


def arrows(tree: ast.AST, module: str, guarded: bool = False) -> Iterator[str]:
    """The modules that a source imports, inside functions too; under TYPE_CHECKING only those of other folders."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = set(imports(ast.Module([node], []))) & FILES.keys() - PACKAGES.keys()
            exact = {n for n in found if not any(o.startswith(n + ".") for o in found)}
            yield from (n for n in exact if n != module and not (guarded and folder(n) == folder(module)))
        else:
            inside = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from arrows(node, module, guarded or inside)


def circles(graph: Mapping[str, Collection[str]]) -> list[set[str]]:
    """Sets of nodes that reach each other, of two or more."""
    reach = {node: _reach(graph, node) for node in graph}
    groups = {frozenset(o for o in reach[node] if node in reach[o]) for node in graph if node in reach[node]}
    return sorted((set(g) for g in groups if len(g) > 1), key=sorted)


def _reach(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    seen: set[str] = set()
    work = list(graph[start])
    while work:
        node = work.pop()
        if node not in seen:
            seen.add(node)
            work += graph[node]
    return seen


ARROWS = {m: set(arrows(ast.parse(FILES[m].read_text()), m)) for m in FILES if m not in PACKAGES}


def test_no_file_imports_another_in_a_circle() -> None:
    assert circles(ARROWS) == []


def test_no_folder_imports_another_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {room(m): set() for m in ARROWS}
    for module, targets in ARROWS.items():
        rooms[room(module)] |= {room(t) for t in targets} - {room(module)}
    assert circles(rooms) == []


@pytest.mark.parametrize("source", ["from spuvm.b import x", "def f():\n    from spuvm.b import x"])
def test_a_circle_is_found(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "spuvm.a", Path())
    monkeypatch.setitem(FILES, "spuvm.b", Path())
    graph = {
        "spuvm.a": set(arrows(ast.parse(source), "spuvm.a")),
        "spuvm.b": set(arrows(ast.parse("import spuvm.a"), "spuvm.b")),
    }
    assert circles(graph) == [{"spuvm.a", "spuvm.b"}]


def test_every_folder_says_what_it_is() -> None:
    for package, folder in PACKAGES.items():
        for inside in (f.parent for f in folder.rglob("*.py")):
            if package != "spuvm" or inside.relative_to(folder).parts[:1] not in (("compiler",), ("runtime",)):
                assert ast.get_docstring(ast.parse((inside / "__init__.py").read_text())), inside


def reached(*modules: str) -> set[str]:
    """All modules that importing these imports, as far as they are ours, and what these import."""
    seen, work = set(), list(modules)
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
    reach = reached("spuvm", "spuvm.context", "spuvm.devices", "spuvm.marking")
    assert "spuvm.runtime.link.tls.link" in reach  # the walk goes somewhere
    outside = {name.split(".")[0] for name in reach} - {"spuvm", "__future__"} - set(sys.stdlib_module_names)
    assert outside <= ALWAYS


def test_importing_changes_nothing_in_jax_and_loads_nothing_heavy() -> None:
    script = """
import jax, json, sys, threading
values = lambda: {k: repr(v) for k, v in jax.config.values.items()}
before = values()
import spuvm
spuvm.jit, spuvm.init, spuvm.SPU
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
