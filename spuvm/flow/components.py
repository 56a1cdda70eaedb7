"""Components: typed functions that flows are made of, and the registry that packages extend.

    @spu.component
    def shifted(x: Number, *, by: Annotated[float, between(0, 1), "what is added"] = 0.5) -> Number:
        \"\"\"A number and something more.\"\"\"
        return x + by

Arguments of a kind (`spuvm.flow.kinds`) are inputs, all others are parameters. A result is one value, or a NamedTuple
of several. A package offers components by the entry point group `spuvm.components`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints, overload

from spuvm.data.schema import nearest
from spuvm.flow import code
from spuvm.flow.kinds import Kind
from spuvm.flow.parameters import REQUIRED, Parameter, parameter, plain
from spuvm.flow.refs import Call, Ref
from spuvm.runtime.errors import ConfigError

GROUP = "spuvm.components"
BUILT_IN = ("tables", "frames", "preparing", "training", "judging", "statistics", "private")
RESERVED = ("component", "name", "retries")
ONE = "out"


@dataclass(frozen=True)
class Port:
    """An input or an output; `many` takes any number of values, `optional` may be left out."""

    name: str
    kind: Kind
    many: bool = False
    optional: bool = False


class Reads(NamedTuple):
    """What a source takes from whom: columns of an entry of a party's catalogue; () are all columns."""

    party: str
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Component:
    """A function with typed inputs, outputs and parameters.

    Attributes:
        reads: of a source, what its parameters ask of whose catalogue.
        at: the parameter that names the one party where it runs; None if it needs several.
        kept: whether what it gave is taken again when nothing has changed.
        place: the argument that is given the places of the run; see `places.Places`.
        shows: what it hands out in the clear beside what programs reveal, in words.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: tuple[Parameter, ...]
    help: str
    several: Any = None
    reads: Callable[[Mapping[str, Any]], Reads] | None = None
    at: str | None = None
    kept: bool = True
    place: str | None = None
    shows: tuple[str, ...] = ()
    built_in: bool = field(default=False, compare=False)

    @cached_property
    def digest(self) -> str:
        """Of its own code: what parties agree on. That of this package is in its version."""
        return "built in" if self.built_in else code.of_function(self.function)

    @cached_property
    def memory(self) -> str:
        """Of all code that its results depend on."""
        return f"{self.digest} {code.of_package()}"

    def __call__(self, *inputs: Any, name: str | None = None, retries: int = 0, **given: Any) -> Any:
        """A node of a flow: nothing runs. The result stands for its output, or is a NamedTuple of those.

        Args:
            name: of the node; the component's, perhaps with a number, if not given.
            retries: how often it is tried again after a peer was lost, or a file or network failed.
            inputs, given: outputs of other nodes, and parameters.
        """
        named = {k: given.pop(k) for k in [p.name for p in self.inputs if not p.many] if k in given}
        call = Call(self, self._wired(inputs, named), self.checked(given), name, retries)
        refs = [Ref(call, port.name) for port in self.outputs]
        return refs[0] if self.several is None else self.several(*refs)

    def _wired(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """Values by input."""
        if self.inputs and self.inputs[0].many:
            if named:
                raise ConfigError(f"component `{self.name}` takes its inputs by place: leave out `{min(named)}=`.")
            return {self.inputs[0].name: tuple(inputs)}
        if len(inputs) > len(self.inputs):
            raise ConfigError(f"component `{self.name}` takes {len(self.inputs)} inputs, got {len(inputs)}.")
        out = {port.name: (value,) for port, value in zip(self.inputs, inputs)}
        for key, value in named.items():
            if key in out:
                raise ConfigError(f"input `{key}` of component `{self.name}` is given twice.")
            out[key] = (value,)
        return {k: v for k, v in out.items() if v != (None,)}

    def checked(self, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """All parameters, checked; defaults where none is given."""
        where = where or f"component `{self.name}`"
        known = [p.name for p in self.parameters]
        for key in given:
            if key not in known:
                names = [*known, *(p.name for p in self.inputs)]
                takes = f"it takes {', '.join(names)}" if names else "it takes nothing"
                raise ConfigError(f"{where} has no parameter `{key}`{nearest(key, names)}: {takes}.")
        out = {}
        for p in self.parameters:
            if p.name in given:
                out[p.name] = p.checked(given[p.name], where)
            elif p.required:
                raise ConfigError(f"{where} lacks `{p.name}`: {p.want}.")
            else:
                out[p.name] = p.default
        return out

    def output(self, name: str) -> Port | None:
        """An output by its name."""
        return next((p for p in self.outputs if p.name == name), None)

    def results(self, value: Any) -> dict[str, Any]:
        """What the function gave, by output; ConfigError for what is not of the stated kind."""
        values = [value] if self.several is None else list(value)
        for port, x in zip(self.outputs, values):
            if not port.kind.holds(x):
                raise ConfigError(
                    f"component `{self.name}` gave a `{type(x).__name__}` as `{port.name}`, which is no {port.kind}."
                )
        return dict(zip([p.name for p in self.outputs], values))

    def __repr__(self) -> str:
        return f"<component {self.name}>"


# Making ---------------------------------------------------------------------------------------------------


@overload
def component(function: Callable[..., Any], /) -> Component: ...


@overload
def component(*, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Component]: ...


def component(function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a component of a typed function, and register it.

    Args:
        name: under which flows know it; the function's if not given.
        options: `reads`, `at`, `kept`, `shows`: see `Component`.

    Raises:
        ConfigError: for a function whose arguments or result are not annotated, or a name that is taken.
    """
    if function is None:
        return lambda f: _registered(f, name, options)
    return _registered(function, name, options)


