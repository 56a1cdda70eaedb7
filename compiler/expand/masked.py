"""Products of a private value with a secret: masked once at the other parties, then mostly local.

The owner sends its value masked (kind m) the first time that a product needs it, or the program is
given it in that form. Every product after that is one local product a party (see `mask_v` and
`product_vma` of the protocols) instead of two on a fresh sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spuvm.compiler.expand.expander import Expander, Shared
from spuvm.compiler.expand.sharings import shifted
from spuvm.compiler.ir.module import Op, Region, Value, uses

PRODUCTS = frozenset({"mul", "dot"})


class Factors(NamedTuple):
    """The operands of a product with a private value, as its kernels take them."""

    operands: tuple[Shared, Shared, Shared]  # v, m, a
    owner: int
    left: bool  # whether the private value is the product's first operand


def factors(ex: Expander, values: Sequence[Value]) -> Factors | None:
    """Which operand of a product of two values is to be the private one; None if neither can."""
    private = [i for i in (0, 1) if can_mask(ex, ex.primary(values[i]))]
    if not private or any(ex.primary(v).kind == "p" for v in values):
        return None
    # Of two: the one that is masked already, else the larger.
    i = max(private, key=lambda i: ("m" in ex.values[values[i]], values[i].type.size, -i))
    m = mask(ex, values[i])
    forms = ex.values[values[i]]
    assert m.owner is not None
    return Factors((forms.get("s", forms["v"]), m, ex.as_kind(values[1 - i], "a")), m.owner, i == 0)


def can_mask(ex: Expander, x: Shared) -> bool:
    """Whether a value is private to a party that computes."""
    return x.kind == "v" and x.owner is not None and x.owner < ex.protocol.world_size


def mask(ex: Expander, value: Value) -> Shared:
    """The masked form of a private value. What else needs a sharing of it gives both in one message."""
    forms = ex.values[value]
    if "m" in forms:
        return forms["m"]
    x = forms["v"]
    assert x.owner is not None
    components = ex.protocol.masked_in_shared(x.owner)
    if components and value.type.kind != "bool" and ("a" in forms or not _only_in_products(ex, value)):
        a = ex.as_kind(value, "a")
        n = ex.limbs(a.dtype)
        forms["m"] = Shared("m", tuple(s for c in components for s in a.slots[n * c : n * (c + 1)]), x.owner)
    else:
        forms["m"] = ex.converted(forms.get("s", x), "m")
    return forms["m"]


def _only_in_products(ex: Expander, value: Value) -> bool:
    return all(u is None or u.name == "mask" or _multiplies(u, value) for u in ex.users.get(value, []))


def expand_mask(ex: Expander, op: Op) -> None:
    mask(ex, op.inputs[0])
    ex.values[op.output] = {k: x for k, x in ex.values[op.inputs[0]].items() if k in "vms"}


def keep_forms(ex: Expander, op: Op, rearranged: Callable[[Shared], Shared]) -> None:
    """The masked and the small form of a rearranged private value, if there were any."""
    forms = {k: x for k, x in ex.values[op.inputs[0]].items() if k in "ms"}
    ex.values[op.output] |= {k: rearranged(x) for k, x in forms.items()}


def keep_converted(ex: Expander, op: Op, bits: int) -> None:
    """The same for a number made of a private bool or number by a shift of `bits`."""
    source, forms = op.inputs[0].type, ex.values[op.inputs[0]]
    if bits == 0 and source.kind == "bool":
        ex.values[op.output]["s"] = forms["v"]
    for form in "ms":
        if form in forms and (form == "m" or bits == 0):
            ex.values[op.output][form] = shifted(ex, forms[form], bits)


def masked_before(ex: Expander, values: Sequence[Value], body: Region) -> Mapping[int, Shared]:
    """Private constants of a loop that its body multiplies with secrets and nothing else: as kind h.

    `values` are the constants outside, the body's first parameters within.
    """
    out = {}
    for i, (value, param) in enumerate(zip(values, body.params)):
        if can_mask(ex, ex.primary(value)) and value.type.kind != "bool" and _only_multiplied(body, param):
            m = mask(ex, value)
            forms = ex.values[value]
            slots = [ex.whole(x, value.shape) for x in (forms.get("s", forms["v"]), m)]
            out[i] = Shared("h", tuple(s for x in slots for s in x.slots), m.owner)
    return out


def _only_multiplied(body: Region, value: Value) -> bool:
    readers = uses(body).get(value, [])
    return bool(readers) and all(_multiplies(reader, value) for reader in readers)


def _multiplies(reader: Op | None, value: Value) -> bool:
    """Whether an operation multiplies with a secret, or hands over to a loop that does."""
    if reader is None:
        return False
    if reader.name in PRODUCTS:
        return reader.output.type.is_secret and all(v is value or v.type.is_secret for v in reader.inputs)
    if reader.name != "loop":
        return False
    within = [i for i, v in enumerate(reader.inputs) if v is value]
    (body,) = reader.regions
    return all(i < reader.attrs["constants"] and _only_multiplied(body, body.params[i]) for i in within)
