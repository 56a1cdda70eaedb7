"""Estimators as components: their parameters, with defaults and rules, are the component's."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from spuvm.flow.components import REGISTRY, of_function
from spuvm.flow.kinds import Rows
from spuvm.flow.parameters import REQUIRED, TYPES
from spuvm.ml import Sgb
from spuvm.ml.common.rules import Rule
from spuvm.ml.parameters import _CHECKS, Parameters

Arguments = Mapping[str, tuple[Any, Any]]  # annotation and default, by name
LEFT_OUT = ("device",)


def parameters_of(made: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each parameter of an estimator that a flow can say."""
    source, checks = (Parameters, _sgb_rules()) if made is Sgb else (made, dict(made.checks))
    hints = get_type_hints(source)
    out = {}
    for field in dataclasses.fields(source):
        if not field.init or field.name in LEFT_OUT:
            continue
        annotation = _sayable(hints[field.name])
        if annotation is not None:
            rule = checks.get(field.name)
            out[field.name] = (annotation if rule is None else Annotated[annotation, rule], field.default)
    return out


def _sgb_rules() -> dict[str, Rule]:
    return {name: Rule(holds, want) for name, (_, holds, want) in _CHECKS.items()}


def _sayable(annotation: Any) -> Any:
    """A type that a parameter can have; None for what TOML cannot say."""
    if annotation is Any:
        return int | float | str | None
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [_sayable(a) for a in get_args(annotation)]
        return None if None in inner else annotation
    if get_origin(annotation) is tuple:
        return tuple[get_args(annotation)[0], ...]  # type: ignore[misc]
    return annotation if annotation in TYPES else None


def as_component(
    name: str, function: Callable[..., Any], made: type[Any], result: Any, more: Arguments, own: Arguments
) -> None:
    """Register a component that fits an estimator: `function(data, **parameters)`."""
    inputs = {"data": (Rows, REQUIRED)}
    arguments = {**inputs, **more, **{k: v for k, v in own.items() if k not in more}}

    def run(**given: Any) -> Any:
        return function(**given)

    run.__name__ = name
    run.__doc__ = (inspect.getdoc(made) or "").partition("\n\n")[0]
    run.__module__ = function.__module__
    run.__annotations__ = {k: a for k, (a, _) in arguments.items()} | {"return": result}
    only = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(k, only, default=inspect.Parameter.empty if d is REQUIRED else d, annotation=a)
            for k, (a, d) in arguments.items()
        ]
    )
    REGISTRY[name] = of_function(run, name)
