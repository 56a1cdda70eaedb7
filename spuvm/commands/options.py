"""What several commands take: the syntax of arguments, inputs and outputs, and shared options."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from spuvm.data.files import FORMATS
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, OPTIMIZE, TRUNCATIONS, Config
from spuvm.runtime.engine import device
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.registered import PROTOCOLS, protocol_of, usual_parties

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
LEAF = r"[A-Za-z_][\w.\[\]]*"
ARGUMENT = re.compile(rf"(?:({LEAF})=)?([a-z]\w*)(?:\[([\d, ]*)\])?(?:@({NAME}))?")
FILE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, FORMATS))}))(?::(.+?))?(?:@({NAME}))?", re.IGNORECASE)
NUMBER = re.compile(rf"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|true|false)(?:@({NAME}))?", re.IGNORECASE)
SHORT = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint"}
USUAL_PARTIES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Argument:
    """`x=f32[1000,30]@alice`: an argument's type without its data; `name` only if given."""

    dtype: str
    shape: tuple[int, ...]
    who: str | None  # an owner, "public", "secret", or not said
    name: str | None = None


@dataclass(frozen=True)
class Input:
    """`x=a.csv:age,bmi@alice` or `rate=0.1`: an argument's data."""

    name: str
    path: Path | None
    columns: tuple[str, ...]
    who: str | None
    number: bool | int | float | None = None


@dataclass(frozen=True)
class Output:
    """`y=out.csv:risk`: where a result goes."""

    name: str | None
    path: Path
    columns: tuple[str, ...]


