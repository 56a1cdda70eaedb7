"""What a protocol is: where each kind of share lives, how sharings combine, and a table of kernels.

Share kinds, one letter each, the same for every protocol:

    p  public: one component, known to all
    v  private: one component, known to its owner
    a  arithmetic sharing of a value mod 2^k
    b  boolean sharing of a bool or a whole word
    d  arithmetic sharing as a local product leaves it
    m  what the others hold of a private value, masked for products with secrets: its owner keeps v
    h  v and m together, as they enter and leave a program: the value, then the components of m
    c  public control: p that a dealer knows, too

How the components of a, b and d make up the value is the protocol's own: its `algebra` says it.
A kernel is a JAX function over sharings (tuples of component arrays). It says what happens at
all parties at once; `project` works out who does what. Kernels named here are the ones that
`expand` calls; those in the second half are derived once from a protocol's `and_bb`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spuvm.runtime.protocols.algebra import Algebra
from spuvm.runtime.protocols.algebra import Sharing as Sharing
from spuvm.runtime.protocols.sorting import Sorting
from spuvm.runtime.ring import bits as bt

And = Callable[..., Sharing]
KEYED = "keyed_"  # before a kernel's name, another that gives the same by keys: in fewer rounds, of more bytes


@dataclass(frozen=True)
class Kernel:
    """`inputs` and `output` are share kinds. Element-wise kernels see flat blocks of any length.

    A `local` kernel neither sends nor draws randomness: it may be fused with its neighbours. One that rounds
    `by_chance` gives, for equal operands, results that differ by a unit; truncations aside, it is left out where
    programs are to be exact.
    """

    name: str
    function: Callable[..., Sharing]
    inputs: str
    output: str
    elementwise: bool = True
    local: bool = False
    by_chance: bool = False


class Setup(typing.Protocol):
    """What a protocol's set-up may use of a link between the parties."""

    rank: int

    def session_key(self, holders: Iterable[int]) -> bytes: ...
    def confirm_key(self, holders: Iterable[int]) -> None: ...


@dataclass(frozen=True)
class Protocol:
    """`holders[kind][i]` are the ranks that know component i of a sharing of that kind; `algebra` combines them.

    `coalitions` are the largest sets of ranks that may put together all that they see and still learn nothing:
    what `security` promises, and what the checker of leakage goes by. None: it promises nothing.
    `sorting` is there if it can shuffle; else sorts are networks of comparisons.
    `setup` is what the parties do with each other once, when a session begins.
    `verified`: parties may deviate; what is sent is confirmed, and checked before anything is revealed and at the end.
    `proved`: products are proved in these checks as well (`machine/proofs.py`), each check a known number of them.
    `others` is how many parties there are, after those that compute, that only bring values and are
    shown results. A dealer is one more rank, the last: it takes part in kernels and holds no component
    but, where masked products need it, the mask; `tell_p` lets it follow control that depends on public
    values. `masked(owner)` are the holders of kind m;
    `masked_in_shared(owner)` says which components of the owner's `share_v` would serve as well,
    nothing if none do.
    """

    name: str
    security: str
    world_size: int
    holders: Mapping[str, tuple[frozenset[int], ...]]
    algebra: Algebra
    masked: Callable[[int], tuple[frozenset[int], ...]]
    coalitions: tuple[frozenset[int], ...] = ()
    sorting: Sorting | None = None
    verified: bool = False
    proved: bool = False
    setup: Callable[[Setup], None] = lambda channel: None
    masked_in_shared: Callable[[int], tuple[int, ...]] = lambda owner: ()
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    dealer: int | None = None
    others: int = 0

    def components(self, kind: str, owner: int | None = None) -> tuple[frozenset[int], ...]:
        if kind == "p":
            return (frozenset(range(self.world_size + self.others)),)
        if kind == "c":
            assert self.dealer is not None
            return (frozenset({*range(self.world_size + self.others), self.dealer}),)
        if kind == "v":
            assert owner is not None
            return (frozenset({owner}),)
        if kind in "mh":
            assert owner is not None
            return (frozenset({owner}), *self.masked(owner))[kind == "m" :]
        return self.holders[kind]


