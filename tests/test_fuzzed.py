"""Files that were damaged, or written by somebody who means it: an error that has a name, or nothing else than before.

Keys, certificates, cluster files, results kept aside, ledgers, checkpoints of federated training, keys and ciphertexts
of a peer. What streams and shares keep is tried in `test_stream_attempts.py` and `test_shares.py`, programs and frames
in `test_text.py` and `test_frames.py`.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spuvm.cli import run as spuvm
from spuvm.commands.keeping import META
from spuvm.dp import Budget
from spuvm.dp.spending import Spent
from spuvm.fed import checkpoints
from spuvm.he.parameters import parameters
from spuvm.he.rlwe import Rlwe
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link import certificates
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls.channel import make_context
from spuvm.service import identity

FUZZED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A bit flipped, the end cut off, some bytes put in or taken out, or something else altogether."""
    at, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))
    some = draw(st.binary(min_size=1, max_size=8))

    def flipped(x: bytes, n: int) -> bytes:
        return x[:n] + bytes([x[n] ^ 1 << bit]) + x[n + 1 :]

    ways: list[Callable[[bytes, int], bytes]] = [
        flipped,
        lambda x, n: x[:n],
        lambda x, n: x[:n] + some + x[n:],
        lambda x, n: x[:n] + x[n + len(some) :],
        lambda x, n: some,
    ]
    way = draw(st.sampled_from(ways))
    return lambda x: way(x, int(at * len(x)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cluster(tmp_path_factory.mktemp("keys"), ("alice", "bob"))


@FUZZED
@given(damage=damages())
def test_keys(cluster: Path, damage: Callable[[bytes], bytes]) -> None:
    """Of what is damaged inside, whoever reads it: what signs with it, and TLS."""
    folder = cluster.parent
    path = folder / "damaged.key"
    pem = (folder / "alice.key").read_bytes()
    first, *lines, last = pem.decode().strip().splitlines()
    inside = base64.encodebytes(damage(base64.b64decode("".join(lines)))).decode()
    for content in (damage(pem), f"{first}\n{inside}{last}\n".encode()):
        path.write_bytes(content)
        path.chmod(0o600)
        with suppress(SpuError):
            identity.load_key(path)
        with suppress(SpuError):
            make_context(ssl.PROTOCOL_TLS_CLIENT, folder / "ca.crt", folder / "alice.crt", path)


@FUZZED
@given(damage=damages())
def test_certificates(cluster: Path, damage: Callable[[bytes], bytes]) -> None:
    """PEM that is damaged, and DER that is damaged in PEM that is not."""
    folder = cluster.parent
    pem = (folder / "alice.crt").read_bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    path = folder / "damaged.crt"
    for content in (damage(pem), ssl.DER_cert_to_PEM_cert(damage(der)).encode()):
        path.write_bytes(content)
        with suppress(SpuError):
            certificates.fingerprint(identity.read(path))
        with suppress(SpuError):
            certificates.describe(certificates.read_der(path))
        with suppress(SpuError):
            make_context(ssl.PROTOCOL_TLS_CLIENT, folder / "ca.crt", path, folder / "alice.key")
        (folder / "damaged.toml").write_text(cluster.read_text().replace("ca.crt", "damaged.crt"))
        with suppress(SpuError):
            load_cluster(folder / "damaged.toml")


VALUES = ('""', '"x"', "-1", "0", "1e400", "true", "[]", "{}", "[[1]]", '"127.0.0.1:99999"', "1979-05-27", '"../.."')


@FUZZED
@given(st.data())
def test_cluster_files(cluster: Path, data: st.DataObject) -> None:
    lines = cluster.read_text().splitlines()
    path = cluster.with_name("other.toml")
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(damages())(cluster.read_bytes()))
    else:
        keys = ("timeout_seconds", "grace_seconds", "protocol", "protocols", "ring", "truncation", "dealer", "relay")
        known = [i for i, line in enumerate(lines) if " = " in line]
        at, value = data.draw(st.sampled_from(known)), data.draw(st.sampled_from(VALUES))
        lines[at] = f"{lines[at].partition(' = ')[0]} = {value}"
        path.write_text(
            "\n".join([f"{data.draw(st.sampled_from(keys))} = {data.draw(st.sampled_from(VALUES))}", *lines])
        )
    with suppress(SpuError):
        load_cluster(path)


@FUZZED
@given(damage=damages())
def test_results_that_were_kept_aside(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    arrays: dict[str, Any] = {META: np.array('{"names": ["out"], "columns": ["out"]}'), "x0": np.arange(4.0)}
    np.savez(tmp_path / "good.npz", **arrays)
    kept, out = tmp_path / "kept.npz", tmp_path / "out.npy"
    kept.write_bytes(damage((tmp_path / "good.npz").read_bytes()))
    status = spuvm(["results", str(kept), "--output", f"out={out}", "--force"])
    assert status in (0, 2)
    if status == 0:
        assert np.load(out).tolist() == [0, 1, 2, 3]
        out.unlink()
    assert not out.exists()


@FUZZED
@given(damage=damages())
def test_checkpoints_of_federated_training(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    checkpoints.write(tmp_path, 3, {"vector": np.arange(5.0)}, {"own": np.arange(2)}, {"round": 3})
    path = tmp_path / "round3.npz"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    try:
        public, own, facts = checkpoints.read(tmp_path, 3)
        assert (public["vector"].tolist(), own["own"].tolist(), facts) == ([0, 1, 2, 3, 4], [0, 1], {"round": 3})
        assert path.read_bytes() == good
    except SpuError:
        assert path.read_bytes() != good


@FUZZED
@given(damage=damages())
def test_ledgers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]) -> None:
    """What was spent is never less than it was."""
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "x.budget"
    if not (tmp_path / "good").exists():
        Budget(5.0, path=path).spend([Spent("laplace", 1.0)], "first")
        (tmp_path / "good").write_bytes(path.read_bytes())
    path.write_bytes(damage((tmp_path / "good").read_bytes()))
    with suppress(SpuError):
        budget = Budget(5.0, path=path)
        assert budget.spent == pytest.approx(1.0)
        assert [use.label for use in budget.uses] == ["first"]


@pytest.fixture(scope="module")
def scheme() -> tuple[Rlwe, Any]:
    made = Rlwe(parameters(8192))
    return made, made.make_keys()[0]


@FUZZED
@given(damage=damages())
def test_keys_and_ciphertexts_of_a_peer(scheme: tuple[Rlwe, Any], damage: Callable[[bytes], bytes]) -> None:
    """A ValueError, of which the device says whose they are."""
    he, public = scheme
    with suppress(ValueError):
        he.key_from(damage(he.key_bytes(public)))
    plain = he.plain(np.arange(3), public)
    with suppress(ValueError):
        he.plain_from(damage(he.plain_bytes(plain, public)), 3, public)
