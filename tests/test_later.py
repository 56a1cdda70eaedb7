"""Names that are loaded when they are first used, and commands that start without JAX."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import spuvm
import spuvm.psi

LIGHT = ("audit", "keys", "relay", "service")


@pytest.mark.parametrize("package", [spuvm, spuvm.psi], ids=lambda p: p.__name__)
def test_names_are_those_that_types_are_checked_by(package: ModuleType) -> None:
    assert package.__file__
    (checked,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    imported = {}
    for statement in checked.body:
        assert isinstance(statement, ast.ImportFrom)
        (name,) = statement.names
        imported[name.asname] = {f"{statement.module}:{name.name}", f"{statement.module}.{name.name}"}
    assert imported.keys() == package.NAMES.keys()
    for name, where in package.NAMES.items():
        assert where in imported[name]
        value = getattr(package, name)
        # A module of the name of something else would stand in its place from when it is first imported.
        module = f"{package.__name__}.{name}"
        assert importlib.util.find_spec(module) is None or where in (module, f"{module}:{name}"), name
        assert isinstance(value, ModuleType) == (":" not in where)
        assert name in dir(package)
    with pytest.raises(AttributeError, match=r"has no attribute `other`"):
        _ = package.other


def test_commands_that_need_no_jax_load_none() -> None:
    code = f"import sys, spuvm; [__import__('spuvm.commands.' + n) for n in {LIGHT}]; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
