"""Parameters of components: their types, rules and defaults; each value is checked before anything runs."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from spuvm.ml.common.rules import Rule, between, one_of, whole
from spuvm.runtime.errors import ConfigError

REQUIRED = "a value must be given"


class PartyName:
    """Marks a text that names a party."""


class Choice(NamedTuple):
    """How values of a type are taken: `convert` gives the value as the component has it, or raises ValueError."""

    convert: Callable[[Any], Any]
    want: str


Party = Annotated[str, PartyName]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component.

    Attributes:
        choices: the types that it may have.
        default: `REQUIRED` if there is none.
        party: whether it names a party.
    """

    name: str
    choices: tuple[Choice, ...]
    default: Any = REQUIRED
    rule: Rule | None = None
    help: str = ""
    party: bool = False

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def want(self) -> str:
        """In words, what it takes."""
        return self.rule.want if self.rule is not None else " or ".join(c.want for c in self.choices)

    def checked(self, value: Any, where: str) -> Any:
        """The value, converted; ConfigError if it cannot be one."""
        for choice in self.choices:
            try:
                found = choice.convert(value)
            except (ValueError, TypeError):
                continue
            if self.rule is None or self.rule.holds(found):
                return found
        raise ConfigError(f"`{self.name}` of {where} must be {self.want}, got {value!r:.80}.")


def parameter(name: str, annotation: Any, default: Any = REQUIRED) -> Parameter:
    """The parameter that an annotation describes: `int`, `Annotated[int, whole(1, 9), "how many"]`, `tuple[str, ...]`.

    Raises:
        ConfigError: for a type that parameters cannot have.
    """
    extras: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        extras = tuple(rest)
    rule = next((e for e in extras if isinstance(e, Rule)), None)
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        rule = rule or one_of(*values)
        annotation = type(values[0])
    texts = [e for e in extras if isinstance(e, str)]
    choices = _choices(annotation, name)
    return Parameter(name, choices, default, rule, texts[0] if texts else "", PartyName in extras)


def _choices(annotation: Any, name: str) -> tuple[Choice, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(c for a in get_args(annotation) for c in _choices(a, name))
    if annotation in TYPES:
        return (TYPES[annotation],)
    if get_origin(annotation) is tuple:
        inner = _choices(get_args(annotation)[0], name)[0]
        return (Choice(lambda v: _sequence(v, inner), f"a list ({inner.want} each)"),)
    if get_origin(annotation) is dict:
        inner = _choices(get_args(annotation)[1], name)[0]
        return (Choice(lambda v: _mapping(v, inner), f"a table ({inner.want} each)"),)
    raise ConfigError(
        f"parameter `{name}` has a type that no parameter can have: use int, float, str, bool, `tuple[str, ...]`, "
        "`dict[str, ...]`, `Literal[...]`, or `X | None`."
    )


def _only(holds: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda v: v) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError
        return convert(value)

    return check


ANY_INT, ANY_FLOAT = whole(-(1 << 62), 1 << 62), between(-1.7e308, 1.7e308)
TYPES: dict[Any, Choice] = {
    bool: Choice(_only(lambda v: isinstance(v, bool)), "true or false"),
    int: Choice(_only(ANY_INT.holds), "a whole number"),
    float: Choice(_only(ANY_FLOAT.holds, float), "a number"),
    str: Choice(_only(lambda v: isinstance(v, str)), "a text"),
    type(None): Choice(_only(lambda v: v is None), "None"),
}


def _sequence(value: Any, inner: Choice) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        value = [value]
    return tuple(inner.convert(v) for v in value)


def _mapping(value: Any, inner: Choice) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise ValueError
    return {k: inner.convert(v) for k, v in value.items()}


def plain(value: Any) -> Any:
    """A parameter's value as JSON has it."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(value[k]) for k in sorted(value)}
    return value
