"""Nodes and weights of integrals over what is public: a secret enters their integrands only."""

from __future__ import annotations

from typing import Any

import numpy as np

Known = np.ndarray[Any, Any]


def nodes(count: int, power: int = 1, end: float = 1.0) -> tuple[Known, Known]:
    """Gauss and Legendre's rule in z from 0 to 1, of the integral over s = end z^power: float64, `count` each.

    With a higher power nodes are denser at 0: there integrands of different widths are met alike.
    """
    z, w = np.polynomial.legendre.leggauss(count)
    z, w = (z + 1) / 2, w / 2
    return end * z**power, end * power * w * z ** (power - 1)


def short_nodes(count: int, bits: int) -> tuple[Known, Known]:
    """Nodes between 0 and 1 of at most `bits` fraction bits, and weights that are exact to degree count - 1."""
    t = np.rint(np.ldexp(nodes(count)[0], bits)) * 2.0**-bits
    polynomials = np.polynomial.legendre.legvander(2 * t - 1, count - 1).T
    return t, np.linalg.solve(polynomials, np.eye(count)[0])  # only the first has an integral
