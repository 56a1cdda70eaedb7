"""All forms of six programs are as tests/golden says: function, jaxpr, IR, choreography, what each party runs."""

from __future__ import annotations

import inspect
from pathlib import Path

import jax
import pytest
from forms import PROGRAMS

import spuvm as spu

GOLDEN = Path(__file__).parent / "golden"
FORMS = ("ir", "choreography", "stages")


def forms(name: str) -> dict[str, str]:
    """By heading. How JAX prints a jaxpr differs between its versions."""
    function, arguments = PROGRAMS[name]
    program = spu.jit(function).compile(*arguments)
    first = {"function": inspect.getsource(function), f"jaxpr of JAX {jax.__version__}": program.emit("jaxpr")}
    return first | {form: program.emit(form) for form in FORMS}


def parsed(text: str) -> dict[str, str]:
    pieces = text.split("======== ")[1:]
    return {head: body for head, _, body in (piece.partition("\n") for piece in pieces)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_form_is_as_kept(name: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN.parent.parent)  # lines are given with the path from here
    got = {head: body.rstrip() + "\n\n" for head, body in forms(name).items()}
    path = GOLDEN / f"{name}.forms"
    if update_golden:
        path.write_text("".join(f"======== {head}\n{body}" for head, body in got.items()))
    kept = parsed(path.read_text())
    assert len(kept) == len(got)
    for head in got.keys() - {h for h in got if h.startswith("jaxpr") and h not in kept}:
        assert got[head] == kept[head], f"{head}: run pytest with --update-golden if the change is meant"
