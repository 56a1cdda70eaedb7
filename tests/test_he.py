"""Homomorphic encryption: transforms and ciphertexts against whole numbers, devices simulated and as processes."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm.he.parameters import CHOICES, parameters
from spuvm.he.rlwe import Rlwe
from spuvm.runtime.errors import ConfigError, DataError, EncodingError, InputError, PeerMismatchError, VisibilityError
from spuvm.runtime.lattice.standard import STANDARD
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.ring import native, transform

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
SMALL = 8192


# Transforms -------------------------------------------------------------------------------------------


def residues(basis: transform.Basis, rows: int, seed: int = 0) -> transform.Words:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, p, (rows, basis.n)).astype(np.uint64) for p in basis.primes], 1)


@pytest.mark.parametrize("n", [2, 8, 64, 128])
def test_products_of_polynomials(n: int) -> None:
    basis = transform.basis(50, 2, n)
    a, b = residues(basis, 1), residues(basis, 1, 1)
    product = transform.multiply(transform.forward(a, basis), transform.forward(b, basis), basis)
    got = transform.backward(product, basis)
    for j, p in enumerate(basis.primes):
        expected = [0] * n
        for x in range(n):
            for y in range(n):
                sign = 1 if x + y < n else -1
                expected[(x + y) % n] += sign * int(a[0, j, x]) * int(b[0, j, y])
        assert got[0, j].tolist() == [e % p for e in expected]


@pytest.mark.skipif(native.library() is None, reason="without native kernels there is one way only")
@pytest.mark.parametrize("n", [4, 64, 1024])
def test_native_and_numpy_agree(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, t = transform.basis(50, 3, n), transform.basis(42, 2, n)
    a, b = residues(q, 2), residues(q, 2, 1)
    a[0, :, 0] = [p - 1 for p in q.primes]

    def everything() -> list[Any]:
        once = [
            transform.forward(a, q),
            transform.backward(a, q),
            transform.multiply(a, b, q),
            transform.convert(a, q, t),
        ]
        return [*once, transform.multiply(a, b[0], q, onto=b.copy())]

    fast = everything()
    monkeypatch.setattr(native, "library", lambda: None)
    for x, y in zip(fast, everything(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_conversions_keep_signed_numbers() -> None:
    q, t = transform.basis(50, 4, 64), transform.basis(47, 3, 64)
    rng = np.random.default_rng(2)
    numbers = [int(x) * (1 << 70) - int(y) for x, y in rng.integers(-(1 << 62), 1 << 62, (64, 2))]
    raw = np.stack([np.array([x % p for x in numbers], np.uint64) for p in t.primes])[None]
    there = transform.convert(raw, t, q)
    assert there[0].tolist() == [[x % p for x in numbers] for p in q.primes]
    assert (transform.convert(there, q, t) == raw).all()
    assert transform.integers(raw[0], t) == numbers
    assert transform.low_words(raw[0], t).tolist() == [x % (1 << 64) for x in numbers]


# The scheme --------------------------------------------------------------------------------------------------


def test_parameters_are_the_standards() -> None:
    """Moduli below those of 128 bits against classical and quantum attacks, primes that give slots."""
    for degree in CHOICES:
        p = parameters(degree)
        assert p.q.modulus.bit_length() <= min(STANDARD[degree])
        assert all(prime % (2 * degree) == 1 for prime in (*p.q.primes, *p.t.primes))
        assert len({*p.q.primes, *p.t.primes}) == len(p.q.primes) + len(p.t.primes)
    with pytest.raises(ConfigError, match="`degree`"):
        parameters(4096)


def noise(scheme: Rlwe, words: Any, secret: Any) -> int:
    """Bits of the largest coefficient of what a ciphertext hides."""
    inner = transform.add(words[0], transform.multiply(words[1][None], secret, scheme.q)[0], scheme.q)
    whole = transform.integers(transform.backward(inner[None], scheme.q)[0], scheme.q)
    return max(map(abs, whole)).bit_length()


def test_noise_is_within_its_bounds() -> None:
    scheme = Rlwe(parameters(SMALL))
    public, secret = scheme.make_keys()
    x = np.full(SMALL, (1 << 42) - 1)
    fresh = scheme.encrypt(scheme.plain(x, public), public)
    assert noise(scheme, fresh[0], secret) <= scheme.fresh + 1
    product = scheme.times_plain(fresh, scheme.plain(x, public), public)
    bound = scheme.fresh + scheme.times_plain_noise
    assert noise(scheme, product[0], secret) <= bound + 1
    hidden = scheme.hidden(product, bound, public)
    assert bound + 40 <= noise(scheme, hidden[0], secret) <= bound + scheme.moved + 1
    np.testing.assert_array_equal(scheme.decrypt(product, secret, public), scheme.decrypt(hidden, secret, public))


def test_ciphertexts_look_uniform_and_never_repeat() -> None:
    scheme = Rlwe(parameters(SMALL))
    public, _ = scheme.make_keys()
    zeros = scheme.plain(np.zeros(SMALL, np.int64), public)
    a, b = scheme.encrypt(zeros, public), scheme.encrypt(zeros, public)
    assert (a == b).mean() < 1e-4
    share = a / scheme.q.p.astype(np.float64)
    assert abs(share.mean() - 0.5) < 0.01
    assert np.abs(np.histogram(share, 16, (0, 1))[0] / share.size * 16 - 1).max() < 0.05


def random_operations(scheme: Any, count: int, width: int, seed: int) -> None:
    """Sums, differences and products with numbers and plaintexts, element by element as whole numbers say."""
    rng = np.random.default_rng(seed)
    public, secret = scheme.make_keys()
    done = 0
    while done < count:
        x, y = (rng.integers(-1000, 1000, width) for _ in range(2))
        a, b = (scheme.encrypt(scheme.plain(v, public), public) for v in (x, y))
        for kind in rng.choice(["add", "subtract", "number", "plain"], 6):
            factor = int(rng.integers(-5, 6))
            if kind == "add":
                a, x = scheme.add(a, b, public), x + y
            elif kind == "subtract":
                a, x = scheme.add(a, scheme.negate(b, public), public), x - y
            elif kind == "number":
                a, x = scheme.times_number(a, factor, public), x * factor
            else:
                a, x = scheme.add_plain(a, scheme.plain(y, public), public), x + y
            done += width
        weights = rng.integers(-1000, 1000, width)
        a, x = scheme.times_plain(a, scheme.plain(weights, public), public), x * weights
        done += width
        found = scheme.integers(scheme.decrypt(a, secret, public), 1 << 40, public)[:width]
        np.testing.assert_array_equal(found, x)


def test_ten_thousand_random_operations() -> None:
    random_operations(Rlwe(parameters(SMALL)), 10_000, 500, 7)


def test_paillier_known_answers() -> None:
    gmpy2 = pytest.importorskip("gmpy2")
    from spuvm.he.paillier import Paillier

    scheme = Paillier(2048)
    p, q = (int(gmpy2.next_prime(gmpy2.mpz(3) << 1022 | x)) for x in (12345, 67890))
    public, secret = scheme.keys_of(p, q)
    n, r, m = p * q, 0xC0FFEE, 123456789
    c = int(scheme.encrypted_with(gmpy2.mpz(m), r, public))
    assert c == pow(1 + n, m, n * n) * pow(r, n, n * n) % (n * n)
    order = (p - 1) * (q - 1)
    assert (pow(c, order, n * n) - 1) // n * pow(order, -1, n) % n == m
    numbers = np.array([5, -7, (1 << 62), 0])
    words = scheme.encrypt(scheme.plain(numbers, public), public)
    assert scheme.integers(scheme.decrypt(words, secret, public), 1 << 62, public).tolist() == numbers.tolist()
    sent = scheme.from_bytes(scheme.to_bytes(words, public), public)
    product = scheme.times_plain(scheme.hidden(sent, 0, public), scheme.plain(-numbers, public), public)
    squares = scheme.integers(scheme.decrypt(product, secret, public), 1 << 124, public)
    assert squares.tolist() == [-(int(x) ** 2) for x in numbers]
    with pytest.raises(ValueError, match="residues"):
        scheme.from_bytes(bytes(512), public)


# Devices ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["rlwe", "paillier"])
def devices(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "paillier":
        pytest.importorskip("gmpy2")
    spu.init(parties=PARTIES, address="local")
    yield (*map(spu.PYU, PARTIES), spu.HEU(sk_keeper="alice", evaluators=["bob"], scheme=request.param))
    spu.shutdown()


X = np.array([[1.5, -2.25, 0.5], [3.0, 4.0, -1.0], [0.0, 8.5, 2.0], [-7.0, 1.0, 1.0]], np.float32)
Y = np.array([10, -20, 30, -40])


def close(x: Any, expected: Any) -> None:
    found = spu.reveal(x)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_arithmetic(devices: Any) -> None:
    alice, bob, carol, heu = devices
    x, y = alice(lambda: X)().to(heu).encrypt(), alice(lambda: Y)().to(heu).encrypt()
    w = bob(lambda: Y * 2)().to(heu)
    assert (x.dtype, y.dtype, y.shape) == (np.float32, np.int64, (4,))
    close((y + w).to(alice), Y * 3)
    close((w - y).to(bob), Y)
    close((y * w + 5).to(carol), 2 * Y * Y + 5)
    close(0.5 * x - x, -0.5 * X)
    close(x[1:, ::2] * bob(lambda: X[1:, ::2])().to(heu), X[1:, ::2] ** 2)
    close(-y[2], -30)


def test_without_elements(devices: Any) -> None:
    alice, bob, _, heu = devices
    for shape in ((0, 3), (3, 0), (0,)):
        x = alice(lambda shape=shape: np.zeros(shape))().to(heu).encrypt()
        for moved in (x, x.T, x[:1], x + x, 2 * x):
            assert spu.reveal(moved.to(bob)).shape == moved.shape
        close(x.sum().to(bob), 0.0)
        close((x.sum(axis=0) + 1).to(bob), np.zeros(shape).sum(axis=0) + 1)
        y = bob(lambda shape=shape: np.zeros(shape[::-1]))().to(heu)
        close((x @ y).to(bob), np.zeros(shape) @ np.zeros(shape[::-1]))
        close((y @ x).to(bob), np.zeros(shape[::-1]) @ np.zeros(shape))
    none = bob(lambda: np.zeros(0, np.int64))().to(heu)
    close(alice(lambda: np.zeros((0, 3)))().to(heu).encrypt().bucket_sum(none, 2).to(bob), np.zeros((2, 3)))


def test_sums_and_products(devices: Any) -> None:
    alice, bob, _, heu = devices
    x = alice(lambda: X)().to(heu).encrypt()
    w = bob(lambda: X[:2])().to(heu)
    close(x.sum(), X.sum())
    close(x.sum(axis=0), X.sum(0))
    close((x.T @ bob(lambda: Y)().to(heu)).to(bob), X.T @ Y)
    close(w @ x.T, X[:2] @ X.T)
    close(x.sum(axis=1) + x.sum(axis=1), 2 * X.sum(1))
    buckets = bob(lambda: np.array([[0, 1], [1, 1], [0, 0], [2, 1]]))()
    first = np.stack([X[[0, 2]].sum(0), X[1], X[3]])
    second = np.stack([X[2], X[[0, 1, 3]].sum(0), np.zeros(3)])
    close(x.bucket_sum(buckets, 3), np.stack([first, second]))


@pytest.mark.parametrize("devices", ["rlwe"], indirect=True)
def test_elements_are_rearranged_under_a_mask(devices: Any) -> None:
    alice, _, _, heu = devices
    y = alice(lambda: Y)().to(heu).encrypt()
    close(y[[0, 0, 3]] + y[:3], Y[[0, 0, 3]] + Y[:3])
    x = alice(lambda: X)().to(heu).encrypt()
    close(x + y.reshape(4, 1), X + Y[:, None])
    many = alice(lambda: np.arange(40_000))().to(heu).encrypt()
    assert many.cells == 3
    assert many.sum().cells == 1
    assert spu.reveal(many.sum()) == 799_980_000
    close(many[16_380:16_390] * 2, np.arange(16_380, 16_390) * 2)
    assert many[16_380:16_390].cells == 2


def test_between_machines(devices: Any) -> None:
    alice, bob, _, heu = devices
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    secret = dev(lambda p, q: p * q)(alice(lambda: X)(), bob(lambda: X)())
    there = secret.to(heu)
    assert there.party == "bob"
    close(there * 3 + there, 4 * X * X)
    back = (bob(lambda: X[:1])().to(heu, bits=4) @ alice(lambda: X.T)().to(heu, bits=4)).to(dev)
    assert repr(back) == "<SPUObject float32[1,4] secret aby3/64>"
    close(dev(lambda v: v + 1)(back), X[:1] @ X.T + 1)
    ints = dev(lambda p: p + 1)(alice(lambda: np.arange(4, dtype=np.int32))().to(dev))
    close((ints.to(heu) * -5).to(dev), -5 * np.arange(1, 5))


@pytest.mark.parametrize("devices", ["rlwe"], indirect=True)
def test_noise_and_ranges_are_refused_before_they_fail(devices: Any) -> None:
    alice, bob, _, heu = devices
    y = alice(lambda: Y)().to(heu, bits=10).encrypt()
    w = bob(lambda: Y)().to(heu, bits=10)
    product = y * w
    assert w.noise_budget == float("inf") > y.noise_budget > product.noise_budget > 0
    with pytest.raises(InputError, match=r"more noise than can be decrypted .*refresh"):
        product * w
    assert product.refresh().noise_budget > product.noise_budget
    close(product.refresh() * w, Y**3)
    wide = alice(lambda: Y)().to(heu).encrypt()
    with pytest.raises(InputError, match=r"may reach 2\^1\d\d, .*bits="):
        (wide * bob(lambda: Y)().to(heu)).refresh() * bob(lambda: Y)().to(heu)
    with pytest.raises(EncodingError, match="beyond 2\\^10"):
        alice(lambda: Y * 1000)().to(heu, bits=10)
    with pytest.raises(EncodingError, match="not finite"):
        alice(lambda: np.array([1.0, np.nan]))().to(heu)
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    with pytest.raises(InputError, match="too large to be masked"):
        (wide * bob(lambda: Y)().to(heu)).to(dev)


def test_bad_use(devices: Any) -> None:
    alice, bob, _, heu = devices
    y, w = alice(lambda: Y)().to(heu).encrypt(), bob(lambda: Y)().to(heu)
    for op in (operator.mul, operator.matmul):
        with pytest.raises(InputError, match="one may be encrypted"):
            op(y, w.encrypt())
    with pytest.raises(InputError, match="shapes"):
        y + alice(lambda: np.ones(3))().to(heu)
    with pytest.raises(InputError, match="inner dimensions"):
        y @ alice(lambda: X[:2])().to(heu)
    with pytest.raises(DataError, match="outside of 0 to 1"):
        y.bucket_sum(bob(lambda: np.array([0, 1, 2, 0]))(), 2)
    with pytest.raises(InputError, match="`buckets`"):
        y.bucket_sum(bob(lambda: Y * 0)(), 0)
    with pytest.raises(InputError, match="bools, integers and floats"):
        alice(lambda: np.array([1j]))().to(heu)
    with pytest.raises(InputError, match="`axis` 2"):
        y.sum(axis=2)
    with pytest.raises(InputError, match="no such index"):
        y[9]
    with pytest.raises(TypeError, match=r"spu\.reveal"):
        np.asarray(y)
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    for use in (bob(lambda v: v), dev(lambda v: v)):
        with pytest.raises(VisibilityError, match="move it with"):
            use(y)
    other = spu.HEU("bob", ["alice"], degree=SMALL)
    with pytest.raises(InputError, match="another HEU"):
        y + bob(lambda: Y)().to(other)
    with pytest.raises(PeerMismatchError, match="not 1 ciphertexts under bob's key"):
        other._move("bob", "alice", heu._body(y.value), lambda b: b, 1)


SECRETFLOW = {"sk_keeper": {"party": "alice"}, "evaluators": [{"party": "bob"}]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alice", ["alice"]), "not the keeper"),
        (("alice", []), "one party or more"),
        (("dave", ["bob"]), "'dave': the parties are"),
        (({"sk_keeper": "alice"},), "SecretFlow's"),
        (
            ({"sk_keeper": {"party": "alice"}, "evaluators": [{"party": "bob"}], "he_parameters": {"schema": "x"}},),
            "schema",
        ),
    ],
)
def test_bad_devices(arguments: Any, message: str) -> None:
    spu.init(parties=PARTIES, address="local")
    with pytest.raises(ConfigError, match=message):
        spu.HEU(*arguments)
    assert spu.HEU({**SECRETFLOW, "he_parameters": {"schema": "ou"}}).evaluators == ("bob",)
    for options in (
        {"scheme": "ckks"},
        {"degree": 3},
        {"fxp_fraction_bits": 99},
        {"scheme": "paillier", "key_bits": 512},
    ):
        with pytest.raises(ConfigError):
            spu.HEU("alice", ["bob"], **options)
    spu.shutdown()


def test_what_the_keeper_decrypts_is_masked(devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All slots that no result needs, and results that are another party's, are uniform at the keeper."""
    alice, bob, _, heu = devices
    seen: list[Any] = []
    decrypt = heu.scheme.decrypt

    def watched(*args: Any) -> Any:
        seen.append(decrypt(*args))
        return seen[-1]

    monkeypatch.setattr(heu.scheme, "decrypt", watched)
    y = alice(lambda: np.zeros(4, np.int64))().to(heu).encrypt()
    total = (y * bob(lambda: Y)().to(heu)).sum()
    spu.reveal(total.to(alice))
    spu.reveal(total.to(bob))
    spu.reveal(total.to(bob))
    shown = [int(np.asarray(s, object).flat[-1]) for s in seen]
    if heu.scheme.slots > 1:
        assert len({int(x) for x in np.asarray(seen[0])[0]}) > 8000
    assert len(set(shown[1:])) == 2


