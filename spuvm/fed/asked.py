"""What a training may be asked for: settings that make no sense, or break a promise, are refused beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spuvm.context import here
from spuvm.fed.aggregates import Rule
from spuvm.fed.compressing import RandomK, TopK
from spuvm.fed.layout import Layout
from spuvm.fed.low_rank import LowRank
from spuvm.fed.private import EXAMPLE, Private
from spuvm.fed.rounds import LEAVE_OUT, STOP
from spuvm.fed.sketching import Sketch
from spuvm.fed.strategies import Strategy
from spuvm.fed.words import MOST_PARTIES
from spuvm.runtime.errors import ConfigError

WEIGHTS = ("rows", "equal")


def check(
    parties: Sequence[str],
    rounds: int,
    local_steps: int,
    batch_size: int | None,
    weights: str,
    bad: str,
    min_parties: int,
    fraction_bits: int,
    optimizer: Any,
) -> None:
    """Of any training; ConfigError names the setting."""
    counts = {"rounds": rounds, "local_steps": local_steps, "min_parties": min_parties, "batch_size": batch_size}
    for name, value in counts.items():
        least = 0 if name == "rounds" else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"`{name}` must be a whole number, {least} or more, got {value!r}.")
    if not 2 <= len(parties) < MOST_PARTIES:
        raise ConfigError(f"federated training needs 2 parties or more with data, got {len(parties)}.")
    missing = [p for p in parties if p not in here().parties]
    if missing:
        raise ConfigError(f"`data` names {', '.join(missing)}: `init` knows {', '.join(here().parties)}.")
    for name, word, known in (("weights", weights, WEIGHTS), ("bad", bad, (STOP, LEAVE_OUT))):
        if word not in known:
            raise ConfigError(f"`{name}` must be {' or '.join(map(repr, known))}, got {word!r}.")
    if not 1 <= fraction_bits <= 28:
        raise ConfigError(f"`fraction_bits` must be from 1 to 28, got {fraction_bits}.")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ConfigError("`optimizer` must have `init` and `update`, as optax's have.")


def check_compressed(compress: Any, how: Strategy, combine: Rule | None, dp: Any) -> None:
    """What cannot go with updates of few parameters."""
    if compress is None:
        return
    if not isinstance(compress, RandomK | TopK | LowRank | Sketch):
        raise ConfigError(
            "`compress` must be spu.fed.random_k(share), top_k(share), low_rank(rank) or sketch(share), got "
            f"{compress!r}."
        )
    if how.control or combine is not None or dp is not None:
        raise ConfigError(
            "`compress` goes with aggregate='secure', a strategy without control variates, and no `dp`: what waits at "
            "a party would be neither clipped nor compared."
        )


def check_private(
    dp: Private, layout: Layout, how: Strategy, combine: Rule | None, local_steps: int, seed: int | None, eval: Any,
    eval_data: Any,
) -> None:  # fmt: skip
    """What would break the promise, or has no meaning, is refused."""
    if not isinstance(dp, Private):
        raise ConfigError(f"`dp` must be spu.fed.Private(clip=..., noise=...), got {dp!r}.")
    if how.control or combine is not None:
        raise ConfigError("a private training has aggregate='secure' and a strategy without control variates.")
    if eval is not None and eval_data is None:
        raise ConfigError(
            "metrics of `data` are shown as they are, which is not private: give `eval_data` of other rows."
        )
    if dp.unit == EXAMPLE and local_steps != 1:
        raise ConfigError("of private examples a round is one step: give local_steps=1, or unit='party'.")
    if dp.unit == EXAMPLE and layout.personal:
        raise ConfigError("personal layers know examples without noise, and later updates would tell: leave them out.")
    if dp.unit == EXAMPLE and seed is not None:
        raise ConfigError("a `seed` would tell which examples are in a sample: leave it out.")
