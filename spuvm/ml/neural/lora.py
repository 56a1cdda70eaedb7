"""LoRA: small matrices that are trained beside a large model that stays as it is, and its owner's.

E. Hu and others, "LoRA: low-rank adaptation of large language models", ICLR 2022: a matrix W counts as W + s D U, of
which D [in, rank] and U [rank, out] are trained and W is not. U begins at 0, so that training starts at the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.errors import ConfigError, InputError

Adapters = dict[str, dict[str, np.ndarray]]  # by the matrix's place in the tree: "down" [in, rank], "up" [rank, out]


def lora(
    apply: Callable[[Any, jax.Array], jax.Array],
    form: Any,
    wanted: str | tuple[str, ...] = "",
    *,
    rank: int = 4,
    alpha: float | None = None,
    random_state: int = 0,
) -> tuple[Callable[..., jax.Array], Adapters]:
    """What `Trainer` takes to adapt a model that somebody owns:

        adapted, adapters = lora(model.apply, form, "attention", rank=4)
        trainer = Trainer(adapted, optax.adam(1e-2), adapters, frozen=alice(load)("base.npz"))

    Args:
        apply: of the model: parameters, inputs -> outputs.
        form: the parameters' form, which all know: arrays of their shapes, or what `jax.eval_shape` gives.
        wanted: parts of names of the matrices to adapt ("['attention']['query']"); all matrices if it is "".
        rank: of what is added; below the matrices' sides.
        alpha: what is added counts alpha / rank; `rank` if not given.
        random_state: of the public generator of the first `down`.

    Returns:
        A function of adapters, the model's parameters and inputs; and adapters that add nothing yet.

    Raises:
        ConfigError: if no matrix has such a name, or a rank is not below both its sides; in training InputError, if the
            model's parameters are not of this form.
    """
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    shapes = {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(form)}
    chosen = {k: s for k, s in shapes.items() if len(s) == 2 and any(n in k for n in names)}
    if not chosen:
        raise ConfigError(f"no matrix has {' or '.join(map(repr, names))} in its name: there are {', '.join(shapes)}.")
    for name, shape in chosen.items():
        if not isinstance(rank, int | np.integer) or not 1 <= rank < min(shape):
            raise ConfigError(
                f"`rank` is {rank}, but {name} is {shape[0]} by {shape[1]}: 1 to {min(shape) - 1} will do."
            )
    share = (rank if alpha is None else float(alpha)) / rank
    r = np.random.RandomState(random_state)
    adapters = {
        name: {
            "down": (r.normal(size=(rows, rank)) / math.sqrt(rows)).astype(np.float32),
            "up": np.zeros((rank, columns), np.float32),
        }
        for name, (rows, columns) in chosen.items()
    }

    def adapted(adapters: Mapping[str, Mapping[str, jax.Array]], base: Any, x: jax.Array) -> jax.Array:
        return apply(merged(base, adapters, share), x)

    return adapted, adapters


def merged(base: Any, adapters: Mapping[str, Mapping[str, Any]], share: float = 1.0) -> Any:
    """The model's parameters with what adapters add to them.

    Raises:
        InputError: if they lack a matrix that has an adapter.
    """
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(base)}
    if lost := [name for name in adapters if name not in names]:
        raise InputError(f"the model has no {lost[0]}, which an adapter is of: give `lora` the form that they have.")

    def with_adapter(path: Any, leaf: Any) -> Any:
        found = adapters.get(jax.tree_util.keystr(path))
        return leaf if found is None else leaf + share * jnp.matmul(found["down"], found["up"])

    return jax.tree_util.tree_map_with_path(with_adapter, base)
