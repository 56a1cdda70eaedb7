"""How long the first call of a large program takes: with no compiled piece on disk, and with all of them.

    python benchmarks/first_call.py                 all programs, simulated and as three processes over TLS
    python benchmarks/first_call.py resnet18 --simulated

Each measurement is a process of its own. "Call" is from the call to the result; starting Python and importing
JAX are not part of it. Cold runs have an empty cache directory of their own. Beside them: the first call of the same
function by `jax.jit` alone, in a process of its own, too. Processor seconds are those of the party that needs most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from first_programs import PROGRAMS as SMALL
from flax import linen as nn

import spuvm as spu
from spuvm.bench.measure import machine
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
Arguments = dict[str, Any]


def layers() -> tuple[Callable[..., Any], Arguments]:
    """200 dense layers of width 16, each with weights of its own, written out."""
    weights = np.random.default_rng(0).normal(0, 0.3, (200, 16, 16)).astype(np.float32)

    def network(x: jax.Array, weights: jax.Array) -> jax.Array:
        for i in range(200):
            x = jax.nn.relu(x @ weights[i]) + 0.1
        return x

    return network, {"alice": np.ones((4, 16), np.float32), "bob": weights}


def steps() -> tuple[Callable[..., Any], Arguments]:
    """64 steps of gradient descent on a logistic regression, written out."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(64, 8)).astype(np.float32)

    def train(x: jax.Array, y: jax.Array) -> jax.Array:
        w = jnp.zeros(8)
        for _ in range(64):
            w = w - 0.1 * x.T @ (jax.nn.sigmoid(x @ w) - y) / 64
        return w

    return train, {"alice": x, "bob": (x[:, 0] > 0).astype(np.float32)}


class Block(nn.Module):
    channels: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.channels, (3, 3), (self.strides,) * 2, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(self.channels, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), (self.strides,) * 2, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=True)(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """He et al., CVPR 2016: for images of 224 x 224 as printed, for those of 32 x 32 without the first pooling."""

    large: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = nn.Conv(64, (7, 7), 2, use_bias=False) if self.large else nn.Conv(64, (3, 3), use_bias=False)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(first(x)))
        if self.large:
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")  # type: ignore[no-untyped-call]
        for stage, channels in enumerate((64, 128, 256, 512)):
            x = Block(channels, 1 if stage == 0 else 2)(x)
            x = Block(channels, 1)(x)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


def resnet18(size: int = 32) -> tuple[Callable[..., Any], Arguments]:
    """ResNet-18 on one image."""
    image = np.random.default_rng(2).uniform(size=(1, size, size, 3)).astype(np.float32)
    model = ResNet18(large=size > 32)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0), image))
    return lambda image, variables: model.apply(variables, image), {"alice": image, "bob": variables}


