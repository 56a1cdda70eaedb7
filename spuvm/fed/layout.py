"""A pytree of parameters as one vector of those that are trained together, and what stays with a party.

Leaves of floats are trained; all others (functions of an equinox module, counters, None) are part of the model and stay
as they are. Trained leaves whose path is under a personal name never leave their party.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spuvm.runtime.errors import InputError

Personal = str | Sequence[str] | Callable[[str], bool]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each leaf of a model goes: `shared` and `personal` are positions among its leaves, in order."""

    tree: Any
    leaves: tuple[Any, ...]  # of the model that training starts from
    paths: tuple[str, ...]
    shared: tuple[int, ...]
    personal: tuple[int, ...]

    @property
    def trained(self) -> tuple[int, ...]:
        return tuple(sorted(self.shared + self.personal))

    @property
    def size(self) -> int:
        """How many numbers are trained together."""
        return sum(int(np.size(self.leaves[i])) for i in self.shared)

    @property
    def dtype(self) -> Any:
        """Of the vector: float64 if a leaf is, else float32."""
        wide = any(np.dtype(self.leaves[i].dtype) == np.float64 for i in self.shared)
        return np.dtype(np.float64 if wide else np.float32)

    def vector(self, leaves: Sequence[Any]) -> np.ndarray:
        """The shared ones among all leaves, one after another."""
        parts = [np.asarray(leaves[i], self.dtype).reshape(-1) for i in self.shared]
        return np.concatenate(parts) if len(parts) > 1 else parts[0].copy()

    def change(self, after: Sequence[Any], before: Sequence[Any]) -> np.ndarray:
        """From the shared ones among `before` to those among `after`: one new vector, and no other of its size."""
        out, at = np.empty(self.size, self.dtype), 0
        for i in self.shared:
            size = int(np.size(self.leaves[i]))
            one, other = (np.asarray(x[i], self.dtype).reshape(-1) for x in (after, before))
            np.subtract(one, other, out=out[at : at + size])
            at += size
        return out

    def placed(self, vector: np.ndarray, leaves: Sequence[Any]) -> list[Any]:
        """All leaves, with the shared ones taken from the vector."""
        out, at = list(leaves), 0
        for i in self.shared:
            like = self.leaves[i]
            size = int(np.size(like))
            out[i] = vector[at : at + size].reshape(like.shape).astype(like.dtype, copy=False)
            at += size
        return out

    def placed_as_before(self, leaves: Sequence[Any]) -> list[Any]:
        """All leaves, the shared ones as training started: what all know by their vector is not kept twice."""
        return [self.leaves[i] if i in self.shared else leaf for i, leaf in enumerate(leaves)]

    def model(self, leaves: Sequence[Any]) -> Any:
        return jax.tree.unflatten(self.tree, leaves)

    def digest(self) -> bytes:
        """Of names, shapes, dtypes and values of what is trained together, and of which that is."""
        digest = hashlib.sha256()
        for i in self.shared:
            leaf = np.asarray(self.leaves[i])
            digest.update(json.dumps([self.paths[i], leaf.shape, leaf.dtype.name]).encode())
            digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return digest.digest()


def layout_of(params: Any, personal: Personal = ()) -> Layout:
    """Of a model's parameters.

    Args:
        personal: names of leaves or of branches ("head", "layers/2"), or a function of a leaf's path, of what is not
            aggregated.

    Raises:
        InputError: for parameters without floats, complex or NaN ones, and personal names that no leaf has.
    """
    found, tree = jax.tree_util.tree_flatten_with_path(params)
    paths = tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found)
    leaves = tuple(leaf for _, leaf in found)
    trained = [i for i, leaf in enumerate(leaves) if _is_trained(leaf, paths[i])]
    own = _personal(personal, [paths[i] for i in trained])
    shared = tuple(i for i in trained if paths[i] not in own)
    if not shared:
        raise InputError("`params` has no array of floats that is trained together: give a pytree of arrays.")
    return Layout(tree, leaves, paths, shared, tuple(i for i in trained if paths[i] in own))


def _is_trained(leaf: Any, path: str) -> bool:
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return False
    dtype = np.dtype(leaf.dtype)
    if dtype.kind == "c":
        raise InputError(f"`params` has complex numbers at `{path}`: train their real and imaginary parts.")
    if not jax.numpy.issubdtype(dtype, jax.numpy.floating):
        return False
    if not np.isfinite(np.asarray(leaf)).all():
        raise InputError(f"`params` holds NaN or infinite numbers at `{path}`: training cannot start there.")
    return True


def _personal(personal: Personal, paths: Sequence[str]) -> set[str]:
    if callable(personal):
        return {path for path in paths if personal(path)}
    names = [personal] if isinstance(personal, str) else list(personal)
    own: set[str] = set()
    for name in names:
        under = {path for path in paths if path == name or path.startswith(name + "/")}
        if not under:
            raise InputError(f"`personal` names {name!r}, and the trained parameters are {', '.join(paths[:12])}.")
        own |= under
    return own
