"""ABY3: three parties, semi-honest, honest majority (no two parties collude).

Replicated sharings (Araki et al., CCS 2016; Mohassel and Rindal, ABY3, CCS 2018): x is
x_0 + x_1 + x_2 mod 2^k, or the exclusive or of three words. Component i is known to parties i
and i-1, so party i knows x_i and x_{i+1}, and lacks one. Each neighbouring pair shares a key, so
a random value for component i costs nothing.
"""

from __future__ import annotations

from spuvm.runtime.protocols.aby3.conversions import a2b, b2a, below_ap, bit2a, eqz_a, msb_a, prefix_or_b
from spuvm.runtime.protocols.aby3.edge import (
    reveal_a,
    reveal_a_to,
    reveal_b,
    reveal_b_to,
    share_v,
    share_vb,
)
from spuvm.runtime.protocols.aby3.exponential import exp2_aby3
from spuvm.runtime.protocols.aby3.harmonics import harmonics_aby3
from spuvm.runtime.protocols.aby3.one_bit import position_aby3, power_aby3
from spuvm.runtime.protocols.aby3.products import (
    HOLDERS,
    and_bb,
    dot_aa,
    dot_avm,
    dot_vma,
    mask_v,
    mul_aa,
    product_aa,
    product_vma,
    reshare_d,
)
from spuvm.runtime.protocols.aby3.sorting import before_aby3, opened_aby3, shuffle_aby3
from spuvm.runtime.protocols.aby3.times_power import scaled_aby3
from spuvm.runtime.protocols.aby3.truncation import mul_trunc_aa, trunc_a, trunc_d
from spuvm.runtime.protocols.algebra import Summands
from spuvm.runtime.protocols.guests import with_others
from spuvm.runtime.protocols.protocol import Kernel, Protocol, comparisons_with_public, products_with_private, table
from spuvm.runtime.protocols.sorting import Sorting

ABY3 = Protocol(
    name="aby3",
    security="three parties, semi-honest, honest majority",
    world_size=3,
    algebra=Summands(3),
    coalitions=tuple(frozenset({i}) for i in range(3)),
    sorting=Sorting(shuffle_aby3, before_aby3, opened_aby3),
    holders={"a": HOLDERS, "b": HOLDERS, "d": tuple(frozenset({i}) for i in range(3))},
    masked=lambda owner: (frozenset({(owner - 1) % 3}), frozenset({(owner + 1) % 3})),
    masked_in_shared=lambda owner: (owner, (owner + 1) % 3),
    kernels=table(
        Kernel("mask_v", mask_v, "v", "m"),
        Kernel("product_vma", product_vma, "vma", "d", local=True),
        Kernel("dot_vma", dot_vma, "vma", "d", elementwise=False, local=True),
        Kernel("dot_avm", dot_avm, "avm", "d", elementwise=False, local=True),
        *products_with_private(product_vma, reshare_d, trunc_d),
        Kernel("product_aa", product_aa, "aa", "d", local=True),
        Kernel("dot_aa", dot_aa, "aa", "d", elementwise=False, local=True),
        Kernel("reshare_d", reshare_d, "d", "a"),
        Kernel("mul_aa", mul_aa, "aa", "a"),
        Kernel("trunc_d", trunc_d, "d", "a"),
        Kernel("trunc_a", trunc_a, "a", "a"),
        Kernel("mul_trunc_aa", mul_trunc_aa, "aa", "a"),
        Kernel("and_bb", and_bb, "bb", "b"),
        Kernel("msb_a", msb_a, "a", "b"),
        *comparisons_with_public(below_ap),
        Kernel("eqz_a", eqz_a, "a", "b"),
        Kernel("a2b", a2b, "a", "b"),
        Kernel("b2a", b2a, "b", "a"),
        Kernel("bit2a", bit2a, "b", "a"),
        Kernel("prefix_or_b", prefix_or_b, "b", "b"),
        Kernel("exp2_ab", exp2_aby3, "ab", "a", by_chance=True),
        Kernel("exp2_abb", exp2_aby3, "abb", "a", by_chance=True),
        Kernel("harmonics_a", harmonics_aby3, "a", "a", by_chance=True),
        Kernel("scaled_aa", scaled_aby3, "aa", "a", by_chance=True),
        Kernel("power_b", power_aby3, "b", "a"),
        Kernel("position_b", position_aby3, "b", "a"),
        Kernel("share_v", share_v, "v", "a"),
        Kernel("share_vb", share_vb, "v", "b"),
        Kernel("reveal_a", reveal_a, "a", "p"),
        Kernel("reveal_b", reveal_b, "b", "p"),
        Kernel("reveal_a_to", reveal_a_to, "a", "v"),
        Kernel("reveal_b_to", reveal_b_to, "b", "v"),
    ),
)


def aby3(world_size: int, others: int = 0) -> Protocol:
    """The protocol, with `others` more parties that do not compute. It has three parties that do."""
    return with_others(ABY3, others)
