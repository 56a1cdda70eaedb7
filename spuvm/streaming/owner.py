"""What the owner of rows does with a block of them alone, before anything is shared."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from spuvm.data.formats.table_file import INSTALL
from spuvm.runtime.errors import ConfigError
from spuvm.streaming.grouping import Aggregator, Wanted

PLACES = re.compile(r'^#loc.*$| loc\((?:#loc\d*|"[^"]*"|unknown)\)', re.MULTILINE)


@dataclass
class OwnWork:
    """A stream's steps, as JAX exports them, and then the aggregation; without the user's Python functions.

    `structs` are the aggregates' shapes and dtypes by name.
    """

    steps: Any  # jax.export.Exported
    aggregator: Aggregator
    structs: Mapping[str, Any]

    @cached_property
    def _run(self) -> Callable[..., Any]:
        return jax.jit(self.steps.call)

    def __call__(self, columns: Mapping[str, np.ndarray], frac: int) -> list[np.ndarray]:
        """Ring elements [keys] for each aggregate, in the order of their names."""
        with jax.enable_x64(True):  # keeps the dtypes that the steps were traced with
            out, mask = self._run(dict(columns))
        host = {n: np.asarray(x) for n, x in out.items()}
        return self.aggregator(host, None if mask is None else np.asarray(mask), frac)

    def to_json(self) -> dict[str, Any]:
        a = self.aggregator
        wanted = [[w.name, w.kind, w.column] for w in a.wanted]
        try:
            steps = base64.b64encode(self.steps.serialize()).decode()
        except ImportError:
            raise ConfigError(f"workers of `group_by` need a package that is missing: {INSTALL}.") from None
        return {"steps": steps, "key": a.key, "keys": a.keys, "wanted": wanted}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> OwnWork:
        aggregator = Aggregator(body["key"], body["keys"], tuple(Wanted(*w) for w in body["wanted"]))
        return cls(jax.export.deserialize(bytearray(base64.b64decode(body["steps"]))), aggregator, {})

    @property
    def hash(self) -> str:
        """Hexadecimal SHA-256 of what is done."""
        a = self.aggregator
        module = PLACES.sub("", str(self.steps.mlir_module()))  # the same from wherever it was called
        text = f"{module} {a.key} {a.keys} {[(w.name, w.kind, w.column) for w in a.wanted]}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def names(self) -> list[str]:
        """Of the aggregates, in order."""
        return sorted(w.name for w in self.aggregator.wanted)
