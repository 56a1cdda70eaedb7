"""Seconds over links of a given speed: what is predicted, what is measured over links that are shaped so."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.commands import cost_page
from spuvm.compiler import seconds
from spuvm.compiler.compile import compile_function
from spuvm.compiler.seconds import Machine, Seconds, Speed
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.shaping import Line, Slow, shaped

PARTIES = ("alice", "bob", "carol")


@pytest.mark.parametrize("text", ["25ms", "25ms,100", "25,100Mbit", "-1ms,1Gbit", "1ms,0Mbit", "1.2.3ms,1Gbit", ""])
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(InputError, match="25ms,100Mbit"):
        Speed.parse(text)


def test_a_link_is_read() -> None:
    assert Speed.parse("25ms, 100Mbit") == Speed(0.025, 1e8)
    assert Speed.parse("0.5us,1.5Gbit") == Speed(0.5e-6, 1.5e9)


def product(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.sum(x * y), to="alice")


def test_delays_and_bytes_are_those_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seconds, "machine", lambda: Machine(1e-4, 1e-9))
    x = np.ones(1000, np.float32)
    cost = compile_function(product, (x, x), [0, 1], Config("aby3", 64, 18, PARTIES)).cost
    found = cost.seconds("2s,1Mbit")
    most = int(cost.bytes_sent.max())
    assert found.delays == 2 * cost.rounds
    assert found.transfer == pytest.approx(8 * most / 1e6)
    assert found.handling == pytest.approx(cost.rounds * 1e-4 + most * 1e-9)
    assert 0 < found.computing < 5
    assert found.total == pytest.approx(found.computing + found.delays + found.transfer + found.handling)
    assert "over 2s,1Mbit" in str(found)
    assert found.exact and found.together >= found.total


def test_what_a_program_costs_as_a_page(tmp_path: Path) -> None:
    """All that is printed is there, and what comes from a name is no markup."""
    x = np.ones(10, np.float32)
    program = compile_function(product, (x, x), [0, 1], Config("aby3", 64, 18, PARTIES))
    taken = Seconds("1ms,1Gbit", 1.0, 2.0, 3.0, 4.0, 5.0)
    text = cost_page.page(program, taken)
    for shown in ("product", program.hash, "15.000", f"{program.cost.rounds:,} rounds", *PARTIES, "test_seconds.py"):
        assert shown in text
    assert "<script" not in text
    assert "&lt;b&gt;" in cost_page._table(("a",), [("<b>",)])


def test_of_rounds_that_data_decide_one_trip_is_counted() -> None:
    """A loop on a revealed value whose zeros would never end it; a choice; within a loop of a known number."""

    def doubled(x: Any) -> Any:
        y = jax.lax.while_loop(lambda y: spu.reveal(y < 100), lambda y: y * 2, x)
        return jax.lax.cond(spu.reveal(y > 3), lambda v: v * v, lambda v: v + 1, y)

    def repeated(x: Any) -> Any:
        return jax.lax.fori_loop(0, 2, lambda i, v: doubled(v), x)

    cost = compile_function(repeated, (np.float32(1),), [0], Config("aby3", 64, 18, PARTIES)).cost
    assert not cost.exact
    found = cost.seconds("1ms,1Gbit")
    assert found.delays == pytest.approx(cost.rounds * 1e-3)
    assert found.computing > 0 and not found.exact
    assert "one trip" in str(found)


def test_of_sorts_by_opened_comparisons_an_example_is_computed() -> None:
    x = np.zeros(50, np.float32)
    program = compile_function(lambda x, y: jnp.sort(x + y), (x, x), [0, 1], Config("aby3", 64, 18, PARTIES))
    found = program.cost.seconds("1ms,1Gbit")
    assert not found.exact and "of a sort an example" in str(found)
    assert found.computing > 0 and found.delays == pytest.approx(program.cost.rounds * 1e-3)


def test_bytes_come_after_the_delay_and_at_the_width() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow = Slow(server.getsockname()[1], Line(8e6), Line(8e6), 0.1)

        def echo() -> None:
            sock, _ = server.accept()
            with sock:
                while data := sock.recv(1 << 16):
                    sock.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        with socket.create_connection(("127.0.0.1", slow.port)) as sock:
            start = time.monotonic()
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert 0.2 <= time.monotonic() - start < 5  # there and back; a machine under load
            data, got = bytes(300_000), 0
            start = time.monotonic()
            threading.Thread(target=sock.sendall, args=(data,)).start()
            while got < len(data):
                got += len(sock.recv(1 << 16))
            assert 0.45 <= time.monotonic() - start < 15  # 0.3 s on the line, and two delays; both ways at once
        thread.join(5)
        slow.close()


def test_each_party_reaches_its_peers_by_its_own_slow_links(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, PARTIES)
    real = load_cluster(path)
    with shaped(path, Speed(0.01, 1e9)) as files:
        ports = set()
        for me in PARTIES:
            mine = load_cluster(files[me])
            assert mine.parties[mine.rank(me)].listen == real.parties[real.rank(me)].listen
            ports |= {str(p.address) for p in mine.parties if p.name != me}
        assert len(ports) == 6
        assert not ports & {str(p.address) for p in real.parties}
