"""Which rows and splits each tree of a forest may use: drawn by a public generator, equal at all parties."""

from __future__ import annotations

import numpy as np

from spuvm.ml.boosting import Sampling
from spuvm.ml.layout import Layout
from spuvm.ml.parameters import Parameters


class ForestSampling(Sampling):
    """Of each tree rows with replacement, of each level some features, of these perhaps one split for each node alone.

    Args:
        bootstrap: whether rows are drawn.
        features: of a level.
        one_split: whether a feature may be split at as many places only as its level has nodes, drawn anew for each.
    """

    def __init__(
        self, parameters: Parameters, layout: Layout, rows: int, bootstrap: bool, features: int, one_split: bool
    ) -> None:
        super().__init__(parameters, layout, rows)
        self.bootstrap, self.features, self.one_split = bootstrap, features, one_split

    def draw(self) -> dict[str, np.ndarray]:
        """As of `Sampling`; `rows` says how often each was drawn."""
        levels = [self._level(1 << depth) for depth in range(self.parameters.max_depth)]
        out = {"allowed": np.array(levels, np.int8)}
        if self.bootstrap:
            drawn = np.bincount(self.generator.randint(0, self.rows, self.rows), minlength=self.rows)
            out["rows"] = np.minimum(drawn, 127).astype(np.int8)[:, None]
        return out

    def _level(self, nodes: int) -> np.ndarray:
        count = len(self.layout.all_features)
        chosen = self.generator.permutation(count)[: self.features]
        allowed = np.isin(self.layout.feature, chosen)
        if not self.one_split:
            return allowed
        one = np.zeros(len(allowed), bool)
        for feature in chosen:
            candidates = np.flatnonzero(self.layout.feature == feature)
            one[self.generator.permutation(candidates)[:nodes]] = True
        return one
