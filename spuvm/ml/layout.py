"""Which column of the owners' matrices is what: public, from the schema alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spuvm.data.schema import Column
from spuvm.ml.binning import split_count


@dataclass(frozen=True)
class Layout:
    """The columns of all owners' matrices side by side, and the candidates made of them.

    A candidate is a split of a feature and the side to which its missing cells go: right, or left as well.

    Attributes:
        owners: the parties with features, in order.
        features: of each owner.
        max_bin: of numeric features.
    """

    owners: tuple[str, ...]
    features: tuple[tuple[Column, ...], ...]
    max_bin: int

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Columns of each owner's matrix."""
        return tuple(sum(self.splits(f)) + sum(c.missing for c in f) for f in self.features)

    def splits(self, features: Sequence[Column]) -> list[int]:
        return [split_count(c, self.max_bin) for c in features]

    @property
    def width(self) -> int:
        return sum(self.widths)

    @cached_property
    def columns(self) -> np.ndarray:
        """Of each candidate, its split's column: int [candidates]."""
        return self._table[:, 0]

    @cached_property
    def missing(self) -> np.ndarray:
        """Of each candidate, the column of the missing cells that go left with it, or -1."""
        return self._table[:, 1]

    @cached_property
    def feature(self) -> np.ndarray:
        """Of each candidate, the number of its feature, counted through all owners."""
        return self._table[:, 2]

    @cached_property
    def _table(self) -> np.ndarray:
        rows, start, number = [], 0, 0
        for features in self.features:
            counts = self.splits(features)
            flag = start + sum(counts)
            for column, count in zip(features, counts):
                rows += [(start + i, -1, number) for i in range(count)]
                if column.missing:
                    rows += [(start + i, flag, number) for i in range(count)]
                    flag += 1
                start, number = start + count, number + 1
            start = flag
        return np.array(rows, np.int64).reshape(-1, 3)

    @cached_property
    def plain(self) -> bool:
        """Whether the candidates are the columns, one by one: no cells may be missing."""
        return bool((self.missing < 0).all()) and np.array_equal(self.columns, np.arange(self.width))

    @property
    def all_features(self) -> tuple[Column, ...]:
        return tuple(c for f in self.features for c in f)
