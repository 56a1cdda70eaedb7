"""Correlated randomness of two parties: seconds of processor time a party, and bytes, two threads over memory.

    python benchmarks/oblivious.py [--words 100000]     by oblivious transfer
    python benchmarks/oblivious.py --matrices           products of matrices by ring-LWE, and the bytes of transfers

Base transfers and keys, once a session, are made before and not counted.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

from spuvm.runtime.engine.correlated import OPERANDS, RESULTS, Family, Holders, Kind
from spuvm.runtime.engine.random import new_key
from spuvm.runtime.link.memory_link import MemoryLink, memory_links
from spuvm.runtime.machine.executor import Streams
from spuvm.runtime.oblivious.matrices import bytes_by_transfers, layout_of
from spuvm.runtime.oblivious.plan import groups, offline, rows_of

FAMILIES = {
    "products of 64 bits": Family(Kind.MUL, 64),
    "conjunctions of 64 bits": Family(Kind.AND, 64),
    "words shared both ways": Family(Kind.WORD, 64),
    "truncation pairs": Family(Kind.TRUNC, 64, (18,)),
    "bits shared both ways": Family(Kind.BIT, 64),
}
MATRICES = [(64, 64, 64), (569, 30, 1), (30, 569, 1), (256, 256, 256), (512, 512, 512)]


def measured(family: Family, words: int) -> str:
    blocks = -(-words * family.width // 8 // 64) * 4
    components = OPERANDS[family.kind] + RESULTS[family.kind]
    draws = {family.holders(p, c): blocks for p in (0, 1) for c in range(components)}
    seconds = made(draws, dict.fromkeys(draws, 4))
    transfers = sum(rows_of(batch) for group in groups(draws) for batch in group)
    _, sent = offline(draws)
    speed = " | ".join(f"{s:.2f}" for s in seconds)
    return f"| {words:,} | {transfers:,} | {speed} | {transfers / max(seconds):,.0f} | {sum(sent) / words:,.0f} |"


def multiplied(shape: tuple[int, int, int]) -> str:
    family = Family(Kind.DOT, 64, (1, *shape))
    layout = layout_of(family)
    assert layout is not None
    seconds = made(family.draws(1), Family(Kind.DOT, 64, (1, 16, 16, 16)).draws(1))
    _, sent = offline(family.draws(1))
    figures = f"{sum(sent) / 1e6:,.1f} | {bytes_by_transfers(family) / 1e6:,.1f}"
    name = " x ".join(map(str, shape))
    return f"| {name} | {layout.cells} + {layout.results} | {max(seconds):.2f} | {figures} |"


def made(draws: dict[Holders, int], first: dict[Holders, int]) -> list[float]:
    """Processor seconds of both parties for these draws, after `first`, which base transfers and keys go with."""
    links = memory_links(("alice", "bob"), timeout=600)

    def party(link: MemoryLink) -> float:
        streams = Streams(lambda holders: new_key(), link.rank)
        streams.link = link
        streams.advance(first)
        start = time.thread_time()
        streams.advance(draws)
        return time.thread_time() - start

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(party, links))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=100_000)
    parser.add_argument("--matrices", action="store_true")
    options = parser.parse_args()
    words = options.words
    if options.matrices:
        os.environ["NPROC"] = "1"  # all of a party's work in its own thread
        print("| m x k x n | ciphertexts, a party | s, processor, a party | MB, both parties | MB by transfers |")
        print("|---|--:|--:|--:|--:|")
        for shape in MATRICES:
            print(multiplied(shape), flush=True)
        return
    print("| what | words | transfers | s, sender | s, receiver | transfers a second and core | bytes a word |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, family in FAMILIES.items():
        print(f"| {name} {measured(family, words)}")


if __name__ == "__main__":
    main()