class _Type(click.ParamType):  # type: ignore[type-arg]
    """A type whose `parse` raises ValueError with what is wrong."""

    def parse(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ArgumentType(_Type):
    name = "[name=]dtype[shape][@party]"

    def parse(self, text: str) -> Argument:
        match = ARGUMENT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not like 'f32[1000,30]@alice', 'i32[8]', 'f32[]@public' or 'x=f32[3]'.")
        name, dtype, shape, who = match.groups()
        prefix = re.fullmatch(r"(bf|f|i|u)(\d+)", dtype)
        if prefix:
            dtype = SHORT[prefix[1]] + prefix[2]
        sizes = tuple(int(part) for part in (shape or "").split(",") if part.strip())
        return Argument(dtype, sizes, who, name)


class InputType(_Type):
    name = "name=file[:columns][@party]"

    def parse(self, text: str) -> Input:
        name, equals, rest = text.partition("=")
        if not equals or not re.fullmatch(LEAF, name.strip()):
            raise ValueError(f"{text!r} is not like 'x=data.csv', 'x=data.parquet:age,bmi@alice' or 'rate=0.1'.")
        number = NUMBER.fullmatch(rest.strip())
        if number:
            return Input(name.strip(), None, (), number[2], ast.literal_eval(number[1].lower().capitalize()))
        path, columns, who = _file(rest)
        return Input(name.strip(), path, columns, who)


class OutputType(_Type):
    name = "[name=]file[:columns]"

    def parse(self, text: str) -> Output:
        name, equals, rest = text.partition("=")
        if not equals or not re.fullmatch(r"[\w.\[\]]+", name.strip()) or ("." in name and _is_file(name)):
            name, rest = "", text
        path, columns, who = _file(rest)
        if who is not None:
            raise ValueError(f"{text!r}: who may see a result is said in the program: leave out `@{who}`.")
        return Output(name.strip() or None, path, columns)


class StaticType(_Type):
    name = "argument=value"

    def parse(self, text: str) -> tuple[int | str, Any]:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{text!r} is not like '3=10' or 'epochs=10'.")
        try:
            parsed = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            parsed = value
        return (int(key) if key.strip().isdigit() else key.strip()), parsed


class NamesType(_Type):
    name = "name,name,..."

    def parse(self, text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        if not all(re.fullmatch(NAME, name) for name in names):
            raise ValueError(f"{text!r} must be names of ASCII letters, digits, `_`, `-` and `.`, with commas between.")
        return names


def _is_file(text: str) -> bool:
    return text.lower().endswith(tuple(FORMATS))


def _file(text: str) -> tuple[Path, tuple[str, ...], str | None]:
    match = FILE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no file name that ends in {', '.join(FORMATS)}.")
    path, columns, who = match.groups()
    return Path(path), tuple(c.strip() for c in columns.split(",")) if columns else (), who


# Options ------------------------------------------------------------------------------------------------


def machine_options(command: F) -> F:
    """Protocol, ring and fixed point."""
    return _with(_MACHINE_OPTIONS, command)


def function_options(command: F) -> F:
    """What describes a Python function's arguments and the machine it is compiled for."""
    return _with((*_FUNCTION_OPTIONS, *_MACHINE_OPTIONS), command)


def timeout_option(default: float | None = None, otherwise: str = "") -> Callable[[F], F]:
    """`--timeout SECONDS`; `otherwise` says what holds if it is not given and there is no default."""
    says = f"Limit of any wait.  [default: {otherwise}]" if otherwise else "Limit of any wait."
    kind = click.FloatRange(0.1)
    return click.option(
        "--timeout", metavar="SECONDS", type=kind, default=default, show_default=default is not None, help=says
    )


def device_option(command: F) -> F:
    """`--device NAME`: what this process computes on, for as long as the command runs."""
    option = click.option(
        "--device",
        metavar="NAME",
        callback=_on_device,
        help="Compute on a device of JAX's, by XLA: gpu, cpu:0 or the like.  [default: the vector engine]",
    )
    return option(command)


def _on_device(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        device.found(name)
        context.with_resource(device.on(name))
    return name


def _with(options: tuple[Callable[[F], F], ...], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command


_MACHINE_OPTIONS: tuple[Any, ...] = (
    click.option("--protocol", type=click.Choice(sorted(PROTOCOLS)), help="[default: aby3]"),
    click.option("--ring", type=int, help="Bits of the ring: 32, 64 or 128.  [default: 64]"),
    click.option("--fxp", type=int, help="Fraction bits of fixed point.  [default: 18]"),
    click.option(
        "--truncation",
        type=click.Choice(TRUNCATIONS),
        help="Round fixed point by chance, or always down, which takes more rounds.  [default: probabilistic]",
    ),
    click.option(
        "--optimize",
        type=click.Choice(OPTIMIZE),
        help="Circuits of fewer rounds, of fewer bytes, or the usual ones.  [default: auto]",
    ),
)
_FUNCTION_OPTIONS: tuple[Any, ...] = (
    click.option(
        "--arg",
        "arguments",
        type=ArgumentType(),
        multiple=True,
        help="Type of the next argument, like 'f32[1000,30]@alice', or of the one named, like 'y=i32[8]'. "
        "After `@`: its owner, `public`, or `secret` (the default).",
    ),
    click.option(
        "--static",
        "statics",
        type=StaticType(),
        multiple=True,
        help="A Python value for an argument, by position (from 0) or name.",
    ),
    click.option("--reveal", metavar="PARTY", help="Reveal every result: to a party, or to `all`."),
    click.option("--parties", type=NamesType(), help="Names by rank.  [default: alice,bob,carol]"),
    click.option(
        "--others", type=NamesType(), help="Parties that do not compute: they bring inputs or are shown results."
    ),
    click.option(
        "--missing",
        "missing",
        metavar="NAME",
        multiple=True,
        help="An argument of which cells may be missing: NaN in the function, where it is secret which.",
    ),
    click.option("--guard", is_flag=True, help="Notice numbers that leave the ring: reveals one bit (docs/numbers.md)"),
    click.option("--x64", is_flag=True, help="Trace with 64-bit numbers, as with JAX_ENABLE_X64."),
)


def make_config(
    protocol: str | None,
    ring: int | None,
    fxp: int | None,
    parties: tuple[str, ...] | None,
    base: Config | None,
    others: tuple[str, ...] | None = None,
    truncation: str | None = None,
    optimize: str | None = None,
) -> Config:
    """The configuration that the options say; what they leave open is as in `base`, or usual."""
    protocol = protocol or (base.protocol if base else "aby3")
    ring = ring or (base.ring_bits if base else 64)
    if fxp is None:
        fxp = base.fxp_fraction_bits if base and base.ring_bits == ring else DEFAULT_FRACTION_BITS.get(ring, 18)
    if parties is None:
        parties = base.parties if base else USUAL_PARTIES[: usual_parties(protocol)]
    if others is None:
        others = base.others if base else ()
    for name in (*parties, *others):
        if name in ("public", "secret", "all"):
            raise ConfigError(f"`--parties`: no party can be called {name!r}.")
    truncation = truncation or (base.truncation if base else TRUNCATIONS[0])
    optimize = optimize or (base.optimize if base else OPTIMIZE[0])
    config = Config(protocol, ring, fxp, parties, others, truncation, optimize)
    protocol_of(config)
    return config
