"""The file of parameters that `spuvm sgb` takes; all parties have the same."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError
from spuvm.runtime.located import located

TEXT, NAMES, NUMBER, WHOLE, TABLE = "text", "a list of names", "a number", "a whole number", "a table"
FRAME = "'vertical' or 'horizontal'"
SECTIONS: dict[str, dict[str, str]] = {
    "": {
        "label": TEXT,
        "key": NAMES,
        "sample_weight": TEXT,
        "data": TABLE,
        "model": TABLE,
        "test": TABLE,
        "job": TABLE,
    },
    "data": {
        "frame": FRAME,
        "parties": NAMES,
        "columns": NAMES,
        "drop": NAMES,
        "missing": "true, false or names",
        "categories": TABLE,
        "match": "'inner'",
        "mode": "'helper', 'oblivious' or 'ecdh'",
        "types": TABLE,
    },
    "test": {"size": NUMBER, "seed": WHOLE},
}


@dataclass(frozen=True)
class Settings:
    """What the file says.

    Attributes:
        label, sample_weight: columns.
        frame: what the tables make: of each party some columns, or some rows.
        data: `key`, `columns`, `drop`, `missing`, `categories` of `spuvm.data.vertical`.
        parties: who brings a table; None: all.
        model: the parameters of `Sgb`.
        test: `test_size` and `seed` of rows held out, if any.
    """

    label: str
    frame: str
    data: Mapping[str, Any]
    parties: tuple[str, ...] | None = None
    sample_weight: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None

    @property
    def canonical(self) -> bytes:
        """For the parties to compare."""
        body = [self.label, self.frame, self.data, self.sample_weight, self.model, self.test]
        return json.dumps(body, sort_keys=True).encode()

    def data_to_predict(self) -> dict[str, Any]:
        """Of `vertical`, for tables that need have neither label nor weight."""
        gone = (self.label, self.sample_weight)
        out = dict(self.data)
        for name in ("columns", "drop", "missing", "categories"):
            if isinstance(out.get(name), list):
                out[name] = [c for c in out[name] if c not in gone]
            if isinstance(out.get(name), dict):
                out[name] = {c: v for c, v in out[name].items() if c not in gone}
        return out


def read_settings(path: Path) -> Settings:
    """Read and check the file; InputError says what is wrong with it."""
    with located(path):
        return _settings(path)


def _settings(path: Path) -> Settings:
    try:
        body = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None
    for section, known in SECTIONS.items():
        _check(path, section, body.get(section, {}) if section else body, known)
    data, test = dict(body.get("data", {})), body.get("test")
    frame = data.pop("frame", "vertical")
    for name in ("label", "key") if frame == "vertical" else ("label",):
        if name not in body:
            raise InputError(f"{path}: `{name}` is missing: name the column.")
    parties = data.pop("parties", None)
    if test is not None:
        test = {"test_size": test.get("size", 0.25), "seed": test.get("seed", 0)}
    return Settings(
        body["label"],
        frame,
        {"key": body.get("key", ()), **data},
        None if parties is None else tuple(parties),
        body.get("sample_weight"),
        body.get("model", {}),
        test,
    )


def _check(path: Path, section: str, given: Mapping[str, Any], known: Mapping[str, str]) -> None:
    where = f"{path}: `[{section}]`" if section else f"{path}"
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{where} has no setting `{name}`{nearest(name, list(known))}: it takes {', '.join(known)}."
            )
        if not _FITS[known[name]](value):
            raise InputError(f"{where}: `{name}` must be {known[name]}, got {value!r}.")


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


_FITS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda v: isinstance(v, str),
    FRAME: lambda v: v in ("vertical", "horizontal"),
    NAMES: _is_names,
    NUMBER: lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    WHOLE: lambda v: isinstance(v, int) and not isinstance(v, bool),
    TABLE: lambda v: isinstance(v, dict),
    "'inner'": lambda v: v == "inner",
    "'helper', 'oblivious' or 'ecdh'": lambda v: v in ("helper", "oblivious", "ecdh"),
    "true, false or names": lambda v: isinstance(v, bool) or _is_names(v),
}
