"""Visibility changes and control: reveals, sharing, loops and branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from spuvm.compiler.expand import choreography as ch
from spuvm.compiler.expand.expander import Expander, Shared
from spuvm.compiler.expand.masked import masked_before
from spuvm.compiler.expand.wrap import is_narrow, low_word, opened_word
from spuvm.compiler.ir.module import Op, Region, Value, uses
from spuvm.runtime.ring.elements import Word

KEPT_BYTES, MOST_KEPT = 512, 1 << 27  # of an element that is multiplied, and of all that a loop multiplies

# Visibility ----------------------------------------------------------------------------------------------------


def expand_reveal(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    to = op.attrs["to"]
    x = ex.primary(value)
    if x.kind == "p" or (x.kind == "v" and x.owner == to):
        return ex.set(op.output, x)
    if x.kind not in "ab":
        x = ex.as_kind(value, "b" if value.type.kind == "bool" else "a")
    narrow = is_narrow(value.type, ex.ring_bits)
    if narrow:
        x = low_word(ex, x, value.type)
    params: dict[str, Any] = {"bits": ex.bits(x)} if x.kind == "b" else {}
    if to == "public":
        x = ex.kernel(f"reveal_{x.kind}", x, dtype=x.dtype, **params)
    else:
        x = ex.kernel(f"reveal_{x.kind}_to", x, owner=to, dtype=x.dtype, **params)
    ex.set(op.output, opened_word(ex, x, value.type) if narrow else x)


def expand_share(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    if op.attrs["to"] != "secret":  # a public value where a private one is wanted: its owner knows it already
        return ex.set(op.output, ex.primary(value))
    ex.set(op.output, ex.as_kind(value, "b" if value.type.kind == "bool" else "a"))


def expand_guarded(ex: Expander, op: Op) -> None:
    """What passes is the same sharing; as it comes after the step, it is revealed after it."""
    bit = ex.primary(op.inputs[0])
    if ex.protocol.dealer is not None:
        bit = _told(ex, bit)
    ex.block.steps.append(ch.Guard(list(bit.slots), location=op.location))
    for value, out in zip(op.inputs[1:], op.outputs):
        ex.set(out, ex.primary(value))


# Constants and control --------------------------------------------------------------------------------------------


def _set_outputs(ex: Expander, op: Op) -> list[ch.Slot]:
    slots: list[ch.Slot] = []
    for value in op.outputs:
        shared = ex.fresh(value.type.with_(masked=False))
        ex.set(value, shared)
        slots.extend(shared.slots)
    return slots


def _slots(ex: Expander, values: list[Value]) -> list[ch.Slot]:
    return [s for v in values for s in ex.boundary(v).slots]


def _made_before(ex: Expander, op: Op, constants: range, body: Region) -> dict[int, Shared]:
    """Constants of a loop to mask or share before it: private ones that its body only uses among secrets.

    Numbers count the body's parameters; `constants` are their positions among the inputs. What was
    shared before an outer loop stays so.
    """
    users = uses(body)
    out = dict(masked_before(ex, [op.inputs[p] for p in constants], body))
    for i, position in enumerate(constants):
        param, readers = body.params[i], users.get(body.params[i], [])
        if i in out:
            continue
        if isinstance(param.type.visibility, int) and (
            not ex.primary(op.inputs[position]).known
            or (bool(readers) and all(_takes_secrets(reader, param) for reader in readers))
        ):
            value = op.inputs[position]
            out[i] = ex.whole(ex.as_kind(value, "b" if value.type.kind == "bool" else "a"), value.shape)
    return out


def _takes_secrets(reader: Op | None, value: Value) -> bool:
    """Whether an operation gives the same result for a private operand and for its sharing."""
    if reader is None or not all(v.type.is_secret for v in reader.outputs):
        return False
    if not reader.regions:
        return True
    constants = _constants(reader)
    return all(i in constants for i, v in enumerate(reader.inputs) if v is value)


def _constants(op: Op) -> range:
    """The positions of a loop's constants among its inputs; of a `while`, the body's."""
    if op.name == "loop":
        return range(op.attrs["constants"])
    if op.name == "while":
        first = op.attrs["condition_constants"]
        return range(first, first + op.attrs["body_constants"])
    return range(0)


def _constant_slots(ex: Expander, values: list[Value], early: Mapping[int, Shared]) -> list[ch.Slot]:
    return [s for i, v in enumerate(values) for s in (early[i] if i in early else ex.boundary(v)).slots]


def expand_loop(ex: Expander, op: Op) -> None:
    k, c = op.attrs["constants"], op.attrs["carries"]
    early = _made_before(ex, op, range(k), op.regions[0])
    constants = _constant_slots(ex, op.inputs[:k], early)
    carries, xs = _slots(ex, op.inputs[k : k + c]), _slots(ex, op.inputs[k + c :])
    before = ex.unverified
    body = ex.region(op.regions[0], early)
    trips, reverse = op.attrs["trips"], bool(op.attrs.get("reverse", False))
    step = ch.Loop(body, trips, reverse, constants, carries, xs, _set_outputs(ex, op), op.name, op.location)
    if ex.protocol.proved:
        ex.unverified = before
        if may_be_proved_after(step):
            body.steps.pop()
            ex.unverified = True
        else:
            ex.check()
    ex.block.steps.append(step)


def may_be_proved_after(loop: ch.Loop) -> bool:
    """Whether what the trips of a loop multiply can be kept and proved later: they show nothing, and it is not much."""
    steps = loop.body.steps
    if not steps or not isinstance(steps[-1], ch.Check):
        return False
    plain = (isinstance(s, ch.Loop) or (isinstance(s, ch.Call) and not s.spec.shows) for s in _within(steps[:-1]))
    return all(plain) and loop.trips * _kept_bytes(loop.body) <= MOST_KEPT


def _within(steps: Sequence[ch.Step]) -> Iterator[ch.Step]:
    for step in steps:
        yield step
        for block in ch.blocks_of(step):
            yield from block.walk()


def _kept_bytes(block: ch.Block) -> int:
    """At most about so much is kept of what a block multiplies; comparisons, of ten words an element, take the most."""
    loops = sum(s.trips * _kept_bytes(s.body) for s in block.steps if isinstance(s, ch.Loop))
    calls = [s for s in block.steps if isinstance(s, ch.Call) and s.spec.communicates]
    return loops + KEPT_BYTES * sum(max((x.size for x in (*c.inputs, *c.outputs)), default=0) for c in calls)


def _checked(ex: Expander) -> None:
    """Where products are proved, a block begins with none that are still to be: a check has a known number of them."""
    if ex.protocol.proved:
        ex.check()


def _communicates(*blocks: ch.Block) -> bool:
    return any(isinstance(step, ch.Call) and step.spec.communicates for b in blocks for step in b.walk())


def _choice(x: Any, *, count: int) -> Any:
    """The number of the branch, of `count`, that an index takes: all that a dealer is told of it."""
    low = x.low if isinstance(x, Word) else x
    return jnp.clip(low.view(f"int{8 * low.dtype.itemsize}"), 0, count - 1).astype(jnp.uint32)


def _told(ex: Expander, x: Shared) -> Shared:
    """Public control in a form that a dealer knows as well."""
    return ex.kernel("tell_p", x, dtype=x.dtype)


def expand_cond(ex: Expander, op: Op) -> None:
    index, operands = ex.boundary(op.inputs[0]), _slots(ex, op.inputs[1:])
    _checked(ex)
    branches = [ex.region(r) for r in op.regions]
    if ex.protocol.dealer is not None and _communicates(*branches):
        chosen = ex.apply("choice", _choice, index, kind="p", dtype="uint32", count=len(branches))
        index = _told(ex, chosen)
    ex.block.steps.append(ch.Cond(branches, index.slots[0], operands, _set_outputs(ex, op), op.name, op.location))


def expand_while(ex: Expander, op: Op) -> None:
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    early = _made_before(ex, op, range(a, a + b), op.regions[1])
    first, carries = _slots(ex, op.inputs[:a]), _slots(ex, op.inputs[a + b :])
    second = _constant_slots(ex, op.inputs[a : a + b], early)
    _checked(ex)
    condition, body = ex.region(op.regions[0]), ex.region(op.regions[1], early)
    if ex.protocol.dealer is not None and _communicates(condition, body):
        with ex.within(condition):
            condition.results = list(_told(ex, Shared("p", tuple(condition.results))).slots)
    step = ch.While(condition, body, first, second, carries, _set_outputs(ex, op), op.name, op.location)
    ex.block.steps.append(step)
