"""A GPT-2-shaped model of one party, run for the prompt of another: three processes over TLS, seconds a token.

    python benchmarks/gpt2.py                       # 12 layers of width 768, 50,257 words, 32 tokens before the last
    python benchmarks/gpt2.py --layers 2 --tokens 4

Weights are random, alice's alone; tokens bob's alone. Each token is fed by itself: its seconds on the clock, and in the
end the largest difference of the last logits from the same model in plain JAX. Memory is that of all processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

import spuvm as spu
from spuvm.ml.neural import gpt2
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")


def prompt(shape: gpt2.Shape, tokens: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, shape.vocabulary, tokens, dtype=np.int32)


def in_the_clear(shape: gpt2.Shape, tokens: np.ndarray) -> np.ndarray:
    """The last logits by plain JAX."""
    params, cache, logits = gpt2.random_params(shape), gpt2.empty_cache(shape), None
    step = jax.jit(gpt2.step, static_argnums=4)
    for position, token in enumerate(tokens):
        logits, cache = step(params, cache, token, np.int32(position), shape.heads)
    return np.asarray(logits)


def be(party: str, config: str, shape: gpt2.Shape, tokens: int) -> dict[str, Any]:
    """One party: seconds of each token, and what the last logits are off."""
    spu.init(party=party, config=config)
    model = gpt2.Gpt2(spu.PYU("alice")(lambda: gpt2.random_params(shape))(), shape)
    said = spu.PYU("bob")(lambda: prompt(shape, tokens))()
    seconds, logits = [], None
    for i in range(tokens):
        token = spu.PYU("bob")(lambda x, i=i: x[i])(said)
        began = time.perf_counter()
        logits = model.feed(token)
        logits.block_until_ready()
        seconds.append(time.perf_counter() - began)
    shown = spu.reveal(logits)
    off = float(np.abs(shown - in_the_clear(shape, prompt(shape, tokens))).max()) if party == "alice" else None
    spu.shutdown()
    return {"seconds": seconds, "off": off, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=33)
    parser.add_argument("--party", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = gpt2.Shape(layers=args.layers)
    if args.party:
        party, config = args.party
        print(json.dumps(be(party, config, shape, args.tokens)))
        return
    with tempfile.TemporaryDirectory(prefix="spuvm-") as name:
        config = make_run_folder(name, spu.Config(parties=PARTIES), timeout=600)
        line = [sys.executable, __file__, "--layers", str(args.layers), "--tokens", str(args.tokens), "--party"]
        found = run_parties({p: [*line, p, str(config)] for p in PARTIES})
    said = [json.loads(o.stdout) for o in found.values()]
    each = np.max([s["seconds"] for s in said], axis=0)
    print(f"first token {each[0]:.1f} s, last {each[-1]:.2f} s, median {np.median(each):.2f} s")
    print(f"logits off by {said[0]['off']:.2g}; memory {sum(s['peak'] for s in said) / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
