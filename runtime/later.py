"""Names of a package that are loaded when they are first used, so that what needs few of them starts at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def later(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its `__name__`.
        names: where each public name comes from: "module", or "module:attribute". No module directly in the package
            may have the name of another thing: importing it would put it in the thing's place.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module `{package}` has no attribute `{name}`")
        module, _, attribute = names[name].partition(":")
        found = importlib.import_module(module)
        value = getattr(found, attribute) if attribute else found
        vars(sys.modules[package])[name] = value
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get, listed
