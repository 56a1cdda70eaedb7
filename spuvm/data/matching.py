"""The door to joins: how `vertical(match=...)` finds the rows that all owners have; `spuvm.psi` stands behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from spuvm.devices import PYUObject
from spuvm.runtime.errors import InputError

Matcher = Callable[..., Mapping[str, PYUObject]]  # (sources, key, **options) -> arrow tables of the same rows, by party

BEHIND = "spuvm.psi.frames"
MATCHERS: dict[str, Matcher] = {}


def register(name: str, matcher: Matcher) -> None:
    """Offer a way to match. A name is registered once."""
    assert name not in MATCHERS, f"`match={name!r}` is registered twice"
    MATCHERS[name] = matcher


def matched(
    sources: Mapping[str, Any], key: str | tuple[str, ...], match: str, options: Mapping[str, Any]
) -> Mapping[str, PYUObject]:
    """The sources with the rows that match, at every owner in the same order.

    Raises:
        InputError: for an unknown `match`.
    """
    importlib.import_module(BEHIND)  # where the matcher registers; most processes never need it
    if match not in MATCHERS:
        raise InputError(f"`match` must be one of {', '.join(MATCHERS)}, or None, got {match!r}.")
    return MATCHERS[match](sources, key, **options)
