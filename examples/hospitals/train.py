"""Three hospitals train a model together; no row, weight or prediction of one is seen by another.

    python examples/hospitals/train.py                                       all in this process, simulated
    python examples/hospitals/train.py --network                             three processes, mutual TLS
    python examples/hospitals/train.py --as alice --config cluster.toml      one party; likewise bob and carol

Each party opens only its own file, written by `prepare.py`. What the parties learn: the shapes of
the tables; whether all have the same rows in the same order (one bit); and carol alone, the
predictions for the held-out fifth of the rows, from which she computes the AUC.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax import lax

import spuvm as spu
from spuvm.network import Scratch, make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
LABEL = "malignant"
DATA = Path(__file__).parent / "data"
OUTPUT = Path(__file__).parent / "out" / "predictions.parquet"

TRAINING = 456  # of 569 rows; the last fifth is held out
BATCH = 76
EPOCHS = 10
RATE = 0.5


# The model: plain JAX ---------------------------------------------------------------------------------


def standardise(x: jax.Array) -> jax.Array:
    """Columns of mean 0 and variance 1 over the training rows, of f32[rows, columns].

    The first line brings all columns to one magnitude: the variance of a column of thousandths
    would be lost below the fixed-point unit of 4e-6.
    """
    x = x * (1 / jnp.mean(jnp.abs(x[:TRAINING]), axis=0))
    x = x - jnp.mean(x[:TRAINING], axis=0)
    return x * lax.rsqrt(jnp.mean(x[:TRAINING] ** 2, axis=0))


@jax.custom_jvp
def softplus(z: jax.Array) -> jax.Array:
    """log(1 + e^z), whose derivative is the sigmoid: no logarithm is needed to train."""
    return jnp.logaddexp(z, 0.0)


@softplus.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


def scores(model: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """The log odds that the model gives to rows of standardised features."""
    weights, bias = model
    return x @ weights + bias


def log_loss(model: tuple[jax.Array, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Of a batch, summed: -y log p - (1 - y) log(1 - p), with p = sigmoid(z)."""
    z = scores(model, x)
    return jnp.sum(softplus(z) - y * z)


def step(model: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
    """One step of gradient descent."""
    _, gradient = jax.value_and_grad(log_loss)(model, *batch)
    return jax.tree.map(lambda w, g: w - RATE / BATCH * g, model, gradient), None


def predict(alice: jax.Array, bob: jax.Array, carol: jax.Array, y: jax.Array) -> jax.Array:
    """Train on the first rows, predict the others.

    Args:
        alice, bob, carol: features f32[rows, 10] each.
        y: labels f32[rows], 0 or 1; those of the held-out rows are not used.

    Returns:
        The probability of label 1, f32[rows - TRAINING].
    """
    x = jnp.concatenate([standardise(alice), standardise(bob), standardise(carol)], axis=1)
    batches = x[:TRAINING].reshape(-1, BATCH, x.shape[1]), y[:TRAINING].reshape(-1, BATCH)

    def epoch(model: Any, _: None) -> tuple[Any, None]:
        return lax.scan(step, model, batches)

    start = jnp.zeros(x.shape[1]), jnp.zeros(())
    model, _ = lax.scan(epoch, start, None, length=EPOCHS)
    return jax.nn.sigmoid(scores(model, x[TRAINING:]))


def same_rows(alice: jax.Array, bob: jax.Array, carol: jax.Array) -> jax.Array:
    """Whether three digests u32[8] are equal: one public bit.

    The digests themselves stay secret. Announced, each would let the others test guesses of a
    party's list of patients ("mine without this one?") as long as they like.
    """
    same: jax.Array = spu.reveal(jnp.all((alice == bob) & (bob == carol)))
    return same


# What a party does with its own data -------------------------------------------------------------------


def load(path: Path) -> pa.Table:
    """A party's file; `id`, feature columns, and at carol `malignant`."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as e:
        raise spu.errors.InputError(
            f"{path} is no readable Parquet file ({type(e).__name__}): run prepare.py, or give its folder with --data."
        ) from None
    print(f"opened {path}: {table.num_rows} rows, {table.num_columns} columns", flush=True)
    return table


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column that must be there."""
    if name not in table.column_names:
        raise spu.errors.InputError(f"the file has no column `{name}`, but {', '.join(table.column_names)}.")
    return np.asarray(table[name])


def features(table: pa.Table) -> np.ndarray:
    """f32[rows, columns] without ids and labels."""
    names = [name for name in table.column_names if name not in ("id", LABEL)]
    return np.stack([column(table, name) for name in names], axis=1).astype(np.float32)


def labels(table: pa.Table) -> np.ndarray:
    """f32[rows], 0 or 1."""
    return column(table, LABEL).astype(np.float32)


def digest(table: pa.Table) -> np.ndarray:
    """SHA-256 of the id column in order, u32[8]."""
    ids = column(table, "id").astype("<i8")
    return np.frombuffer(hashlib.sha256(ids.tobytes()).digest(), "<u4")


def auc(probability: np.ndarray, label: np.ndarray) -> float:
    """The share of (positive, negative) pairs that are ranked correctly; ties count half."""
    positive, negative = probability[label > 0.5], probability[label < 0.5]
    better = positive[:, None] > negative
    return float(np.mean(better + 0.5 * (positive[:, None] == negative)))


def save(probability: Any, table: pa.Table, path: Path) -> None:
    """Write `id` and `probability` of the held-out rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": table["id"][TRAINING:], "probability": np.asarray(probability)}), path)


def report(probability: Any, label: np.ndarray, lines: list[list[str]]) -> None:
    """Print what carol has learned, and the table that all parties' counters make."""
    held_out = label[TRAINING:]
    print(f"\nAUC on {len(held_out)} held-out rows: {auc(np.asarray(probability), held_out):.4f}\n")
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))
    print(flush=True)


