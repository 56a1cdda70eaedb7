"""Correlated randomness by oblivious transfer: seconds of processor time a party, and bytes, two threads over memory.

python benchmarks/oblivious.py [--words 100000]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from spuvm.runtime.engine.correlated import OPERANDS, RESULTS, Family, Kind
from spuvm.runtime.engine.random import new_key
from spuvm.runtime.link.memory_link import MemoryLink, memory_links
from spuvm.runtime.machine.executor import Streams
from spuvm.runtime.oblivious.plan import batches, offline

FAMILIES = {
    "products of 64 bits": Family(Kind.MUL, 64),
    "conjunctions of 64 bits": Family(Kind.AND, 64),
    "words shared both ways": Family(Kind.WORD, 64),
    "truncation pairs": Family(Kind.TRUNC, 64, (18,)),
    "bits shared both ways": Family(Kind.BIT, 64),
}


def measured(family: Family, words: int) -> str:
    blocks = -(-words * family.width // 8 // 64) * 4
    components = OPERANDS[family.kind] + RESULTS[family.kind]
    draws = {family.holders(p, c): blocks for p in (0, 1) for c in range(components)}
    links = memory_links(("alice", "bob"), timeout=600)

    def party(link: MemoryLink) -> float:
        streams = Streams(lambda holders: new_key(), link.rank)
        streams.link = link
        streams.advance(dict.fromkeys(draws, 4))  # base transfers
        start = time.thread_time()
        streams.advance(draws)
        return time.thread_time() - start

    with ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(party, links))
    transfers = sum(chunk.rows for batch in batches(draws) for chunk in batch)
    _, sent = offline(draws)
    speed = " | ".join(f"{s:.2f}" for s in seconds)
    return f"| {words:,} | {transfers:,} | {speed} | {transfers / max(seconds):,.0f} | {sum(sent) / words:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=100_000)
    words = parser.parse_args().words
    print("| what | words | transfers | s, sender | s, receiver | transfers a second and core | bytes a word |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, family in FAMILIES.items():
        print(f"| {name} {measured(family, words)}")


if __name__ == "__main__":
    main()
