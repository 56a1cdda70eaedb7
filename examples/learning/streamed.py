"""Logistic regression over rows that no memory holds: three companies' Parquet files, read once, a block at a time.

Each company has some columns of the same customers. An ordinary JAX function goes over the blocks and carries secret
coefficients along; each batch is first predicted, then learned from, so the share that was predicted right is of rows
that the model had not seen (A. P. Dawid, Journal of the Royal Statistical Society A 147, 1984). Revealed are that share
and the coefficients, because asked.

    python examples/learning/streamed.py                            # all in one process, simulated
    python examples/learning/streamed.py --network --rows 1000000   # three processes over mutual TLS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import run

import spuvm as spu
from spuvm.network import Scratch

PARTIES = ("alice", "bob", "carol")
COLUMNS = {"alice": 7, "bob": 7, "carol": 6}
BATCH, RATE = 1024, 0.5
CHUNK = 1 << 16
TRUTH = np.random.default_rng(7).normal(size=sum(COLUMNS.values()))


def customers(start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn, not real: features [count, 20] and whether they bought, of the customers from `start` on."""
    r = np.random.default_rng(start)
    x = r.normal(size=(count, len(TRUTH)))
    return x, (x @ TRUTH - 0.5 + r.logistic(size=count) > 0).astype(np.float64)


def write(folder: Path, party: str, rows: int) -> None:
    """The party's file: its columns, and with carol's what they bought."""
    names = [f"{party[0]}{i}" for i in range(COLUMNS[party])] + ["bought"] * (party == "carol")
    first = sum(COLUMNS[p] for p in PARTIES[: PARTIES.index(party)])
    with pq.ParquetWriter(folder / f"{party}.parquet", pa.schema([(n, pa.float64()) for n in names])) as file:
        for start in range(0, rows, CHUNK):
            x, y = customers(start, min(CHUNK, rows - start))
            own = [*x[:, first : first + COLUMNS[party]].T, *([y] if party == "carol" else [])]
            file.write_table(pa.table(dict(zip(names, own))))


def learn(state: Any, alice: Any, bob: Any, carol: Any, bought: Any) -> Any:
    """A block's batches, a step each. The state: coefficients and intercept [21], how many were predicted right."""
    size = min(BATCH, len(bought))
    x = jnp.concatenate([alice, bob, carol, jnp.ones((len(bought), 1))], axis=1)
    whole = len(bought) // size

    def step(state: Any, batch: Any) -> Any:
        (w, right), (x, y) = state, batch
        margin = x @ w
        right = right + jnp.sum((margin > 0) == (y > 0.5))
        return (w - RATE * x.T @ (jax.nn.sigmoid(margin) - y) / size, right), None

    batches = x[: whole * size].reshape(whole, size, -1), bought[: whole * size].reshape(whole, size)
    return jax.lax.scan(step, state, batches)[0]


def trained(folder: Path, rows_per_block: int = CHUNK) -> tuple[np.ndarray, int]:
    """Coefficients and intercept, and how many rows were predicted right before they were learned from."""
    sources = {p: f"{folder}/{p}.parquet:{','.join(f'{p[0]}{i}' for i in range(n))}@{p}" for p, n in COLUMNS.items()}
    rows = spu.stream(sources | {"bought": f"{folder}/carol.parquet:bought@carol"}, rows_per_block=rows_per_block)
    w, right = spu.reveal(rows.fold(learn, (jnp.zeros(len(TRUTH) + 1), jnp.int32(0))))
    return np.asarray(w), int(right)


def main(party: str | None, rows: int) -> None:
    """Write the files, go through them, and say what was revealed."""
    with Scratch() as folder:
        for p in PARTIES if party is None else (party,):
            write(folder, p, rows)
        began = time.perf_counter()
        w, right = trained(folder)
        if party in (None, "alice"):
            seconds = time.perf_counter() - began
            print(f"{rows:,} rows of {len(TRUTH)}: {seconds:.1f} s, {right / rows:.4f} were predicted right")
            print("correlation with the truth:", f"{np.corrcoef(w[:-1], TRUTH)[0, 1]:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(run(__file__, __doc__ or "", PARTIES, main, rows=20_000))
