"""Symbolic values of a kernel: expressions over its inputs and random values, in a form that shows where masks are.

Equal expressions are one node. Sums modulo 2^w and exclusive ors are kept flat, as a set of atoms with their
coefficients, so that what cancels is gone; masks, and if told so all maps that are linear over exclusive or (shifts,
conversions), stand at the atoms. All else is an operation of which nothing is known but its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Node = int
LEAF, SUM, XOR, CONSTANT = "leaf", "sum", "xor", "constant"
AND, SHIFT_RIGHT, CAST, MOVED = "and", "shift_right", "cast", "moved"
SECRET, UNIFORM, KNOWN = "secret", "uniform", "known"  # what a leaf is to those who look


@dataclass
class Expressions:
    """A table of nodes. `leaves[n]`: the leaves below, as bits; `width` of an element; `bits` of it that may be set."""

    distribute: bool = False
    whole: frozenset[Any] = frozenset()  # the names of uniform values that are used as they are, too
    narrow: dict[Node, tuple[int, Node]] = field(
        default_factory=dict
    )  # uniform leaves of which some bits are used: these
    parts: list[tuple[str, Any, tuple[Node, ...]]] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    kind: dict[Node, str] = field(default_factory=dict)  # of leaves
    secrets: int = 0  # the secret leaves, as bits
    _numbers: dict[Any, Node] = field(default_factory=dict)

    def _node(self, op: str, data: Any, children: tuple[Node, ...], width: int, bits: int | None = None) -> Node:
        key = (op, data, children, width)
        if key not in self._numbers:
            self._numbers[key] = len(self.parts)
            self.parts.append((op, data, children))
            below = 0
            for c in children:
                below |= self.leaves[c]
            self.leaves.append(below)
            self.width.append(width)
            self.bits.append(ones(width) if bits is None else bits)
        return self._numbers[key]

    def leaf(self, name: Any, width: int, kind: str) -> Node:
        node = self._node(LEAF, name, (), width)
        if node not in self.kind:
            self.leaves[node] = 1 << len(self.kind)
            self.kind[node] = kind
            self.secrets |= self.leaves[node] if kind == SECRET else 0
        return node

    def is_secret(self, node: Node) -> bool:
        """Whether it depends on a secret."""
        return bool(self.leaves[node] & self.secrets)

    def constant(self, value: int, width: int) -> Node:
        value &= ones(width)
        return self._node(CONSTANT, value, (), width, value)

    def operation(self, op: str, data: Any, children: Sequence[Node], width: int, commutes: bool = False) -> Node:
        """An operation of which nothing is known."""
        return self._node(op, data, tuple(sorted(children) if commutes else children), width)

    # sums ------------------------------------------------------------------------------------------------------

    def terms(self, node: Node) -> tuple[dict[Node, int], int]:
        """The atoms of a sum with their coefficients modulo 2^w, and the constant."""
        op, data, children = self.parts[node]
        if op == SUM:
            return dict(zip(children, data[0])), data[1]
        return ({}, data) if op == CONSTANT else ({node: 1}, 0)

    def total(self, summands: Iterable[tuple[Node, int]], width: int, constant: int = 0) -> Node:
        """The sum of nodes times coefficients."""
        found: dict[Node, int] = {}
        for node, factor in summands:
            inner, offset = self.terms(node)
            constant += factor * offset
            for atom, c in inner.items():
                found[atom] = (found.get(atom, 0) + factor * c) & ones(width)
        found = {atom: c for atom, c in sorted(found.items()) if c}
        constant &= ones(width)
        if not found:
            return self.constant(constant, width)
        if list(found.values()) == [1] and not constant:
            return next(iter(found))
        bits = None
        if len(found) == 1 and not constant:
            ((atom, c),) = found.items()
            bits = (self.bits[atom] * c) & ones(width) if c & (c - 1) == 0 else None
        return self._node(SUM, (tuple(found.values()), constant), tuple(found), width, bits)

    def scaled(self, node: Node, factor: int) -> Node:
        width = self.width[node]
        if self.distribute and self.parts[node][0] == XOR and factor & (factor - 1) == 0:
            return self._over_xor(node, lambda a: self.scaled(a, factor))
        return self.total([(node, factor)], width)

    # exclusive or ------------------------------------------------------------------------------------------------

    def members(self, node: Node) -> tuple[frozenset[Node], int]:
        op, data, children = self.parts[node]
        if op == XOR:
            return frozenset(children), data
        return (frozenset(), data) if op == CONSTANT else (frozenset({node}), 0)

    def xor(self, nodes: Iterable[Node], width: int, constant: int = 0) -> Node:
        found: frozenset[Node] = frozenset()
        for node in nodes:
            inner, offset = self.members(node)
            found ^= inner
            constant ^= offset
        if not found:
            return self.constant(constant, width)
        if len(found) == 1 and not constant:
            return next(iter(found))
        bits = constant
        for n in found:
            bits |= self.bits[n]
        return self._node(XOR, constant, tuple(sorted(found)), width, bits)

    def _over_xor(self, node: Node, linear: Callable[[Node], Node], width: int | None = None) -> Node:
        width = width or self.width[node]
        atoms, constant = self.members(node)
        mapped = [linear(a) for a in sorted(atoms)]
        return self.xor([*mapped, linear(self.constant(constant, self.width[node]))], width)

    def masked(self, node: Node, mask: int) -> Node:
        """node & mask."""
        op, data, children = self.parts[node]
        if not self.bits[node] & ~mask:
            return node
        if not self.bits[node] & mask:
            return self.constant(0, self.width[node])
        match op:
            case "constant":
                return self.constant(data & mask, self.width[node])
            case "xor":
                return self._over_xor(node, lambda a: self.masked(a, mask))
            case "and":
                return self.masked(children[0], data & mask)
        if self.kind.get(node) == UNIFORM and self.bits[node] == ones(self.width[node]) and data not in self.whole:
            return self._narrowed(node, mask)
        return self._node(AND, mask, (node,), self.width[node], self.bits[node] & mask)

    def _narrowed(self, leaf: Node, mask: int) -> Node:
        """Some bits of a uniform value: a value of its own, if nothing else is used of it (`mixed` says whether)."""
        if self.narrow.get(leaf, (mask, 0))[0] != mask:
            return self._node(AND, mask, (leaf,), self.width[leaf], mask)
        if leaf not in self.narrow:
            self.narrow[leaf] = mask, self.leaf(("some bits", leaf, mask), self.width[leaf], UNIFORM)
            self.bits[self.narrow[leaf][1]] = mask
        return self.narrow[leaf][1]

    def mixed(self, roots: Iterable[Node]) -> set[Any]:
        """The names of the uniform values that the roots use otherwise than by the same bits of them."""
        used = 0
        for r in roots:
            used |= self.leaves[r]
        return {self.parts[leaf][1] for leaf in self.narrow if self.leaves[leaf] & used}

    def shifted_right(self, node: Node, by: int) -> Node:
        op, data, children = self.parts[node]
        width = self.width[node]
        if by == 0:
            return node
        match op:
            case "constant":
                return self.constant(data >> by, width)
            case "xor" if self.distribute:
                return self._over_xor(node, lambda a: self.shifted_right(a, by))
            case "shift_right":
                node, by = children[0], by + data
        if not self.bits[node] >> by:
            return self.constant(0, width)
        return self._node(SHIFT_RIGHT, by, (node,), width, self.bits[node] >> by)

    def cast(self, node: Node, width: int) -> Node:
        """The low bits, or zeros above."""
        op, data, children = self.parts[node]
        if width == self.width[node]:
            return node
        if op == CONSTANT:
            return self.constant(data, width)
        if op == XOR and self.distribute:
            return self._over_xor(node, lambda a: self.cast(a, width), width)
        if op == SUM and width < self.width[node]:
            cast = [(self.cast(a, width), c & ones(width)) for a, c in zip(children, data[0])]
            return self.total(cast, width, data[1])
        if op == CAST and width <= self.width[node]:
            return self.cast(children[0], width)
        return self._node(CAST, width, (node,), width, self.bits[node] & ones(width))

    def moved(self, node: Node, how: Any) -> Node:
        """The elements in another order."""
        op, data, children = self.parts[node]
        if op == CONSTANT:
            return node
        if op == XOR:
            return self._over_xor(node, lambda a: self.moved(a, how))
        if op == SUM:
            moved = [(self.moved(a, how), c) for a, c in zip(children, data[0])]
            return self.total(moved, self.width[node], data[1])
        return self._node(MOVED, how, (node,), self.width[node], self.bits[node])

    # changing ----------------------------------------------------------------------------------------------------

    def substitute(self, roots: Sequence[Node], given: Mapping[Node, Node]) -> list[Node]:
        """The roots with nodes replaced, in canonical form again."""
        done: dict[Node, Node] = dict(given)
        touched = 0
        for node in given:
            touched |= self.leaves[node]

        def new(node: Node) -> Node:
            if node not in done:
                done[node] = node if not self.leaves[node] & touched else self._rebuilt(node, new)
            return done[node]

        return [new(root) for root in roots]

    def _rebuilt(self, node: Node, new: Callable[[Node], Node]) -> Node:
        op, data, children = self.parts[node]
        mine, width = [new(c) for c in children], self.width[node]
        match op:
            case "sum":
                return self.total(zip(mine, data[0]), width, data[1])
            case "xor":
                return self.xor(mine, width, data)
            case "and":
                return self.masked(mine[0], data)
            case "shift_right":
                return self.shifted_right(mine[0], data)
            case "cast":
                return self.cast(mine[0], width)
            case "moved":
                return self.moved(mine[0], data)
        return self._node(op, data, tuple(mine), width)

    def below(self, roots: Iterable[Node]) -> list[Node]:
        """All nodes that the roots are made of, and they."""
        seen: dict[Node, None] = {}
        work = list(roots)
        while work:
            node = work.pop()
            if node not in seen:
                seen[node] = None
                work.extend(self.parts[node][2])
        return list(seen)

    def source(self, node: Node) -> Node | None:
        """The leaf whose bits an atom consists of, each at most once: by shifts, masks and conversions."""
        while True:
            op, data, children = self.parts[node]
            if op == LEAF:
                return node
            power = op == SUM and len(children) == 1 and not data[1] and data[0][0] & (data[0][0] - 1) == 0
            if not power and op not in (AND, SHIFT_RIGHT, CAST, MOVED):
                return None
            node = children[0]


def ones(width: int) -> int:
    return (1 << width) - 1
