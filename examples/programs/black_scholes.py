"""Prices and deltas of European calls: alice knows the positions, bob his estimate of the volatility.

Black and Scholes, The Pricing of Options and Corporate Liabilities, 1973.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main
from jax.scipy.stats import norm

OPTIONS = 1000
RATE = 0.03  # a year


def price(spot: jax.Array, strike: jax.Array, years: jax.Array, volatility: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Prices f32[n], and deltas f32[n]: how much a price changes with the spot.

    Only the ratio spot / strike matters, and alice forms it by herself.
    """
    spread = volatility * jnp.sqrt(years)
    up = (jnp.log(spot / strike) + RATE * years) / spread + spread / 2
    delta = norm.cdf(up)
    return spot * delta - strike * jnp.exp(-RATE * years) * norm.cdf(up - spread), delta


def arguments() -> Mapping[str, Any]:
    """Spots and strikes about 100, a month to two years, volatilities of 10 to 60 per cent."""
    draw = np.random.default_rng(1)
    spot = draw.uniform(80, 120, OPTIONS)
    strike = spot * draw.uniform(0.8, 1.25, OPTIONS)
    years = draw.uniform(1 / 12, 2, OPTIONS)
    volatility = draw.uniform(0.1, 0.6, OPTIONS)
    return {
        k: v.astype(np.float32)
        for k, v in {"spot": spot, "strike": strike, "years": years, "volatility": volatility}.items()
    }


def measures(secure: Any, clear: Any) -> list[Measure]:
    (price, delta), (true_price, true_delta) = secure, clear
    return [
        Measure("mean price", float(np.mean(price)), float(np.mean(true_price)), 1e-3),
        Measure("largest error of a price", float(np.max(np.abs(price - true_price))), 0, 1e-2),
        Measure("largest error of a delta", float(np.max(np.abs(delta - true_delta))), 0, 2e-4),
    ]


PROGRAM = Program(
    price, {"spot": "alice", "strike": "alice", "years": "alice", "volatility": "bob"}, arguments, measures
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
