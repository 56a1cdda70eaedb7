"""Pipelines: transformers one after another, and an estimator at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from spuvm.devices import SPU
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import VERSION, Estimator, clone, of_tree
from spuvm.ml.common.labels import features_of, is_text, told
from spuvm.ml.common.transformers import Transformer, named_labels
from spuvm.ml.machine import Reveal
from spuvm.runtime.errors import ConfigError, InputError

Steps = Sequence[tuple[str, Any]]


@dataclass(eq=False, kw_only=True, repr=False)
class Pipeline(Estimator):
    """Transformers, each given what the one before made, and an estimator or another transformer at the end.

        Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]).fit(train, label="ill")

    Parameters of steps are named as scikit-learn names them: `set_params(model__C=0.1)`. What a step shows is in
    `reveals` of the pipeline.
    """

    steps: Steps = field(default=(), kw_only=False)

    def _check(self) -> None:
        names = [name for name, _ in self.steps]
        if not names:
            raise ConfigError("`steps` of Pipeline are missing: give (name, estimator) pairs.")
        if len(set(names)) < len(names) or any("__" in n for n in names):
            raise ConfigError(f"`steps` of Pipeline need different names without `__`, got {', '.join(names)}.")
        for name, step in self.steps[:-1]:
            if not isinstance(step, Transformer):
                raise ConfigError(
                    f"step `{name}` of Pipeline is no transformer: only the last one may be an estimator."
                )

    @property
    def named_steps(self) -> dict[str, Any]:
        """The steps by name."""
        return dict(self.steps)

    def __getitem__(self, at: int | str) -> Any:
        return self.named_steps[at] if isinstance(at, str) else self.steps[at][1]

    @property
    def _last(self) -> Any:
        return self.steps[-1][1]

    # Parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The steps, and if `deep` their parameters as step__parameter."""
        out: dict[str, Any] = {"device": self.device, "steps": self.steps}
        if deep:
            for name, step in self.steps:
                out |= {f"{name}__{k}": v for k, v in step.get_params().items()}
        return out

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters of the pipeline, or of steps as step__parameter."""
        for name, value in parameters.items():
            step, _, rest = name.partition("__")
            if not rest:
                super().set_params(**{name: value})
                continue
            rules.check_names("Pipeline", [step], self.named_steps)
            self.named_steps[step].set_params(**{rest: value})
        return self

    def clone(self) -> Self:
        """The same steps and parameters, nothing learned."""
        return type(self)([(name, clone(step)) for name, step in self.steps], device=self.device)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(f'{name}={step!r}' for name, step in self.steps)})"

    # What it does

    def fit(self, data: Any, y: Any = None, *, label: Any = None, **more: Any) -> Self:
        """Fit each step with what the one before made; `y`, `label`, `positive` as of the steps; more for the last."""
        self.positive = more.pop("positive", None)
        data, y = told(data, label if y is None else y, self.positive)
        labels, weight = named_labels(data, y), more.get("sample_weight")
        if weight is not None:
            more["sample_weight"] = named_labels(data, weight)
        data = features_of(data, y, weight)
        for _, step in self.steps:
            step.device = step.device or self.device
        for _, step in self.steps[:-1]:
            data = step.fit_transform(data, labels)
        self._last.fit(data, labels, **more)
        self.label = y if isinstance(y, str) else None
        return self

    label: str | None = field(default=None, init=False)
    positive: str | None = field(default=None, init=False)

    def _transformed(self, data: Any, last: bool = False) -> Any:
        for _, step in self.steps if last else self.steps[:-1]:
            data = step.transform(data)
        return data

    def transform(self, data: Any) -> Any:
        """What the last step, a transformer, makes of the data."""
        return self._transformed(data, last=True)

    def fit_transform(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """`fit`, then `transform` of the same rows."""
        y = label if y is None else y
        return self.fit(data, y).transform(features_of(data, y))

    def predict(self, data: Any, to: str | None = None) -> Any:
        """The last step's `predict`."""
        return self._last.predict(self._transformed(data), to)

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The last step's `predict_proba`."""
        return self._last.predict_proba(self._transformed(data), to)

    def decision_function(self, data: Any, to: str | None = None) -> Any:
        """The last step's `decision_function`."""
        return self._last.decision_function(self._transformed(data), to)

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """The last step's `score`."""
        y = label if y is None else y
        y = self.label if y is None else y
        if y is None:
            raise InputError("`y` is missing: a score needs labels.")
        data, y = told(data, y, self.positive if is_text(data, y) else None)
        return self._last.score(self._transformed(features_of(data, y)), named_labels(data, y))

    def summary(self) -> Any:
        """The last step's `summary`."""
        return self._last.summary()

    def reveal(self) -> Any:
        """The last step's `reveal`."""
        return self._last.reveal()

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What all steps have shown."""
        return tuple(r for _, step in self.steps for r in step.reveals)

    def explain(self) -> str:
        """What each step cost and revealed."""
        return "\n\n".join(step.explain() for _, step in self.steps)

    # Parts on disk

    def _fitted(self) -> Any:
        return self._last._fitted()

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        names = json.dumps([name for name, _ in self.steps])
        steps = [step.to_tree() for _, step in self.steps]
        said = {"label": self.label, "positive": self.positive}
        return {"kind": "spuvm.ml.Pipeline", "version": VERSION, "names": names, **said, "steps": steps}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> Pipeline:
        """The inverse of `to_tree`."""
        out = cls([(n, of_tree(step, device)) for n, step in zip(json.loads(tree["names"]), tree["steps"])])
        out.label, out.positive = tree["label"], tree.get("positive")
        return out


def make_pipeline(*steps: Any) -> Pipeline:
    """A pipeline whose steps are named by their classes."""
    names = [type(step).__name__.lower() for step in steps]
    numbered = [n if names.count(n) == 1 else f"{n}-{names[: i + 1].count(n)}" for i, n in enumerate(names)]
    return Pipeline(list(zip(numbered, steps)))
