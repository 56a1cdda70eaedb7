"""Whether messages say nothing: every one is eliminated by a random value that its receivers lack.

As maskVerif does (Barthe et al., ESORICS 2019): where a uniform value r that the receivers do not know enters an
expression by an invertible map, and nothing else that they see, the expression is uniform and independent of all else,
and may be left out. If r enters elsewhere, the change of variable r = m - rest, which is a bijection, makes the message
m itself the uniform value. When no secret is left, the receivers could have drawn all messages themselves. What is
proved so holds; what is not may hold all the same, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spuvm.compiler.leakage.expressions import KNOWN, SUM, UNIFORM, XOR, Expressions, Node, ones

TRIES = 400  # changes of variables looked at in one step


def unproved(ex: Expressions, messages: Sequence[Node], shown: Sequence[Node] = ()) -> list[Node]:
    """The messages for which no proof was found, given what is `shown` on purpose. Leaves are secret or random."""
    roots = list(dict.fromkeys(messages))
    if not shown:
        return _eliminated(ex, roots)
    left = roots
    for rewritten in _given(ex, roots, shown):
        left = _eliminated(ex, rewritten)
        if not left:
            return []
    return left


def _eliminated(ex: Expressions, roots: list[Node]) -> list[Node]:
    vain: set[tuple[Node, Node]] = set()
    while any(map(ex.is_secret, roots)):
        reduced = _left_out(ex, roots)
        if reduced is None:
            reduced = _changed(ex, roots, vain)
        if reduced is None:
            return [r for r in roots if ex.is_secret(r)]
        roots = reduced
    return []


def _left_out(ex: Expressions, roots: list[Node]) -> list[Node] | None:
    """The roots without all that have a random value of their own."""
    kept = list(roots)
    for root in reversed(roots):
        others = 0
        for r in kept:
            if r != root:
                others |= ex.leaves[r]
        if any(not others & ex.leaves[leaf] for _, leaf in masks_of(ex, root)):
            kept.remove(root)
    return kept if len(kept) < len(roots) else None


def masks_of(ex: Expressions, node: Node) -> Iterator[tuple[Node, Node]]:
    """The atoms that hide all else in a sum or exclusive or, and the random leaves that they come from."""
    op, data, children = ex.parts[node]
    atoms = children if op in (SUM, XOR) else (node,)
    for i, atom in enumerate(atoms):
        leaf = ex.source(atom)
        if leaf is None or ex.kind[leaf] != UNIFORM:
            continue
        rest = 0
        for a in atoms:
            rest |= ex.leaves[a] if a != atom else 0
        if rest & ex.leaves[leaf]:
            continue
        if op == SUM:
            hides = data[0][i] & 1 and ex.bits[atom] == ones(ex.width[atom])
        else:
            hides = not ex.bits[node] & ~ex.bits[atom]
        if hides:
            yield atom, leaf


def _changed(ex: Expressions, roots: list[Node], vain: set[tuple[Node, Node]]) -> list[Node] | None:
    """The roots after a change of variable with which fewer of them depend on secrets, those in `vain` last."""
    before = _measure(ex, roots)
    found = [(n, *mask) for n in dict.fromkeys([*roots, *ex.below(roots)]) for mask in masks_of(ex, n)]
    invertible = (f for f in found if ex.parts[f[0]][0] != SUM or _is_unit(ex, f[0], f[1]))
    for node, atom, leaf in sorted(invertible, key=lambda f: f[:2] in vain)[:TRIES]:
        fresh = ex.leaf(("fresh", node, leaf), ex.width[node], UNIFORM)
        fresh = ex.masked(fresh, ex.bits[atom])
        changed = list(dict.fromkeys(ex.substitute(roots, {atom: solved(ex, node, atom, fresh)})))
        gone = atom == leaf or not any(ex.leaves[r] & ex.leaves[leaf] for r in changed)
        if gone and _measure(ex, changed) < before:
            return changed
        vain.add((node, atom))
    return None


def _is_unit(ex: Expressions, node: Node, atom: Node) -> bool:
    return ex.terms(node)[0][atom] in (1, ones(ex.width[node]))


def solved(ex: Expressions, node: Node, atom: Node, value: Node) -> Node:
    """The atom, given the value of the sum (in which it counts once) or exclusive or that it is part of."""
    op, _, _ = ex.parts[node]
    width = ex.width[node]
    if op != SUM:
        return ex.xor([value, node, atom], width)
    terms, constant = ex.terms(node)
    sign = 1 if terms[atom] == 1 else -1
    rest = [(a, -sign * c) for a, c in terms.items() if a != atom]
    return ex.total([(value, sign), *rest], width, -sign * constant)


def _measure(ex: Expressions, roots: Sequence[Node]) -> tuple[int, int, int]:
    secret = [r for r in roots if ex.is_secret(r)]
    return len(secret), sum((ex.leaves[r] & ex.secrets).bit_count() for r in secret), len(ex.below(roots))


def _given(ex: Expressions, roots: list[Node], shown: Sequence[Node]) -> Iterator[list[Node]]:
    """The roots as functions of what is shown: one of its atoms is what is shown less the others, the largest first."""
    first, *others = shown
    op, _, children = ex.parts[first]
    known = ex.leaf(("shown", first), ex.width[first], KNOWN)
    atoms = children if op in (SUM, XOR) else (first,)
    for atom in sorted(atoms, key=lambda a: -len(ex.below([a]))):
        if op == SUM and not _is_unit(ex, first, atom):
            continue
        new = solved(ex, first, atom, known)
        changed = ex.substitute([*roots, *others], {atom: new})
        now, rest = changed[: len(roots)], changed[len(roots) :]
        if rest:
            yield from _given(ex, now, rest)
        else:
            yield list(dict.fromkeys(now))
