"""The text form of the IR (`.spux`): what the parties review, hash and agree on.

    spux 1
    module "mean"
    config {"fxp_fraction_bits": 18, ...}
    ranges [["input", -3, 4], ...]          (of a calibrated program: 2^-3 to 2^4, known to all)
    input %0 "x" float32 : fxp18[4] secret
    %1 = sum %0 {"axes": [0]} : fxp18[] secret  # train.py:12
    output %1 "out" float32

One operation a line: results, name, operands, attributes as JSON, result types, source line. The
regions of an operation follow it, each `(parameters) {`, operations, `yield`, `}`. The data of a
constant are raw ring elements, signed; long ones are base64 of the deflated little-endian words.
Values are numbered in the order of their definition, so equal programs have equal text.

What is read may come from somebody who wants to deceive its reviewers, or to exhaust them: a text is refused unless
it is character by character what this module would print, of visible characters alone, with `\\n` as its only line
end, and no constant takes more memory than `RATIO` times its text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from spuvm.compiler.ir import ops
from spuvm.compiler.ir.module import Location, Module, Op, Region, Type, Value
from spuvm.runtime.errors import IRError
from spuvm.runtime.legible import hidden, legible
from spuvm.runtime.ring.elements import RING_DTYPE, signed, words

VERSION = 1
INLINE_CONSTANT = 16  # longer constants are deflated
RATIO = 16  # bytes of a constant to one of its text, at most; what deflates better is only Huffman-coded

SHOWN = 200  # characters of a line, in an error

MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)

TYPE = re.compile(r"(?a)(\w+)\[((?:\d+(?:,\d+)*)?)\] (public|secret|private\((\d+)\)( masked)?)")
NAMED = re.compile(r'(?a)(input|output) %(\d+) ("(?:[^"\\]|\\.)*") (\w+)(?: : (.*))?')
OP = re.compile(r"(?a)((?:%\d+(?:, )?)+) = (\w+)((?: %\d+,?)*)")


def program_hash(module: Module) -> str:
    """SHA-256 of the text without source lines: the same program, wherever its source lies.

    Long constants go into it by their own SHA-256: the same, whichever zlib deflates them.
    """
    text = "\n".join(_Printer(locations=False, long=_digest).module(module)) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()


# Printing --------------------------------------------------------------------------------------------


def to_text(module: Module, *, locations: bool = True) -> str:
    return "\n".join(_Printer(locations, _deflated).module(module)) + "\n"


class _Printer:
    """`long` writes the long constants."""

    def __init__(self, locations: bool, long: Callable[[np.ndarray[Any, Any]], str]) -> None:
        self.locations = locations
        self.long = long
        self.names: dict[Value, str] = {}

    def module(self, m: Module) -> Iterator[str]:
        yield f"spux {VERSION}"
        yield f"module {_name(m.name)}"
        yield f"config {json.dumps(m.config, sort_keys=True)}"
        if m.ranges:
            yield f"ranges {json.dumps(m.ranges)}"
        for name, dtype, value in zip(m.inputs, m.input_dtypes, m.body.params, strict=True):
            yield f"input {self.define(value)} {_name(name)} {dtype} : {value.type}"
        for op in m.body.ops:
            yield from self.op(op, "")
        for name, dtype, value in zip(m.outputs, m.output_dtypes, m.body.results, strict=True):
            yield f"output {self.names[value]} {_name(name)} {dtype}"

    def define(self, value: Value) -> str:
        return self.names.setdefault(value, f"%{len(self.names)}")

    def op(self, op: Op, indent: str) -> Iterator[str]:
        operands = ", ".join(self.names[v] for v in op.inputs)
        # regions see none of the results, but a reader expects numbers to grow: results come first
        results = ", ".join(map(self.define, op.outputs))
        types = ", ".join(str(v.type) for v in op.outputs)
        attrs = json.dumps({k: self.plain(v) for k, v in op.attrs.items()}, sort_keys=True)
        line = f"{indent}{results} = {op.name}" + (f" {operands}" if operands else "")
        line += f" {attrs}" if op.attrs else ""
        line += f" : {types}"
        if self.locations and op.location.file:
            line += f"  # {legible(str(op.location))}".rstrip()
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

    def plain(self, attribute: Any) -> Any:
        if not isinstance(attribute, np.ndarray):
            return attribute
        if attribute.dtype.kind == "f":  # real numbers of an elementary function
            return attribute.tolist()
        if attribute.size <= INLINE_CONSTANT:
            return signed(np.ascontiguousarray(attribute)).ravel().tolist()
        return self.long(attribute)


def _name(name: str) -> str:
    return json.dumps(legible(name))


def _deflated(array: np.ndarray[Any, Any]) -> str:
    raw = array.tobytes()  # all supported hosts are little-endian
    short = base64.b64encode(zlib.compress(raw, 6))
    if len(raw) > RATIO * len(short):
        coder = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
        short = base64.b64encode(coder.compress(raw) + coder.flush())
    return short.decode()


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


# Parsing ---------------------------------------------------------------------------------------------


def parse(text: str) -> Module:
    """The module of a text; IRError with the line number if it is ill-formed or ill-typed, or not as we print it."""
    parser = _Parser(text.removesuffix("\n").split("\n"))
    try:
        parser.check_characters()
        module = parser.module()
    except MALFORMED as e:
        raise parser.error(f"{type(e).__name__}: {e}") from None
    try:
        ops.check(module)
    except MALFORMED as e:
        raise IRError(f"an operation with wrong attributes: {type(e).__name__}: {e}") from None
    parser.check_form(module)
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
        self.long: dict[int, str] = {}  # by the identity of a long constant, its text

    def check_characters(self) -> None:
        """What a reviewer does not see, or sees elsewhere than it is, has no place in a program."""
        for number, line in enumerate(self.lines, 1):
            if not (line.isascii() and line.isprintable()) and (found := [c for c in line if hidden(c)]):
                self.position = number
                raise self.error(f"it has the character U+{ord(found[0]):04X}, which nobody sees: compile it again")

    def check_form(self, module: Module) -> None:
        """The text says what it means in the one way that we print it: no spaces, keys or digits to hide behind."""
        printer = _Printer(True, lambda array: self.long[id(array)])
        for number, (due, line) in enumerate(zip_longest(printer.module(module), self.lines), 1):
            if due != line:
                self.position = number
                raise self.error(f"it is not as spuvm prints it, which is `{(due or '')[:SHOWN]}`: compile it again")

    def error(self, message: str) -> IRError:
        return IRError(f"line {self.position}: {message}")

    def peek(self) -> str:
        return self.lines[self.position].strip(" ") if self.position < len(self.lines) else ""

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
        return self.visible(json.loads(rest))

    def visible(self, x: Any) -> Any:
        """What JSON gave, if none of its texts hides anything."""
        if isinstance(x, str) and any(map(hidden, x)):
            raise self.error(f"a text with characters that nobody sees: {x!a}")
        if isinstance(x, list):
            for item in x:
                self.visible(item)
        if isinstance(x, dict):
            for item in (*x, *x.values()):
                self.visible(item)
        return x

    def module(self) -> Module:
        version = self.field("spux")
        if version != VERSION:
            raise self.error(f"format version {version} is not {VERSION}: compile the program again")
        m = Module(self.field("module"), Region(), config=self.field("config"))
        self.ring_bits = m.config.get("ring_bits", 64)
        if self.ring_bits not in RING_DTYPE:
            raise self.error(f"a ring of {self.ring_bits} bits")
        if self.peek().startswith("ranges "):
            m.ranges = tuple((str(what), int(low), int(high)) for what, low, high in self.field("ranges"))
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
        return match[2], self.visible(json.loads(match[3])), match[4], match[5]

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
        self.visible({k: v for k, v in attrs.items() if k != "data"})
        return {k: v if k == "data" else _tuples(v) for k, v in attrs.items()}, text[1 + end :]

    def data(self, data: Any, type_: Type) -> np.ndarray[Any, Any]:
        if isinstance(data, list):
            if len(data) > INLINE_CONSTANT:
                raise self.error(f"{len(data)} numbers, where more than {INLINE_CONSTANT} are deflated")
            raw = words(np.array([int(x) for x in data], object), self.ring_bits)
        else:
            raw = self.inflated(data, type_.size)
        if raw.size != type_.size:
            raise self.error(f"{raw.size} numbers for a constant {type_}")
        raw = raw.reshape(type_.shape)
        if not isinstance(data, list):
            self.long[id(raw)] = data
        return raw

    def inflated(self, data: str, size: int) -> np.ndarray[Any, Any]:
        """At most one word more than the type says, and `RATIO` times the text, however much it would inflate to."""
        dtype = RING_DTYPE[self.ring_bits]
        try:
            limit = min(dtype.itemsize * (size + 1), RATIO * len(data))
            raw = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), limit)
        except (binascii.Error, zlib.error) as e:
            raise self.error(f"damaged constant: {e}") from None
        return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)

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
