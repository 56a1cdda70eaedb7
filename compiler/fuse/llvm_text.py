"""Passes -> LLVM's text: a function that takes a block of units through all of them.

    void name(void** arrays, u8* scratch, draw, void* context, i64 first, i64 units)

`arrays` are those of the code, by number. `draw(context, array, to, first byte, bytes)` writes a keystream's bytes. A
pass is a loop over vectors whose only branch is its end: selections are blends, whatever the values are.
"""

from __future__ import annotations

from collections.abc import Callable

from spuvm.compiler.fuse.passes import Pass, Passes
from spuvm.compiler.fuse.values import BITS, Lacking, Made, One, Operation, Read
from spuvm.runtime.engine.code import Code

PLAIN = {"add", "sub", "mul", "and", "or", "xor"}
COMPARED = {
    **{"eq": "eq", "ne": "ne", "lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge"},
    **{"slt": "slt", "sle": "sle", "sgt": "sgt", "sge": "sge"},
}
INTRINSIC = {"max": "umax", "min": "umin", "smax": "smax", "smin": "smin", "popcount": "ctpop"}
SHIFTS = {"shl": "shl", "shr": "lshr", "sar": "ashr"}
HEAD = "define void @{}(ptr noalias %arrays, ptr noalias %scratch, ptr %draw, ptr %context, i64 %first, i64 %units)"
FEATURES = 'nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" {'


def function(code: Code, passes: Passes, name: str) -> str:
    """The function's text; raises Lacking for an operation that has no rule."""
    text = _Text(code, passes)
    for number, one in enumerate(passes.passes):
        _PassText(text, one, number).write()
    body = [f"{HEAD.format(name)} {FEATURES}", "entry:", *text.entry, *text.body, "  ret void", "}"]
    return "\n".join([*sorted(text.declared), *body]) + "\n"