def _registered(function: Callable[..., Any], name: str | None, options: Mapping[str, Any]) -> Component:
    made = of_function(function, name or function.__name__, **options)
    before = REGISTRY.get(made.name)
    if before is not None and before.function.__module__ != made.function.__module__:
        raise ConfigError(f"there is a component `{made.name}` already, of {before.function.__module__}: rename one.")
    REGISTRY[made.name] = made
    return made


REGISTRY: dict[str, Component] = {}


def of_function(function: Callable[..., Any], name: str, **options: Any) -> Component:
    """A component, not registered."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(f"annotations of `{name}` cannot be read: {error}. Import what they name.") from None
    inputs, parameters, place = [], [], None
    for key, argument in inspect.signature(function).parameters.items():
        if key not in hints:
            raise ConfigError(f"argument `{key}` of component `{name}` has no annotation: say what it takes.")
        if key in RESERVED:
            raise ConfigError(f"argument `{key}` of component `{name}`: {', '.join(RESERVED)} are a node's own.")
        kind, optional = _kind(hints[key])
        if kind is not None:
            inputs.append(Port(key, kind, argument.kind is argument.VAR_POSITIONAL, optional))
        elif getattr(hints[key], "__name__", "") == "Places":
            place = key
        else:
            default = REQUIRED if argument.default is argument.empty else argument.default
            parameters.append(parameter(key, hints[key], default))
    outputs, several = _outputs(hints.get("return"), name)
    text = inspect.getdoc(function) or ""
    built_in = function.__module__.startswith(code.BUILT_IN)
    return Component(
        name,
        function,
        tuple(inputs),
        outputs,
        tuple(parameters),
        text,
        several,
        place=place,
        built_in=built_in,
        **options,
    )


def _kind(annotation: Any) -> tuple[Kind | None, bool]:
    if get_origin(annotation) is Annotated:
        return next((a for a in get_args(annotation) if isinstance(a, Kind)), None), False
    for inner in get_args(annotation):  # Kind | None
        if type(None) in get_args(annotation):
            kind, _ = _kind(inner)
            if kind is not None:
                return kind, True
    return None, False


def _outputs(annotation: Any, name: str) -> tuple[tuple[Port, ...], Any]:
    kind, _ = _kind(annotation)
    if kind is not None:
        return (Port(ONE, kind),), None
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        hints = get_type_hints(annotation, include_extras=True)
        ports = tuple(Port(f, _kind(hints[f])[0]) for f in annotation._fields)  # type: ignore[arg-type]
        if ports and all(p.kind is not None for p in ports):
            return ports, annotation
    raise ConfigError(f"component `{name}` does not say which kind its result is: annotate it, as `-> Number`.")


# Finding --------------------------------------------------------------------------------------------------


def known() -> dict[str, Component]:
    """All components by name: built in, of packages that are installed, and of this process."""
    for inner in BUILT_IN:
        importlib.import_module(f"{code.BUILT_IN}{inner}")
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name not in _LOADED:
            _LOADED.add(entry.name)
            entry.load()
    return dict(sorted(REGISTRY.items()))


_LOADED: set[str] = set()


def find(name: str, where: str = "") -> Component:
    """A component by its name; ConfigError names the nearest if there is none."""
    found = REGISTRY.get(name) or known().get(name)
    if found is None:
        raise ConfigError(
            f"{where}there is no component `{name}`{nearest(name, list(REGISTRY))}: `spuvm component list` shows all."
        )
    return found


def described(c: Component) -> dict[str, Any]:
    """A component as JSON has it."""
    return {
        "name": c.name,
        "help": c.help,
        "inputs": {p.name: str(p.kind) + " ..." * p.many for p in c.inputs},
        "outputs": {p.name: str(p.kind) for p in c.outputs},
        "parameters": {
            p.name: {"takes": p.want, "help": p.help} | ({} if p.required else {"default": plain(p.default)})
            for p in c.parameters
        },
    }