def products_with_private(
    product: Callable[..., Sharing], reshare: Callable[..., Sharing], trunc: Callable[..., Sharing]
) -> tuple[Kernel, ...]:
    """The element-wise kernels of a product of kinds v, m and a that leaves kind d."""

    def mul_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
        return reshare(product(x, m, y, owner=owner))

    def mul_trunc_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, bits: int) -> Sharing:
        return trunc(product(x, m, y, owner=owner), bits=bits)

    return Kernel("mul_vma", mul_vma, "vma", "a"), Kernel("mul_trunc_vma", mul_trunc_vma, "vma", "a")


def comparisons_with_public(below: Callable[..., Sharing]) -> tuple[Kernel, ...]:
    """The kernels that compare a value with two, three or four public ones: bit i of a byte for the i-th."""
    return tuple(Kernel(f"below_a{p}", below, f"a{p}", "b") for p in ("pp", "ppp", "pppp"))


def table(*kernels: Kernel) -> dict[str, Kernel]:
    """The kernels by name; a name given twice is an error."""
    out: dict[str, Kernel] = {}
    for kernel in kernels:
        if kernel.name in out:
            raise ValueError(f"kernel `{kernel.name}` is registered twice")
        out[kernel.name] = kernel
    return out


# Derived boolean circuits: written once over the protocol's `and_(x, y, bits=...)`. ------------


def each(function: Callable[..., Any], *sharings: Sharing) -> Sharing:
    """Apply a function that is linear over exclusive or to each component."""
    return tuple(function(*components) for components in zip(*sharings))


def xor(x: Sharing, y: Sharing) -> Sharing:
    return each(lambda a, b: a ^ b, x, y)


def xor_constant(x: Sharing, value: int) -> Sharing:
    return (x[0] ^ bt.constant(x[0], value), *x[1:])


def and_constant(x: Sharing, value: int) -> Sharing:
    return each(lambda a: a & bt.constant(a, value), x)


def _halves(x: Sharing, width: int) -> tuple[Sharing, Sharing]:
    """The lower and upper `width / 2` bits of words of `width` bits."""
    half = width // 2
    low = each(lambda a: a & bt.constant(a, (1 << half) - 1), x)
    return low, each(lambda a: bt.shift_right(a, half), x)


def _narrow(x: Sharing, width: int) -> Sharing:
    return each(lambda a: bt.cast(a, width), x)


def carry_out(and_: And, generate: Sharing, propagate: Sharing) -> Sharing:
    """The carry out of the top bit, from the generate and propagate bits of a sum of k-bit words.

    1. Reorder the bits so that neighbours in significance stand in opposite halves.
    2. log2 k times, with half as many bits each time: (g, p) := (g1 ^ p1 g0, p1 p0), where 1 is the
       more significant half. Both products are one `and_` of twice the width.
    """
    g, p = each(bt.bit_reverse_indices, generate), each(bt.bit_reverse_indices, propagate)
    return folded(and_, g, p, bt.width(generate[0]))


def folded(and_: And, g: Sharing, p: Sharing, width: int) -> Sharing:
    """Step 2 of `carry_out`, of words of `width` bits in that order."""
    while width > 1:
        half = width // 2
        g0, g1 = _halves(g, width)
        if half == 1:
            p1 = each(lambda a: bt.shift_right(a, 1), p)
            return xor(g1, and_(p1, g0, bits=1))
        p0, p1 = _halves(p, width)
        both = each(lambda a, h=half: a | bt.shift_left(a, h), p1)
        other = each(lambda a, b, h=half: a | bt.shift_left(b, h), g0, p0)
        gp, pp = _halves(and_(both, other, bits=width), width)
        g, p = _narrow(xor(g1, gp), half), _narrow(pp, half)
        width = half
    raise AssertionError("unreachable")


