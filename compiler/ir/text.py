"""The text form of the IR (`.spux`): what the parties review, hash and agree on.

    spux 1
    module "mean"
    config {"fxp_fraction_bits": 18, ...}
    input %0 "x" float32 : fxp18[4] secret
    %1 = sum %0 {"axes": [0]} : fxp18[] secret  # train.py:12
    output %1 "out" float32

One operation a line: results, name, operands, attributes as JSON, result types, source line. The
regions of an operation follow it, each `(parameters) {`, operations, `yield`, `}`. The data of a
constant are raw ring elements, signed; long ones are base64 of the deflated little-endian words.
Values are numbered in the order of their definition, so equal programs have equal text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spuvm.compiler.ir import ops
from spuvm.compiler.ir.module import Location, Module, Op, Region, Type, Value
from spuvm.runtime.errors import IRError
from spuvm.runtime.ring.elements import RING_DTYPE, signed, words

VERSION = 1
INLINE_CONSTANT = 16  # longer constants are deflated

MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)

TYPE = re.compile(r"(\w+)\[((?:\d+(?:,\d+)*)?)\] (public|secret|private\((\d+)\)( masked)?)")
NAMED = re.compile(r'(input|output) %(\d+) ("(?:[^"\\]|\\.)*") (\w+)(?: : (.*))?')
OP = re.compile(r"((?:%\d+(?:, )?)+) = (\w+)((?: %\d+,?)*)")


def program_hash(module: Module) -> str:
    """SHA-256 of the text without source lines: the same program, wherever its source lies."""
    return hashlib.sha256(to_text(module, locations=False).encode()).hexdigest()


# Printing --------------------------------------------------------------------------------------------


def to_text(module: Module, *, locations: bool = True) -> str:
    return "\n".join(_Printer(locations).module(module)) + "\n"


class _Printer:
    def __init__(self, locations: bool) -> None:
        self.locations = locations
        self.names: dict[Value, str] = {}

    def module(self, m: Module) -> Iterator[str]:
        yield f"spux {VERSION}"
        yield f"module {json.dumps(m.name)}"
        yield f"config {json.dumps(m.config, sort_keys=True)}"
        for name, dtype, value in zip(m.inputs, m.input_dtypes, m.body.params, strict=True):
            yield f"input {self.define(value)} {json.dumps(name)} {dtype} : {value.type}"
        for op in m.body.ops:
            yield from self.op(op, "")
        for name, dtype, value in zip(m.outputs, m.output_dtypes, m.body.results, strict=True):
            yield f"output {self.names[value]} {json.dumps(name)} {dtype}"

    def define(self, value: Value) -> str:
        return self.names.setdefault(value, f"%{len(self.names)}")

    def op(self, op: Op, indent: str) -> Iterator[str]:
        operands = ", ".join(self.names[v] for v in op.inputs)
        # regions see none of the results, but a reader expects numbers to grow: results come first
        results = ", ".join(map(self.define, op.outputs))
        types = ", ".join(str(v.type) for v in op.outputs)
        attrs = json.dumps({k: _plain(v) for k, v in op.attrs.items()}, sort_keys=True)
        line = f"{indent}{results} = {op.name}" + (f" {operands}" if operands else "")
        line += f" {attrs}" if op.attrs else ""
        line += f" : {types}"
        if self.locations and op.location.file:
            line += f"  # {op.location}".replace("\n", " ")
        yield line
        for region in op.regions:
            yield from self.region(region, indent + "  ")

    def region(self, region: Region, indent: str) -> Iterator[str]:
        yield f"{indent}({', '.join(f'{self.define(v)}: {v.type}' for v in region.params)}) {{"
        for op in region.ops:
            yield from self.op(op, indent + "  ")
        results = ", ".join(self.names[v] for v in region.results)
        yield f"{indent}  yield {results}".rstrip()
        yield f"{indent}}}"


def _plain(attribute: Any) -> Any:
    if not isinstance(attribute, np.ndarray):
        return attribute
    if attribute.dtype.kind == "f":  # real numbers of an elementary function
        return attribute.tolist()
    if attribute.size <= INLINE_CONSTANT:
        return signed(np.ascontiguousarray(attribute)).ravel().tolist()
    return base64.b64encode(zlib.compress(attribute.tobytes(), 6)).decode()  # all supported hosts are little-endian


# Parsing ---------------------------------------------------------------------------------------------


def parse(text: str) -> Module:
    """The module of a text; IRError with the line number if it is ill-formed, or ill-typed."""
    parser = _Parser(text.splitlines())
    try:
        module = parser.module()
    except MALFORMED as e:
        raise parser.error(f"{type(e).__name__}: {e}") from None
    try:
        ops.check(module)
    except MALFORMED as e:
        raise IRError(f"an operation with wrong attributes: {type(e).__name__}: {e}") from None
    return module


def parse_type(text: str) -> Type:
    """The type that `str` of it gave."""
    return _Parser([]).type(text)


class _Parser:
    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.position = 0
        self.values: dict[str, Value] = {}
        self.ring_bits = 64

    def error(self, message: str) -> IRError:
        return IRError(f"line {self.position}: {message}")

    def peek(self) -> str:
        return self.lines[self.position].strip() if self.position < len(self.lines) else ""

    def next(self) -> str:
        line = self.peek()
        self.position += 1
        if not line:
            raise self.error("the text ends here, or has an empty line")
        return line

    def field(self, keyword: str) -> Any:
        word, _, rest = self.next().partition(" ")
        if word != keyword:
            raise self.error(f"expected `{keyword}`, got `{word}`")
        return json.loads(rest)

    def module(self) -> Module:
        version = self.field("spux")
        if version != VERSION:
            raise self.error(f"format version {version} is not {VERSION}: compile the program again")
        m = Module(self.field("module"), Region(), config=self.field("config"))
        self.ring_bits = m.config.get("ring_bits", 64)
        if self.ring_bits not in RING_DTYPE:
            raise self.error(f"a ring of {self.ring_bits} bits")
        while self.peek().startswith("input "):
            self.input(m)
        while self.peek().startswith("%"):
            m.body.ops.append(self.op())
        while self.position < len(self.lines):
            self.output(m)
        return m

    def input(self, m: Module) -> None:
        number, name, dtype, type_ = self.named("input")
        if type_ is None:
            raise self.error("an input without a type")
        m.body.params.append(self.define(number, self.type(type_)))
        m.inputs, m.input_dtypes = (*m.inputs, name), (*m.input_dtypes, dtype)

    def output(self, m: Module) -> None:
        number, name, dtype, _ = self.named("output")
        m.body.results.append(self.use(number))
        m.outputs, m.output_dtypes = (*m.outputs, name), (*m.output_dtypes, dtype)

    def named(self, keyword: str) -> tuple[str, str, str, str | None]:
        match = NAMED.fullmatch(self.next())
        if match is None or match[1] != keyword:
            raise self.error(f"not an {keyword}")
        return match[2], json.loads(match[3]), match[4], match[5]

    def define(self, number: str, type_: Type) -> Value:
        if number in self.values:
            raise self.error(f"%{number} is defined twice")
        self.values[number] = Value(type_)
        return self.values[number]

    def use(self, number: str) -> Value:
        if number not in self.values:
            raise self.error(f"%{number} is not defined")
        return self.values[number]

    def numbers(self, text: str) -> list[str]:
        return re.findall(r"%(\d+)", text)

    def type(self, text: str) -> Type:
        types = self.types(text)
        if len(types) != 1:
            raise self.error(f"not a type: `{text}`")
        return types[0]

    def types(self, text: str) -> list[Type]:
        found = list(TYPE.finditer(text))
        if ", ".join(m[0] for m in found) != text:
            raise self.error(f"not a list of types: `{text}`")
        return [self.one_type(m) for m in found]

    def one_type(self, m: re.Match[str]) -> Type:
        shape = tuple(int(d) for d in m[2].split(",") if d)
        who = int(m[4]) if m[4] is not None else m[3]
        return ops.parse_element(m[1]).with_(shape=shape, visibility=who, masked=m[5] is not None)

    def op(self) -> Op:
        line, _, place = self.next().partition("  # ")
        match = OP.match(line)
        if match is None:
            raise self.error("not an operation")
        attrs, rest = self.attributes(line[match.end() :])
        if not rest.startswith(" : "):
            raise self.error("expected ` : ` and the types of the results")
        types, results = self.types(rest[3:]), self.numbers(match[1])
        if len(types) != len(results):
            raise self.error(f"{len(types)} types for {len(results)} results")
        inputs = [self.use(n) for n in self.numbers(match[3])]
        if "data" in attrs:
            attrs["data"] = self.data(attrs["data"], types[0])
        op = Op(match[2], inputs, [], attrs, location=self.location(place))
        op.outputs = [self.define(n, t) for n, t in zip(results, types)]
        while self.peek().startswith("("):
            op.regions.append(self.region())
        return op

    def attributes(self, text: str) -> tuple[dict[str, Any], str]:
        if not text.startswith(" {"):
            return {}, text
        attrs, end = json.JSONDecoder().raw_decode(text[1:])
        return {k: v if k == "data" else _tuples(v) for k, v in attrs.items()}, text[1 + end :]

    def data(self, data: Any, type_: Type) -> np.ndarray[Any, Any]:
        if isinstance(data, list):
            raw = words(np.array([int(x) for x in data], object), self.ring_bits)
        else:
            raw = self.inflated(data, type_.size)
        if raw.size != type_.size:
            raise self.error(f"{raw.size} numbers for a constant {type_}")
        return raw.reshape(type_.shape)

    def inflated(self, data: str, size: int) -> np.ndarray[Any, Any]:
        """At most one word more than the type says, however much the text would inflate to."""
        dtype = RING_DTYPE[self.ring_bits]
        try:
            limit = dtype.itemsize * (size + 1)
            raw = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), limit)
        except (binascii.Error, zlib.error) as e:
            raise self.error(f"damaged constant: {e}") from None
        return np.frombuffer(raw, dtype).copy()

    def location(self, text: str) -> Location:
        file, _, line = text.rpartition(":")
        return Location(file, int(line)) if file else Location()

    def region(self) -> Region:
        line = self.next()
        if not line.endswith(") {"):
            raise self.error("expected `(parameters) {`")
        region = Region()
        for parameter in re.findall(r"%\d+: [^%]+", line[1:-3]):
            name, _, type_ = parameter.partition(": ")
            region.params.append(self.define(name[1:], self.type(type_.removesuffix(", "))))
        while self.peek().startswith("%"):
            region.ops.append(self.op())
        word, _, results = self.next().partition(" ")
        if word != "yield":
            raise self.error("expected an operation or `yield`")
        region.results = [self.use(n) for n in self.numbers(results)]
        if self.next() != "}":
            raise self.error("expected `}`")
        return region


def _tuples(x: Any) -> Any:
    return tuple(map(_tuples, x)) if isinstance(x, list) else x
