"""What every estimator is: parameters, something learned, parts on disk, and a statement of what was revealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import ByColumn
from spuvm.ml.common.joined import features_of
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table, table_of
from spuvm.ml.machine import Inside, Machine, Reveal, default_device, is_inside
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import ConfigError, InputError, NotFittedError

VERSION = 1
NAME = "model"
CLASSES: dict[str, Any] = {}  # by name, for `load`
PAGES: dict[str, Callable[..., Any]] = {}  # "report": `report.page` puts it here, which stands on estimators


@dataclass(eq=False)
class Fitted:
    """What training leaves.

    Attributes:
        columns: what is known of the features, at their owners or secret.
        arrays: secret, by name.
        facts: public, by name: what JSON can hold.
    """

    machine: Machine
    columns: ByColumn | None
    arrays: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, kw_only=True, repr=False)
class Estimator:
    """The base of all. A subclass is a dataclass whose fields are its parameters, with a rule for each.

    Args:
        device: the SPU to compute on; of all parties if not given, in a simulation of the first three.
    """

    device: SPU | None = None
    checks: ClassVar[Mapping[str, Rule]] = {}
    fitted: Fitted | None = field(default=None, init=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__name__ in CLASSES and CLASSES[cls.__name__].__module__ != cls.__module__:
            raise AssertionError(f"two estimators are called {cls.__name__}")
        CLASSES[cls.__name__] = cls

    def __post_init__(self) -> None:
        self._check()

    # Parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters; they count from the next `fit` on."""
        rules.check_names(type(self).__name__, parameters, self._names())
        for name, value in parameters.items():
            setattr(self, name, value)
        self._check()
        return self

    def clone(self) -> Self:
        """The same parameters, nothing learned."""
        return type(self)(**self.get_params(deep=False))

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.init)

    def _check(self) -> None:
        """ConfigError for parameters that cannot be."""
        rules.check(type(self).__name__, self.checks, vars(self))

    def __repr__(self) -> str:
        default = {f.name: f.default for f in fields(self) if f.init}
        changed = [f"{k}={v!r}" for k, v in self.get_params(deep=False).items() if v is not default[k]]
        return f"{type(self).__name__}({', '.join(c for c in changed if not c.startswith('device='))})"

    # What was learned

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What training, predictions and requests have shown, to whom, how often."""
        return () if self.fitted is None else self.fitted.machine.reveals

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of training, in their order; of arrays x0, x1, ..."""
        return np.array(self._feature_names(), object)

    @property
    def n_features_in_(self) -> int:
        """How many columns training had."""
        return len(self._feature_names())

    def _feature_names(self) -> Sequence[str]:
        known = self._fitted().columns
        return () if known is None else tuple(c.name for c in known.columns)

    def explain(self) -> str:
        """What training and predictions cost, and what they revealed, to whom."""
        learned = self._fitted()
        lines = [f"{self!r}", "", f"{'what ran':24}  {'rounds':>7}  {'MB sent':>9}"]
        lines += [f"{what:24}  {rounds:7,}  {sent:9,.3f}" for what, rounds, sent in learned.machine.costs]
        lines += ["", "revealed:", *(f"  {r}" for r in self.reveals or ("nothing",))]
        return "\n".join(lines)

    def report(self, path: str | Path, data: Any = None, y: Any = None, **more: Any) -> Any:
        """Write a page about the model; see `spuvm.ml.report.page.write_report`."""
        return PAGES["report"](self, path, data, y, **more)

    def _fitted(self) -> Fitted:
        if self.fitted is None:
            raise NotFittedError(f"{type(self).__name__} has learned nothing yet: call `fit`, or `spuvm.ml.load`.")
        return self.fitted

    # Where it computes

    def _machine(self, *given: Any) -> Machine:
        """For training."""
        if is_inside(*given):
            return Inside()
        tables = [x.machine for x in given if isinstance(x, Table)]
        return Machine(tables[0].spu) if tables and self.device is None else Machine(self.device or default_device())

    def _table(self, data: Any, what: str = "prediction") -> Table:
        """Later rows, with the columns of training."""
        learned = self._fitted()
        if is_inside(data) and not isinstance(learned.machine, Inside):
            learned = self._moved_inside()
        if learned.columns is None:
            return table_of(learned.machine, data)
        if isinstance(data, SharedTable):
            data = features_of(learned.machine, data, [c.name for c in learned.columns.columns if c.name in data])
        return learned.columns.match(table_of(learned.machine, data))

    def _moved_inside(self) -> Fitted:
        raise InputError(
            f"this {type(self).__name__} was trained outside of the jitted function: call `predict` outside, too, or "
            "`fit` it inside."
        )

    # Parts on disk

    def save(self, folders: Mapping[str, str | Path]) -> None:
        """Write the model: to each party's folder a part `model.share`, which says nothing by itself.

        Args:
            folders: by party. In a networked run a party needs its own alone.

        Raises:
            InputError: for a folder that is missing or cannot be written.
        """
        if isinstance(self._fitted().machine, Inside):
            raise InputError("a model inside of a jitted function cannot be saved there: return its arrays.")
        spu.save_shares(self.to_tree(), folders, NAME)

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        learned = self._fitted()
        return {
            "kind": f"spuvm.ml.{type(self).__name__}",
            "version": VERSION,
            "parameters": json.dumps(self._written_parameters()),
            "facts": json.dumps(learned.facts),
            "arrays": learned.arrays,
            "table": None if learned.columns is None else learned.columns.kind,
            "columns": None if learned.columns is None else learned.columns.to_store(),
            "zero": learned.machine.spu(_zero)(),  # a model may hold nothing but owners' knowledge
        }

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> Estimator:
        """The inverse of `to_tree`."""
        machine = Machine(device)
        out = cls(**cls._read_parameters(json.loads(tree["parameters"])))
        columns = None if tree["columns"] is None else ByColumn.stored(machine, tree["table"], tree["columns"])
        out.fitted = Fitted(machine, columns, dict(tree["arrays"]), json.loads(tree["facts"]))
        return out

    def _written_parameters(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_params(deep=False).items() if k != "device"}

    @classmethod
    def _read_parameters(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}