def carries(and_: And, generate: Sharing, propagate: Sharing, first: int = 0) -> Sharing:
    """Bit i of the result is the carry out of bit i (Sklansky's prefix network, log2 k levels).

    `first`: the level to begin with, where those below are done.

    On level l every block of 2^(l+1) bits takes the top bit (g, p) of its lower half into all
    positions of its upper half: g += p g', p = p p'. The two products of the k/2 upper bits fill
    one k-bit `and_`: those for p stand in the unused lower halves.
    """
    g, p = generate, propagate
    width = bt.width(g[0])
    levels = width.bit_length() - 1
    for level in range(first, levels):
        half = 1 << level
        upper = upper_halves(width, level)
        g_top, p_top = (_spread_top(x, level) for x in (g, p))
        p_upper = and_constant(p, upper)
        if level == levels - 1:
            return xor(g, _and_upper(and_, p_upper, g_top))
        x = each(lambda a, h=half: a | bt.shift_right(a, h), p_upper)
        y = each(lambda a, b, h=half: a | bt.shift_right(b, h), g_top, p_top)
        z = and_(x, y, bits=width)
        g = xor(g, and_constant(z, upper))
        moved = each(lambda a, h=half, u=upper: bt.shift_left(a, h) & bt.constant(a, u), z)
        p = each(lambda a, b, u=upper: (a & bt.constant(a, ~u)) | b, p, moved)
    raise AssertionError("unreachable")


def upper_halves(width: int, level: int) -> int:
    """The upper halves of a word's blocks of 2^(level+1) bits."""
    return sum(1 << i for i in range(width) if (i >> level) & 1)


def _spread_top(x: Sharing, level: int) -> Sharing:
    """The top bit of the lower half of each block, in all positions of the upper half."""
    half = 1 << level
    sources = sum(1 << (i + half - 1) for i in range(0, bt.width(x[0]), 2 * half))
    return each(lambda a: bt.repeat(bt.shift_left(a & bt.constant(a, sources), 1), half), x)


def _and_upper(and_: And, x: Sharing, y: Sharing) -> Sharing:
    """The conjunction of words whose lower halves are zero."""
    width = bt.width(x[0])
    z = and_(_upper_half(x), _upper_half(y), bits=width // 2)
    return each(lambda a: bt.shift_left(bt.cast(a, width), width // 2), z)


def _upper_half(x: Sharing) -> Sharing:
    half = bt.width(x[0]) // 2
    return each(lambda a: bt.cast(bt.shift_right(a, half), half), x)


def all_bits(and_: And, x: Sharing, bits: int | None = None) -> Sharing:
    """The conjunction of the k bits, or the lowest `bits`, as a bool: log2 k levels of halving."""
    width = bits or bt.width(x[0])
    while width > 1:
        low, high = _halves(x, width)
        width //= 2
        x = and_(_narrow(low, width), _narrow(high, width), bits=width)
    return x


def prefix_or(and_: And, x: Sharing) -> Sharing:
    """Bit i becomes the disjunction of bits i and above: log2 k levels of k/2 bits each.

    On level l every block of 2^(l+1) bits takes the lowest bit of its upper half into its lower
    half. A swap of index digits l and the highest brings all lower halves into one word of k/2 bits.
    """
    width = bt.width(x[0])
    top = width.bit_length() - 2
    for level in range(top + 1):
        half = 1 << level
        sources = sum(1 << (i + half) for i in range(0, width, 2 * half))
        spread = each(lambda a, s=sources, h=half: bt.repeat(bt.shift_right(a & bt.constant(a, s), h), h), x)
        low, source = (each(lambda a, n=level: bt.cast(bt.swap_digits(a, n, top), width // 2), v) for v in (x, spread))
        either = xor(source, and_(low, source, bits=width // 2))  # x or s = x xor (s xor x s)
        x = xor(x, each(lambda a, n=level: bt.swap_digits(bt.cast(a, width), n, top), either))
    return x


def top_bit(x: Sharing) -> Sharing:
    return each(lambda a: bt.cast(bt.shift_right(a, bt.width(a) - 1), 8), x)