# Processes --------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import numpy as np
import spuvm as spu
me = sys.argv[1]
spu.init(party=me, config=sys.argv[2])
alice, bob, carol = (spu.PYU(p) for p in ("alice", "bob", "carol"))
heu = spu.HEU(sk_keeper="alice", evaluators=["bob", "carol"])
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
x = alice(lambda: np.arange(6, dtype=np.float32).reshape(3, 2))().to(heu).encrypt()
w = bob(lambda: np.array([1.0, 2.0, -1.0]))().to(heu, bits=3)
z = w @ x
carol(lambda v: print("carol has", v.tolist()))(z.to(carol))
print("shown", spu.reveal(z[0]))
far = z.refresh() + carol(lambda: np.array([100.0, 200.0]))().to(heu)
print("moved", far.party, spu.reveal(far.to(alice)).tolist())
moved = z.to("carol") * 2
print("twice", moved.party, spu.reveal(moved).tolist())
y = (bob(lambda: np.array([3, 4]))().to(heu, bits=3) * alice(lambda: np.array([5, 6]))().to(heu, bits=3)).to(dev)
print("machine", y, spu.reveal(dev(lambda v: v + 1)(y)).tolist())
print("back", spu.reveal(y.to(heu) - 15).tolist())
"""


def run(tmp_path: Path, script: str, **more: str) -> dict[str, Any]:
    config = make_cluster(tmp_path, PARTIES, timeout_seconds=240)
    started = {
        p: subprocess.Popen(
            [sys.executable, "-c", script + more.get(p, ""), p, str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in PARTIES
    }
    try:
        return {p: (*process.communicate(timeout=300), process.returncode) for p, process in started.items()}
    finally:
        for process in started.values():
            process.kill()


def test_three_processes(tmp_path: Path) -> None:
    done = run(tmp_path, SCRIPT)
    assert {p: err for p, (_, err, status) in done.items() if status} == {}
    lines = [
        "shown 0.0",
        "moved carol [100.0, 202.0]",
        "twice carol [0.0, 4.0]",
        "machine <SPUObject int64[2] secret aby3/64> [16, 25]",
        "back [0, 9]",
    ]
    for p, (out, _, _) in done.items():
        assert out.splitlines() == (["carol has [0.0, 2.0]"] if p == "carol" else []) + lines
