"""Shared comparisons by keys: whoever knows r makes two, and their holders turn any public c into two shares of a bit.

The exclusive or of the two bits is whether c < r, or c = r. One key alone says nothing of r. So a comparison of a
secret x needs its mask opened, c = x + r, and nothing else (function secret sharing). "less" is the distributed
comparison function of Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar and Rathee (EUROCRYPT 2021, figure 1) with results
of one bit, "equal" the distributed point function of Boyle, Gilboa and Ishai (CCS 2016). Both walk down a binary tree
along c, from a root each; the trees differ on the path of r alone. They end seven levels above the leaves, whose 128
bits are one block more ("early termination" there). Both are written for arrays, and in constant time; natively, with
the same bits, in engine/native/keyed.cc.

A node is a block: bit 0 says which of the two corrects what follows, bits 3 and above are its seed of 125 bits. Its
children are the blocks AES(s) xor s of the seed s with side 0 or 1 in the low bits, its leaf the same with 2: bit 0
becomes the child's, bit 1 adds to the result. A correction (one a level, in both keys) has the two bit-0s of the
children in bits 0 and 1, what is added to the result in bit 2, and the seed above.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime.ring.fixed_key import permuted

LEAF = 7  # levels of the tree that one block at its end stands for
SEED = np.array([2**64 - 8, 2**64 - 1], np.uint64)
Array = jax.Array


@dataclass(frozen=True)
class Comparison:
    """`relation` "less": c < r on the low `bits`; "equal": c = r."""

    relation: str
    bits: int

    @property
    def levels(self) -> int:
        return self.bits - LEAF

    @property
    def words(self) -> int:
        """64-bit words of a key, beside its root."""
        return 2 * (self.levels + 1)


COMPARISONS = tuple(Comparison(*c) for c in (("less", 63), ("less", 31), ("equal", 64), ("equal", 32)))


def _hashed(seeds: Array, side: Array | int) -> Array:
    block = _with_low(seeds, jnp.asarray(side, jnp.uint64))
    return permuted(block) ^ block


def _with_low(seeds: Array, low: Array) -> Array:
    return seeds & SEED | jnp.stack(
        [jnp.broadcast_to(low, seeds.shape[:-1]), jnp.zeros(seeds.shape[:-1], jnp.uint64)], -1
    )


def _bit(x: Array, at: Array | int) -> Array:
    """uint64: 0 or 1."""
    out: Array = x >> jnp.asarray(at, jnp.uint64) & np.uint64(1)
    return out


def _mask(bit: Array) -> Array:
    out: Array = jnp.uint64(0) - bit
    return out


def _if(bit: Array, block: Array) -> Array:
    return block & _mask(bit)[..., None]


def make(r: Array, roots: tuple[Array, Array], of: Comparison) -> Array:
    """uint64[n], two of uint64[2 n] -> the corrections, uint64[n words], of both keys."""
    r = r.astype(jnp.uint64)
    n = r.shape[0]
    less = np.uint64(of.relation == "less")
    both = jnp.stack([x.reshape(n, 2) for x in roots])  # [party, n, 2]
    sides = jnp.arange(2, dtype=jnp.uint64)[:, None, None]

    def level(state: tuple[Array, Array, Array], i: Array) -> tuple[tuple[Array, Array, Array], Array]:
        seeds, follows, value = state
        right = _bit(r, of.bits - 1 - i)
        children = _hashed(jnp.broadcast_to(seeds, (2, *seeds.shape)), sides)  # [side, party, n, 2]
        kept = children[0] ^ _if(right, children[0] ^ children[1])
        left = children[0] ^ children[1] ^ kept
        lost = left[0] ^ left[1]
        tops = children[:, 0, :, 0] ^ children[:, 1, :, 0]
        goes = [tops[0] & np.uint64(1) ^ right ^ np.uint64(1), tops[1] & np.uint64(1) ^ right]
        adds = _bit(lost[:, 0], 1) ^ value ^ (right & less)
        low = goes[0] | goes[1] << np.uint64(1) | adds << np.uint64(2)
        correction = _with_low(lost, low)
        value = value ^ _bit(kept[0, :, 0] ^ kept[1, :, 0], 1) ^ adds
        stays = goes[0] ^ (right & (goes[0] ^ goes[1]))
        seeds = kept & SEED ^ _if(follows, jnp.broadcast_to(correction & SEED, kept.shape))
        follows = _bit(kept[..., 0], 0) ^ (follows & stays)
        return (seeds, follows, value), correction

    follows = jnp.stack([jnp.zeros(n, jnp.uint64), jnp.ones(n, jnp.uint64)])
    start = both & SEED, follows, jnp.zeros(n, jnp.uint64)
    (seeds, _, value), corrections = lax.scan(level, start, jnp.arange(of.levels))
    ends = _hashed(seeds, 2)
    last = ends[0] ^ ends[1] ^ _truths(r & np.uint64(127), of) ^ _mask(value)[:, None]
    return jnp.concatenate([corrections, last[None]]).transpose(1, 0, 2).reshape(-1)


def _truths(low: Array, of: Comparison) -> Array:
    """For each of 128 values of the last bits, whether the relation holds: [n, 2]."""
    index = jnp.arange(64, dtype=jnp.uint64)
    values = jnp.stack([index, index + np.uint64(64)])
    holds = values < low[:, None, None] if of.relation == "less" else values == low[:, None, None]
    return (holds.astype(jnp.uint64) << index).sum(-1, dtype=jnp.uint64)


def read(c: Array, key: Array, root: Array, of: Comparison, party: int) -> Array:
    """uint64[n], uint64[n words], uint64[2 n] -> uint8[n]: this party's share of the bit."""
    c = c.astype(jnp.uint64)
    n = c.shape[0]
    corrections = key.reshape(n, of.words // 2, 2).transpose(1, 0, 2)

    def level(state: tuple[Array, Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        seeds, follows, value = state
        i, correction = x
        right = _bit(c, of.bits - 1 - i)
        child = _hashed(seeds, right)
        low = correction[:, 0]
        value = value ^ _bit(child[:, 0], 1) ^ (follows & _bit(low, 2))
        goes = _bit(low, 0) ^ (right & (_bit(low, 0) ^ _bit(low, 1)))
        seeds = child & SEED ^ _if(follows, correction & SEED)
        return (seeds, _bit(child[:, 0], 0) ^ (follows & goes), value), None

    start = root.reshape(n, 2) & SEED, jnp.full(n, party, jnp.uint64), jnp.zeros(n, jnp.uint64)
    (seeds, follows, value), _ = lax.scan(level, start, (jnp.arange(of.levels), corrections[:-1]))
    end = _hashed(seeds, 2) ^ _if(follows, corrections[-1])
    at = c & np.uint64(127)
    word = end[:, 0] ^ (_mask(_bit(at, 6)) & (end[:, 0] ^ end[:, 1]))
    return (value ^ _bit(word, at & np.uint64(63))).astype(jnp.uint8)
