"""What a coalition is sent in one kernel, as expressions of the kernel's inputs and random values.

An array stands for any of its elements: operations act on all alike, and what moves elements is an operation by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.expand.choreography import KernelSpec, Ranks
from spuvm.compiler.leakage.expressions import KNOWN, SECRET, UNIFORM, Expressions, Node, ones
from spuvm.compiler.project.equations import INLINED
from spuvm.compiler.project.kernels import kernel_avals
from spuvm.runtime.engine.keyed import keys_p
from spuvm.runtime.engine.primitives import OPENING, PERMUTATION, multiplied_p, random_p, send_p
from spuvm.runtime.ring.rotations import MASKED

LENGTH = 64  # of element-wise kernels


@dataclass
class View:
    """What a coalition sees: `messages` that others send it, and the kernel's results, known to it or not."""

    expressions: Expressions
    messages: list[Node] = field(default_factory=list)
    sent: list[tuple[int, int]] = field(default_factory=list)  # of each message, from and to whom
    results: list[Node] = field(default_factory=list)
    openings: list[Node] = field(default_factory=list)  # words that the kernel states to be uniform
    inputs: int = 0  # the kernel's operands, as leaves
    orders: int = 0  # the permutations that the coalition does not know, as leaves


def view(spec: KernelSpec, coalition: Ranks, distribute: bool = False, whole: frozenset[Any] = frozenset()) -> View:
    """The view of parties who tell each other all that they know."""
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(spec.function)(*kernel_avals(spec, LENGTH if spec.elementwise else None))
    reader = _Reader(coalition, Expressions(distribute, whole))
    inputs = [
        reader.leaf(("input", i), var.aval, KNOWN if holders & coalition else SECRET)
        for i, (var, holders) in enumerate(zip(closed.jaxpr.invars, spec.holders))
    ]
    for leaf in inputs:
        reader.view.inputs |= reader.ex.leaves[leaf]
    reader.view.results = reader.run(closed, inputs)
    seen = reader.view
    if mixed := reader.ex.mixed([*seen.messages, *seen.results, *seen.openings]):
        return view(spec, coalition, distribute, whole | mixed)
    return seen