def load(folders: Mapping[str, str | Path], device: SPU | None = None) -> Any:
    """A model that `save` wrote, perhaps in other processes at another time; its predictions are the same.

    Args:
        folders: by party, where its part is. In a networked run a party needs its own entry alone.
        device: an SPU of the same parties, protocol and fraction bits; that of all parties if not given.

    Raises:
        InputError: for a part that is missing, damaged, of another party, model, version or configuration.
        PeerMismatchError: in a networked run, if the parties' parts are of different models.
    """
    device = device or default_device()
    return of_tree(spu.load_shares(folders, device, NAME), device)


def of_tree(tree: Any, device: SPU) -> Any:
    """An estimator of any class from its tree."""
    kind = tree.get("kind") if isinstance(tree, Mapping) else None
    if not isinstance(kind, str) or not kind.startswith("spuvm.ml."):
        raise InputError("`folders` have shares that are no model: give the folders that `save` was given.")
    if kind.removeprefix("spuvm.ml.") not in CLASSES:
        raise InputError(f"the model is a `{kind}`, which this version of spuvm does not know: use the one that saved.")
    found = CLASSES[kind.removeprefix("spuvm.ml.")]
    version = getattr(found, "version", VERSION)
    if tree["version"] != version:
        raise InputError(
            f"the model has format {tree['version']}, this version of spuvm reads {version}: train it anew."
        )
    return found.of_tree(tree, device)


def clone(estimator: Any) -> Any:
    """An estimator with the same parameters that has learned nothing."""
    if not hasattr(estimator, "get_params"):
        raise ConfigError(f"`{estimator!r}` is no estimator.")
    return estimator.clone() if isinstance(estimator, Estimator) else type(estimator)(**estimator.get_params())


def _zero() -> Any:
    return jnp.zeros(())
