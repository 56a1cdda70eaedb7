"""Services of three parties on one machine, for tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.policy import record
from spuvm.runtime.config import Config
from spuvm.runtime.link.certificates import free_ports, make_authority
from spuvm.runtime.link.parties import Address
from spuvm.service import identity, settings
from spuvm.service.jobs import Source
from spuvm.service.party import Party
from spuvm.service.serve import running

PARTIES = ("alice", "bob", "carol")
ROWS = 40
POLICY = """
[[allow]]
from = ["alice"]
programs = ["any"]
data = { table = ["x", "y"] }
receivers = ["alice"]
min_rows = 20
approval = "automatic"
"""


def total(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + jnp.mean(y), to="alice")


@pytest.fixture(scope="module")
def program() -> str:
    column = np.zeros(ROWS, np.float32)
    config = Config("aby3", 64, 18, PARTIES)
    return compile_function(total, (column, column), [0, 1], config).text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for each party, with its own key, data, policy and service.toml."""
    make_authority(tmp_path / "ca")
    ports = free_ports(6)
    for i, party in enumerate(PARTIES):
        home = tmp_path / party
        key = identity.new_key(home, party)
        identity.write(home / f"{party}.crt", identity.sign(tmp_path / "ca", identity.request(key, party)))
        (home / "ca.crt").write_bytes((tmp_path / "ca" / "ca.crt").read_bytes())
        rng = np.random.default_rng(i)
        table = rng.normal(size=(ROWS, 2)).round(4)
        (home / "table.csv").write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in table) + "\n")
        (home / "policy.toml").write_text(POLICY)
        services = "\n".join(f'{p} = "127.0.0.1:{ports[j]}"' for j, p in enumerate(PARTIES))
        (home / "service.toml").write_text(
            f'party = "{party}"\nlisten = "127.0.0.1:{ports[i]}"\npage = "127.0.0.1:{ports[3 + i]}"\nstate = "state"\n'
            f'policy = "policy.toml"\nca = "ca.crt"\ncertificate = "{party}.crt"\nkey = "{party}.key"\n'
            f'[services]\n{services}\n[data]\ntable = "table.csv"\n[limits]\nsilence_seconds = 30\n'
        )
    return tmp_path


@asynccontextmanager
async def services(folder: Path, *names: str) -> AsyncIterator[dict[str, Party]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(running(settings.load(folder / name / "service.toml")))
            for name in names or PARTIES
        }


def inputs(x: str = "x", y: str = "y") -> dict[str, Source]:
    return {"x": Source("alice", "table", (x,)), "y": Source("bob", "table", (y,))}


async def until(condition: Callable[[], Any], seconds: float = 200.0) -> None:
    for _ in range(int(seconds / 0.1)):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not happen in time")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 400))


def entries(folder: Path, party: str) -> list[record.Entry]:
    key = identity.read(folder / party / f"{party}.crt").public_key()
    return list(record.verified(folder / party / "state" / "record.jsonl", key))  # type: ignore[arg-type]


def hide(folder: Path, *names: str) -> Address:
    """These parties only connect outwards, and meet at a relay: its address."""
    (port,) = free_ports(1)
    for party in PARTIES:
        path = folder / party / "service.toml"
        text = f'relay = "127.0.0.1:{port}"\n' + path.read_text()
        for name in names:
            text = re.sub(rf'(?m)^{name} = "127.*"$', f'{name} = "outward"', text)
        path.write_text(re.sub(r"(?m)^listen = .*\n", "", text) if party in names else text)
    return Address("127.0.0.1", port)