class _Reader:
    def __init__(self, coalition: Ranks, expressions: Expressions) -> None:
        self.coalition = coalition
        self.ex = expressions
        self.view = View(self.ex)
        self.numbers = count()

    def leaf(self, name: Any, aval: Any, kind: str) -> Node:
        return self.ex.leaf(name, width_of(aval), kind)

    def run(self, closed: Any, inputs: Sequence[Node]) -> list[Node]:
        """The expressions of a jaxpr's results."""
        jaxpr = closed.jaxpr
        env: dict[Any, Node] = dict(zip(jaxpr.invars, inputs))
        env |= {v: self.known(c) for v, c in zip(jaxpr.constvars, closed.consts)}

        def read(atom: Any) -> Node:
            return self.known(atom.val) if isinstance(atom, jex.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self.equation(eqn, [read(a) for a in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def known(self, value: Any) -> Node:
        array = np.asarray(value)
        if array.size and (array == array.reshape(-1)[0]).all():
            return self.ex.constant(int(array.reshape(-1)[0]), width_of(array))
        return self.ex.leaf(("constant", array.shape, array.dtype.name, array.tobytes()), width_of(array), KNOWN)

    def equation(self, eqn: Any, ins: list[Node]) -> list[Node]:
        name = eqn.primitive.name
        if eqn.primitive is random_p:
            return [self.random(eqn)]
        if eqn.primitive is send_p:
            return [self.send(eqn, ins[0])]
        if eqn.primitive is keys_p:
            return [self.keys(eqn, ins)]
        if eqn.primitive is multiplied_p:
            return ins[2 * len(ins) // 3 :]
        if name in INLINED:
            if str(eqn.params.get("name")).startswith(MASKED):
                return self.masked_difference(ins, len(eqn.outvars))
            if eqn.params.get("name") == OPENING:
                self.view.openings += ins
                return ins
            return self.run(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"], ins)
        if name in RULES and not eqn.primitive.multiple_results:
            made = RULES[name](self.ex, eqn, ins)
            if made is not None:
                return [made]
        return list(self.unknown(eqn, ins))

    def unknown(self, eqn: Any, ins: list[Node]) -> Iterator[Node]:
        params = {k: v for k, v in sorted(eqn.params.items()) if k != "sharding"}
        plain = all(isinstance(v, (int, str, bool, tuple, type(None), np.dtype)) for v in params.values())
        what = repr(params) if plain else next(self.numbers)
        for i, var in enumerate(eqn.outvars):
            same = name_of(eqn) in COMMUTING
            yield self.ex.operation("jax." + name_of(eqn), (what, i, var.aval.shape), ins, width_of(var.aval), same)

    def random(self, eqn: Any) -> Node:
        known = not self.coalition.isdisjoint(eqn.params["holders"])
        leaf = self.leaf(("random", next(self.numbers)), eqn.outvars[0].aval, KNOWN if known else UNIFORM)
        if eqn.params["dtype"] == PERMUTATION and not known:
            self.view.orders |= self.ex.leaves[leaf]
        return leaf

    def send(self, eqn: Any, value: Node) -> Node:
        src, dst, bits = eqn.params["src"], eqn.params["dst"], eqn.params["bits"]
        if dst in self.coalition and src not in self.coalition:
            self.view.messages.append(self.ex.masked(value, ones(bits)) if bits else value)
            self.view.sent.append((src, dst))
        return value

    def keys(self, eqn: Any, ins: list[Node]) -> Node:
        """Keys of a comparison are as random as a root that the coalition lacks, whatever they are made for.

        Boyle et al. prove that of them (EUROCRYPT 2021), if AES is what it should be: they count as masked by the root.
        """
        hidden = [root for root in ins[1:] if self.ex.kind.get(root) == UNIFORM]
        rest = [x for x in ins if x not in hidden[:1]]
        made = self.ex.operation("keys", repr(sorted(eqn.params.items())), rest, width_of(eqn.outvars[0].aval))
        return self.ex.xor([made, *hidden[:1]], self.ex.width[made])

    def masked_difference(self, ins: list[Node], count: int) -> list[Node]:
        """x - r for an r of several words, in as many words: for every x a bijection of r, whatever it is exactly."""
        x, masks = ins[:-count], ins[-count:]
        words = [self.ex.operation(MASKED, i, x, self.ex.width[r]) for i, r in enumerate(masks)]
        return [self.ex.total([(word, 1), (r, -1)], self.ex.width[r]) for word, r in zip(words, masks)]


def name_of(eqn: Any) -> str:
    name: str = eqn.primitive.name
    return name


def width_of(x: Any) -> int:
    """The bits of an element."""
    dtype = np.dtype(x.dtype)
    return 1 if dtype == np.bool_ else 8 * dtype.itemsize


# What is known of JAX's primitives; None: nothing, for these operands. ---------------------------------------

COMMUTING = {"mul", "and", "or", "eq", "ne"}
Known = Callable[[Expressions, Any, list[Node]], Node | None]


def _constant(ex: Expressions, node: Node) -> int | None:
    terms, constant = ex.terms(node)
    return None if terms else constant


def _broadcasts(eqn: Any) -> bool:
    """Whether an operand is spread over the result: then elements are not independent of each other."""
    return bool(eqn.invars[0].aval.shape != eqn.outvars[0].aval.shape)


def _mul(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    for x, factor in (ins, ins[::-1]):
        if (c := _constant(ex, factor)) is not None:
            return ex.scaled(x, c)
    return None


def _and(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    for x, mask in (ins, ins[::-1]):
        if (c := _constant(ex, mask)) is not None:
            return ex.masked(x, c)
    return None


def _or(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    x, y = ins
    return None if ex.bits[x] & ex.bits[y] else ex.xor(ins, ex.width[x])


def _shift_left(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    by = _constant(ex, ins[1])
    return None if by is None else ex.scaled(ins[0], 1 << by)


def _shift_right(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    by = _constant(ex, ins[1])
    return None if by is None else ex.shifted_right(ins[0], by)


def _cast(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    target = eqn.outvars[0].aval
    unsigned = all(np.dtype(v.aval.dtype).kind in "ub" for v in (eqn.invars[0], eqn.outvars[0]))
    same = width_of(target) == ex.width[ins[0]]
    return ex.cast(ins[0], width_of(target)) if (unsigned and np.dtype(target.dtype) != np.bool_) or same else None


def _same(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    return ins[0] if ex.width[ins[0]] == width_of(eqn.outvars[0].aval) else None


def _broadcast(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    return None if _broadcasts(eqn) and _constant(ex, ins[0]) is None else ins[0]


def _reordered(ex: Expressions, eqn: Any, ins: list[Node]) -> Node | None:
    return ex.moved(ins[0], (name_of(eqn), repr(sorted(eqn.params.items())), eqn.invars[0].aval.shape))


RULES: dict[str, Known] = {
    "add": lambda ex, eqn, ins: ex.total([(x, 1) for x in ins], ex.width[ins[0]]),
    "sub": lambda ex, eqn, ins: ex.total([(ins[0], 1), (ins[1], -1)], ex.width[ins[0]]),
    "neg": lambda ex, eqn, ins: ex.scaled(ins[0], -1),
    "xor": lambda ex, eqn, ins: ex.xor(ins, ex.width[ins[0]]),
    "not": lambda ex, eqn, ins: ex.xor(ins, ex.width[ins[0]], ones(ex.width[ins[0]])),
    "mul": _mul,
    "and": _and,
    "or": _or,
    "shift_left": _shift_left,
    "shift_right_logical": _shift_right,
    "convert_element_type": _cast,
    "bitcast_convert_type": _same,
    "broadcast_in_dim": _broadcast,
    "reshape": _same,
    "squeeze": _same,
    "expand_dims": _same,
    "copy": _same,
    "confirm": _same,
    "transpose": _reordered,
    "rev": _reordered,
}