# The job: the same script at every party ----------------------------------------------------------------


def predict_for_carol(*inputs: jax.Array) -> jax.Array:
    """`predict`, its result shown to carol alone."""
    probability: jax.Array = spu.reveal(predict(*inputs), to="carol")
    return probability


def job(data: Path, output: Path) -> None:
    """Check the rows, train, and let carol see the predictions."""
    devices = [spu.PYU(party) for party in PARTIES]
    carol = devices[2]
    machine: Any = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    tables = [device(load)(data / f"{device.party}.parquet") for device in devices]
    if not spu.reveal(machine(same_rows)(*(d(digest)(t) for d, t in zip(devices, tables)))):
        raise spu.errors.InputError("the three files have different ids, or the same in another order.")
    y = carol(labels)(tables[2])
    inputs = [*(d(features)(t) for d, t in zip(devices, tables)), y]
    train = machine(predict_for_carol)
    cost = train.cost(*inputs)
    meter = Meter(machine)
    probability = train(*inputs).to(carol)
    mine = meter.read()
    rows = [spu.reveal(device(lambda: mine)()) for device in devices]
    carol(report)(probability, y, table(cost, rows, measured=machine.vm.session.link is not None))
    carol(save)(probability, tables[2], output)


class Meter:
    """Seconds, rounds and bytes from now on: the link's own counters, zero in a simulation."""

    def __init__(self, machine: Any) -> None:
        self.link = machine.vm.session.link
        self.start = self.now()

    def now(self) -> Any:
        moved = [0, 0, 0]
        if self.link is not None:
            c = self.link.counters
            moved = [c.rounds, sum(c.bytes_sent.values()), sum(c.bytes_received.values())]
        return np.array([time.perf_counter(), *moved])

    def read(self) -> Any:
        return self.now() - self.start


def table(cost: Any, rows: list[np.ndarray], measured: bool) -> list[list[str]]:
    """Per party: what the compiler predicted and, over a network, what the link counted."""
    lines = [["party", "rounds", "predicted", "bytes sent", "predicted", "bytes received", "seconds"]]
    for party, row, rounds, sent in zip(PARTIES, rows, cost.party_rounds, cost.bytes_sent):
        counted = [f"{int(n):,}" if measured else "-" for n in row[1:]]
        lines.append([party, counted[0], f"{rounds:,}", counted[1], f"{sent:,}", counted[2], f"{row[0]:.2f}"])
    return lines


# Three ways to run it -----------------------------------------------------------------------------------


def in_the_clear(data: Path) -> float:
    """The AUC of the same function run by JAX on all three files: only a demonstration can do that."""
    tables = [pq.read_table(data / f"{party}.parquet") for party in PARTIES]
    y = labels(tables[2])
    probability = jax.jit(predict)(*map(features, tables), y)
    return auc(np.asarray(probability), y[TRAINING:])


def simulate(data: Path, output: Path) -> int:
    """All parties in this process."""
    spu.init(parties=PARTIES, address="local")
    job(data, output)
    return 0


def be(party: str, config: str, data: Path, output: Path) -> int:
    """One party, until the job is done."""
    spu.init(party=party, config=config)
    try:
        job(data, output)
    finally:
        spu.shutdown()
    return 0


def network(data: Path, output: Path) -> int:
    """All parties as processes of this machine, with certificates made for this run."""

    def show(party: str, stream: str, line: str) -> None:
        print(f"{party:>5} | {line}", file=getattr(sys, stream), flush=True)

    with Scratch() as folder:
        config = make_run_folder(folder, spu.Config(parties=PARTIES))
        common = ["--config", str(config), "--data", str(data), "--output", str(output)]
        run_parties({p: [sys.executable, __file__, "--as", p, *common] for p in PARTIES}, on_line=show)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--network", action="store_true", help="all parties as local processes over mutual TLS")
    how.add_argument("--as", dest="party", choices=PARTIES, help="be this party; needs --config")
    parser.add_argument("--config", help="the cluster file, see examples/README.md")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of <party>.parquet (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="carol's predictions (%(default)s)")
    options = parser.parse_args()
    if bool(options.party) != bool(options.config):
        parser.error("--as and --config belong together")
    try:
        if options.party:
            return be(options.party, options.config, options.data, options.output)
        if options.network:
            status = network(options.data, options.output)
        else:
            status = simulate(options.data, options.output)
    except spu.errors.SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if status == 0:
        print(f"AUC of the same function run by JAX in the clear: {in_the_clear(options.data):.4f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
