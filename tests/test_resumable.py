"""Loops that are interrupted and go on: the same result, at the newest step that all have, with the same inputs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.runtime.errors import InputError, PublicError

PARTIES = ["alice", "bob", "carol"]
STEPS = 9


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    spu.shutdown()


def train(kept: Any, until: int = STEPS, x: float = 1.0, **settings: Any) -> tuple[np.ndarray, list[int]]:
    """What a script does, from its start: the state after it, and the steps that it did."""
    spu.shutdown()
    spu.init(parties=PARTIES, address="local")
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    own = spu.PYU("alice")(lambda: np.array([x, 2.0, 3.0], np.float32))()
    begun = {"w": dev(lambda: jnp.zeros(3))(), "epoch": 0}
    loop = spu.resumable(begun, STEPS, **{"folder": kept, "every": 2, "inputs": [own, 0.5], **settings})
    data, done = own.to(dev), []
    for step in loop:
        if step == until:
            break  # as if the process had ended here
        loop.state = {"w": dev(lambda w, v: w + v)(loop.state["w"], data), "epoch": step + 1}
        done.append(step)
    assert loop.state["epoch"] == (done[-1] + 1 if done else loop.start)
    return np.asarray(spu.reveal(loop.state["w"])), done


def test_an_interrupted_loop_goes_on(tmp_path: Path) -> None:
    _, done = train(tmp_path, until=5)
    assert done == [0, 1, 2, 3, 4]
    w, done = train(tmp_path)
    assert done == [4, 5, 6, 7, 8]
    assert np.allclose(w, [9, 18, 27], atol=1e-3)
    assert train(tmp_path)[1] == []  # it is done
    assert {len(list((tmp_path / p).glob("*.share"))) for p in PARTIES} == {2}


def test_all_go_on_at_the_newest_step_that_everybody_has(tmp_path: Path) -> None:
    train(tmp_path, until=5)
    (tmp_path / "bob" / "loop-4.share").unlink()  # killed before his was in its place
    w, done = train(tmp_path)
    assert done[0] == 2
    assert np.allclose(w, [9, 18, 27], atol=1e-3)


def test_a_party_whose_folder_is_gone_makes_all_begin_anew(tmp_path: Path) -> None:
    train(tmp_path, until=5)
    shutil.rmtree(tmp_path / "bob")
    w, done = train(tmp_path)
    assert done == list(range(STEPS))
    assert np.allclose(w, [9, 18, 27], atol=1e-3)


@pytest.mark.parametrize("change", [{"x": 1.5}, {"inputs": [0.5]}, {"inputs": [0.25]}])
def test_changed_inputs_end_it(tmp_path: Path, change: dict[str, Any]) -> None:
    train(tmp_path, until=5)
    with pytest.raises(PublicError, match="inputs of 'loop' are not those"):
        train(tmp_path, **change)


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    train(tmp_path, until=5)
    path = tmp_path / "carol" / "loop-4.share"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InputError, match="damaged"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"every": 0}, "`every`"),
        ({"every": True}, "`every`"),
        ({"name": "../x"}, "`name`"),
        ({"folder": {"alice": "x"}}, "`folder` has none for bob"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        train(tmp_path, **wrong)


def test_a_state_without_secrets_or_of_another_form(tmp_path: Path) -> None:
    train(tmp_path, until=5)
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    with pytest.raises(InputError, match="`state` must hold SPUObjects"):
        spu.resumable({"w": 1.0}, 3, folder=tmp_path)
    x = dev(lambda: jnp.zeros(4))()
    with pytest.raises(InputError, match="a shared value"):
        spu.resumable(x, 3, folder=tmp_path, inputs=[x], name="other")
    shape = {"w": x, "epoch": 0}
    with pytest.raises(PublicError, match="inputs of"):
        spu.resumable(shape, STEPS, folder=tmp_path, every=2)
    for party in PARTIES:
        (tmp_path / party / "loop.inputs").write_text("[[], []]")
    with pytest.raises(PublicError, match="of another loop"):
        spu.resumable(shape, STEPS, folder=tmp_path, every=2)