class _Text:
    """What all passes share: places of arrays, found once."""

    def __init__(self, code: Code, passes: Passes) -> None:
        self.code = code
        self.passes = passes
        self.entry: list[str] = []
        self.body: list[str] = []
        self.declared: set[str] = set()
        self.last = "entry"
        self._places: dict[tuple[int, int], str] = {}
        self._names = 0

    def name(self) -> str:
        self._names += 1
        return f"%v{self._names}"

    def put(self, lines: list[str], text: str) -> str:
        name = self.name()
        lines.append(f"  {name} = {text}")
        return name

    def place(self, array: int, offset: int, step: int) -> str:
        """Where the block's elements of an array begin."""
        if (array, offset) not in self._places:
            start = self.base(self.entry, array)
            at = self.put(self.entry, f"mul i64 %first, {step}")
            at = self.put(self.entry, f"add i64 {at}, {offset}")
            self._places[array, offset] = self.put(self.entry, f"getelementptr i8, ptr {start}, i64 {at}")
        return self._places[array, offset]

    def base(self, lines: list[str], array: int) -> str:
        pointer = self.put(lines, f"getelementptr ptr, ptr %arrays, i64 {array}")
        return self.put(lines, f"load ptr, ptr {pointer}")

    def known(self, one: One) -> int | None:
        """An element that is part of the code."""
        array = self.code.arrays[one.array]
        if array.source != "constant":
            return None
        start = array.where + one.offset
        return int.from_bytes(self.code.constants[start : start + one.bits // 8], "little")


class _PassText:
    def __init__(self, text: _Text, one: Pass, number: int) -> None:
        self.text = text
        self.one = one
        self.number = number
        self.before: list[str] = []
        self.inside: list[str] = []
        self.values: dict[Read, str] = {}

    def write(self) -> None:
        text, n = self.text, self.number
        for draw in self.one.draws:
            self._draw(text.passes.operations[draw], draw)
        for step in self.one.steps:
            self._step(text.passes.operations[step], step)
        count = text.put(self.before, f"mul i64 %units, {self.one.elements}")
        text.body += [*self.before, f"  br label %pass{n}", f"pass{n}:"]
        text.body += [f"  %i{n} = phi i64 [0, %{text.last}], [%next{n}, %pass{n}]", *self.inside]
        text.body += [f"  %next{n} = add i64 %i{n}, {self.one.lanes}", f"  %more{n} = icmp ult i64 %next{n}, {count}"]
        text.body += [f"  br i1 %more{n}, label %pass{n}, label %end{n}", f"end{n}:"]
        text.last = f"end{n}"

    # operands ----------------------------------------------------------------------------------------

    def vector(self, bits: int) -> str:
        return f"<{self.one.lanes} x i{bits}>"

    def all(self, value: int, bits: int) -> str:
        return f"<{', '.join([f'i{bits} {value}'] * self.one.lanes)}>"

    def put(self, text: str) -> str:
        return self.text.put(self.inside, text)

    def _draw(self, o: Operation, number: int) -> None:
        (stream,) = o.reads
        assert isinstance(stream, One)
        unit = o.elements * o.width // 8
        start = self.text.put(self.before, f"mul i64 %first, {unit}")
        size = self.text.put(self.before, f"mul i64 %units, {unit}")
        to = self._where(number)
        self.before.append(f"  call void %draw(ptr %context, i64 {stream.array}, ptr {to}, i64 {start}, i64 {size})")

    def _where(self, number: int) -> str:
        """Where the block's elements of a value lie."""
        o = self.text.passes.operations[number]
        if o.kept:
            return self.text.place(o.result.where, o.result.offset, o.result.step)
        place = self.text.passes.slots[number] * self.text.passes.block
        return self.text.put(self.before, f"getelementptr i8, ptr %scratch, i64 {place}")

    def _at(self, start: str, bits: int) -> str:
        at = self.put(f"mul i64 %i{self.number}, {bits // 8}")
        return self.put(f"getelementptr i8, ptr {start}, i64 {at}")

    def read(self, read: Read, bits: int) -> str:
        """A vector of `bits` a lane: computed in this pass, or loaded."""
        if read not in self.values:
            if isinstance(read, One):
                return self._one(read)
            place = self._where(read.number) if isinstance(read, Made) else self.text.place(*read[:3])
            self.values[read] = self.put(f"load {self.vector(bits)}, ptr {self._at(place, bits)}, align 1")
        return self.values[read]

    def _one(self, one: One) -> str:
        value = self.text.known(one)
        if value is not None:
            return self.all(value, one.bits)
        lines, kind = self.before, self.vector(one.bits)
        base = self.text.base(lines, one.array)
        at = self.text.put(lines, f"getelementptr i8, ptr {base}, i64 {one.offset}")
        element = self.text.put(lines, f"load i{one.bits}, ptr {at}, align 1")
        first = self.text.put(lines, f"insertelement {kind} poison, i{one.bits} {element}, i64 0")
        mask = f"<{self.one.lanes} x i32> zeroinitializer"
        self.values[one] = self.text.put(lines, f"shufflevector {kind} {first}, {kind} poison, {mask}")
        return self.values[one]

    # operations --------------------------------------------------------------------------------------

    def _step(self, o: Operation, number: int) -> None:
        bits = [8 if o.name == "select" and n == 2 else o.bits for n in range(len(o.reads))]
        operands = [self.read(r, b) for r, b in zip(o.reads, bits)]
        value = self.values[Made(number)] = self._result(o, operands)
        if o.kept or number in self.text.passes.slots:
            to = self._at(self._where(number), o.width)
            self.inside.append(f"  store {self.vector(o.width)} {value}, ptr {to}, align 1")

    def _result(self, o: Operation, operands: list[str]) -> str:
        kind = self.vector(o.bits)
        if o.name in PLAIN:
            return self.put(f"{o.name} {kind} {operands[0]}, {operands[1]}")
        if o.name in COMPARED:
            return self._bits(f"icmp {COMPARED[o.name]} {kind} {operands[0]}, {operands[1]}", o.width)
        if o.name in INTRINSIC:
            return self._intrinsic(INTRINSIC[o.name], o.bits, *operands)
        if o.name in SHIFTS:
            return self._shift(o, *operands)
        if "to_" in o.name:
            return self._converted(o, operands[0])
        if o.name not in RULES:
            raise Lacking(f"`{o.name}`")
        return RULES[o.name](self, o, operands)

    def _bits(self, condition: str, width: int) -> str:
        return self.put(f"zext <{self.one.lanes} x i1> {self.put(condition)} to {self.vector(width)}")

    def _intrinsic(self, name: str, bits: int, *operands: str, flag: str = "") -> str:
        kind = self.vector(bits)
        called = f"@llvm.{name}.v{self.one.lanes}i{bits}"
        self.text.declared.add(f"declare {kind} {called}({', '.join([kind] * len(operands))}{flag and ', i1'})")
        given = ", ".join(f"{kind} {x}" for x in operands)
        return self.put(f"call {kind} {called}({given}{flag})")

    def _shift(self, o: Operation, x: str, y: str) -> str:
        """Bits that leave are gone, also by the width and more; with a sign, by no more than all bits but one."""
        kind, most = self.vector(o.bits), self.all(o.bits - 1, o.bits)
        by = o.reads[1]
        known = self.text.known(by) if isinstance(by, One) else None
        if o.name == "sar":
            return self.put(f"ashr {kind} {x}, {self._intrinsic('umin', o.bits, y, most)}")
        if known is not None:
            return self.put(f"{SHIFTS[o.name]} {kind} {x}, {y}") if known < o.bits else self.all(0, o.bits)
        shifted = self.put(f"{SHIFTS[o.name]} {kind} {x}, {self.put(f'and {kind} {y}, {most}')}")
        return self.chosen(f"icmp ule {kind} {y}, {most}", kind, shifted, self.all(0, o.bits))

    def _converted(self, o: Operation, x: str) -> str:
        to = BITS[o.name.rpartition("_")[2]]
        how = "trunc" if to < o.bits else "sext" if o.name.startswith("s") else "zext"
        return self.put(f"{how} {self.vector(o.bits)} {x} to {self.vector(to)}")

    def chosen(self, condition: str, kind: str, x: str, y: str) -> str:
        return self.put(f"select <{self.one.lanes} x i1> {self.put(condition)}, {kind} {x}, {kind} {y}")


def _select(p: _PassText, o: Operation, x: list[str]) -> str:
    return p.chosen(f"icmp ne {p.vector(8)} {x[2]}, {p.all(0, 8)}", p.vector(o.bits), x[1], x[0])


def _sign(p: _PassText, o: Operation, x: list[str]) -> str:
    """-1, 0 or 1: all ones where the word is negative, or whether it is not zero."""
    kind = p.vector(o.bits)
    some = p._bits(f"icmp ne {kind} {x[0]}, {p.all(0, o.bits)}", o.bits)
    return p.chosen(f"icmp slt {kind} {x[0]}, {p.all(0, o.bits)}", kind, p.all(-1, o.bits), some)


def _some(p: _PassText, o: Operation, x: list[str]) -> str:
    return p._bits(f"icmp ne {p.vector(o.bits)} {x[0]}, {p.all(0, o.bits)}", o.width)


Rule = Callable[[_PassText, Operation, list[str]], str]
RULES: dict[str, Rule] = {
    "not": lambda p, o, x: p.put(f"xor {p.vector(o.bits)} {x[0]}, {p.all(-1, o.bits)}"),
    "neg": lambda p, o, x: p.put(f"sub {p.vector(o.bits)} {p.all(0, o.bits)}, {x[0]}"),
    "copy": lambda p, o, x: x[0],
    "fill": lambda p, o, x: x[0],
    "clz": lambda p, o, x: p._intrinsic("ctlz", o.bits, x[0], flag=", i1 false"),
    "sabs": lambda p, o, x: p._intrinsic("abs", o.bits, x[0], flag=", i1 false"),
    "ssign": _sign,
    "usign": _some,
    "bool": _some,
    "select": _select,
}
