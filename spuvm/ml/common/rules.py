"""What parameters of estimators may be: a table of checks, made before anything is computed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from spuvm.runtime.errors import ConfigError


class Rule(NamedTuple):
    """`holds` says whether a value may be; `want` says in words what may."""

    holds: Callable[[Any], bool]
    want: str


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def one_of(*values: Any) -> Rule:
    """One of these values."""
    return Rule(lambda x: any(x is v or (type(x) is type(v) and x == v) for v in values), f"one of {_listed(values)}")


def between(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both included."""
    return Rule(lambda x: _number(x) and low <= x <= high, f"a number from {low:g} to {high:g}")


def whole(low: int, high: int = 1 << 31) -> Rule:
    """A whole number from `low` to `high`."""
    want = f"a whole number, {low} or more" if high == 1 << 31 else f"a whole number from {low} to {high}"
    return Rule(lambda x: _whole(x) and low <= x <= high, want)


def optional(rule: Rule) -> Rule:
    """None, or what the rule says."""
    return Rule(lambda x: x is None or rule.holds(x), f"{rule.want}, or None")


POSITIVE = Rule(lambda x: _number(x) and 0 < x <= 1e9, "a number above 0 and at most a billion")
NOT_NEGATIVE = Rule(lambda x: _number(x) and 0 <= x <= 1e9, "a number from 0 to a billion")
SHARE = between(0, 1)
COUNT = whole(1)
FLAG = Rule(lambda x: isinstance(x, bool), "True or False")
SEED = Rule(lambda x: _whole(x) and 0 <= x < 1 << 32, "a whole number from 0 to 2^32 - 1")
TOLERANCE = optional(Rule(lambda x: _number(x) and 0 < x < 1, "a number between 0 and 1"))


def check(owner: str, rules: Mapping[str, Rule], values: Mapping[str, Any]) -> None:
    """That every value is what its rule says; ConfigError for the first that is not."""
    for name, rule in rules.items():
        if not rule.holds(values[name]):
            raise ConfigError(f"`{name}` of {owner} must be {rule.want}, got {values[name]!r}.")


def check_names(owner: str, names: Iterable[str], known: Iterable[str]) -> None:
    """That parameters are known; ConfigError names the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            raise ConfigError(f"unknown parameter `{name}` of {owner}{hint}: there are {', '.join(known)}.")


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(repr(v) for v in values)