class VGG16(nn.Module):
    """For images of 32 x 32: Simonyan and Zisserman, ICLR 2015, with dense layers of 512."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels, layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(layers):
                x = nn.relu(nn.Conv(channels, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))  # type: ignore[no-untyped-call]
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(10)(nn.relu(nn.Dense(512)(nn.relu(nn.Dense(512)(x)))))


def vgg16() -> tuple[Callable[..., Any], Arguments]:
    """VGG-16 on one image."""
    image = np.random.default_rng(2).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    variables = jax.tree.map(np.asarray, VGG16().init(jax.random.key(0), image))
    return lambda image, variables: VGG16().apply(variables, image), {"alice": image, "bob": variables}


PROGRAMS: dict[str, Callable[[], tuple[Callable[..., Any], Arguments]]] = {
    **SMALL,
    "layers": layers,
    "steps": steps,
    "resnet18": resnet18,
    "resnet18-224": lambda: resnet18(224),
    "vgg16": vgg16,
}
JAX = "jax"  # who measures what `jax.jit` takes


def measure(name: str, party: str, config: str | None) -> None:
    """One call in this process; prints its seconds."""
    function, arguments = PROGRAMS[name]()
    if party == JAX:
        start, work = time.perf_counter(), time.process_time()
        np.asarray(jax.jit(function)(*arguments.values()))
        print(f"{time.perf_counter() - start:.3f} {time.process_time() - work:.3f} 0", flush=True)
        return
    if config:
        spu.init(party=party, config=config)
    else:
        spu.init(parties=PARTIES, address="local")
    inputs = [spu.PYU(owner)(lambda value=value: value)() for owner, value in arguments.items()]
    device = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    start, work = time.perf_counter(), time.process_time()
    result = np.asarray(spu.reveal(device(function)(*inputs)))
    seconds, work = time.perf_counter() - start, time.process_time() - work
    spu.shutdown()
    error = np.max(np.abs(result - np.asarray(jax.jit(function)(*arguments.values()))))
    print(f"{seconds:.3f} {work:.3f} {error:.1e}", flush=True)


def run(name: str, network: bool, cache: str, party: str = "alice") -> Record:
    """Seconds, processor seconds and largest error of a call in fresh processes, or why there are none."""
    env = {"SPUVM_CACHE_DIR": cache}
    command = [sys.executable, __file__, name, "--measure"]
    if not network:
        ended = subprocess.run(
            [*command, party], env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        said, words = [ended.stdout], ended.stderr
    else:
        with tempfile.TemporaryDirectory() as folder:
            config = str(make_run_folder(folder, spu.Config(parties=PARTIES), timeout=300.0))
            outcomes = run_parties({p: [*command, p, "--config", config] for p in PARTIES}, env=env)
        said, words = [o.stdout for o in outcomes.values()], outcomes["alice"].stderr
    if not all(text.strip() for text in said):
        return {"failure": (words.strip().splitlines() or ["it said nothing"])[-1]}
    seconds, work, error = (max(column) for column in zip(*(map(float, text.split()) for text in said)))
    return {"seconds": seconds, "processor": work, "error": error}


Record = dict[str, Any]


def cells(records: Sequence[Record]) -> list[list[str]]:
    """A line for each program and way to run it: seconds and processor seconds, cold and warm, and the larger error."""
    out = []
    for r in records:
        both = [r["cold"], r["warm"]]
        clear = [r["jax"]] if "jax" in r else []  # a record may be without
        found = [(x, key) for x in (*both, *clear) for key in ("seconds", "processor")]
        times = ["failed" if "failure" in x else f"{x[key]:.2f}" if key in x else "" for x, key in found]
        times += [""] * (6 - len(times))
        error = max((x["error"] for x in both if "error" in x), default=float("nan"))
        out.append([r["program"], "TLS" if r["network"] else "simulated", *times, f"{error:.1e}"])
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="program", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--simulated", action="store_true", help="leave out the runs over TLS")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.programs[0], options.measure, options.config)
        return 0
    unknown = [name for name in options.programs if name not in PROGRAMS]
    if unknown:
        parser.error(f"no program {', '.join(unknown)}: there are {', '.join(PROGRAMS)}")
    about = machine()
    records: list[Record] = []
    form = "{:14} {:10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   {}"
    print(form.format("program", "run", "cold s", "cpu s", "warm s", "cpu s", "jax s", "cpu s", "largest error"))
    for name in options.programs or PROGRAMS:
        with tempfile.TemporaryDirectory() as cache:
            clear = run(name, False, cache, JAX)
        for network in (False,) if options.simulated else (False, True):
            with tempfile.TemporaryDirectory() as cache:
                cold, warm = run(name, network, cache), run(name, network, cache)
            records.append({"program": name, "network": network, "cold": cold, "warm": warm, "jax": clear})
            (line,) = cells(records[-1:])
            print(form.format(*line), flush=True)
            for found in (cold, warm):
                if "failure" in found:
                    print(f"failed: {found['failure']}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "programs": records}, indent=1) + "\n")
    return int(any("failure" in r[x] for r in records for x in ("cold", "warm")))


if __name__ == "__main__":
    sys.exit(main())
