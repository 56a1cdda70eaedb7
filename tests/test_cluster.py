"""Cluster files: what is read, and what is refused with which words."""

from pathlib import Path

import pytest

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.certificates import issue, make_authority, make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.parties import Address
from spuvm.runtime.protocols.registered import protocol_of

GOOD = """
ca = "ca.crt"
[parties.alice]
address = "127.0.0.1:9101"
listen = "0.0.0.0:9101"
certificate = "alice.crt"
key = "alice.key"
[parties.bob]
address = "[::1]:9102"
"""
DAVE = """
[parties.dave]
address = "127.0.0.1:9103"
"""
FILES = (("", 0), ("", 1), ('compute = ["dave", "bob"]', 1))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return (folder / "ca.crt").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, authority: bytes) -> Path:
    (tmp_path / "ca.crt").write_bytes(authority)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_a_made_cluster_loads(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, ["carol", "alice", "bob"], ports=[9101, 9102, 9103])
    cluster = load_cluster(path)
    assert cluster.names == cluster.config.parties == ("carol", "alice", "bob")
    assert cluster.rank("bob") == 2
    assert cluster.parties[0].address == cluster.parties[0].listen == Address("127.0.0.1", 9101)
    assert cluster.timeout_seconds == 60
    assert cluster.credentials("bob") == (tmp_path / "bob.crt", tmp_path / "bob.key")
    assert all(key.stat().st_mode & 0o777 == 0o600 for key in tmp_path.glob("*.key"))
    assert len(list(tmp_path.glob("*.key"))) == 4


@pytest.mark.parametrize(("ring", "bits"), [(32, 8), (64, 18), (128, 26)])
def test_fraction_bits_follow_the_ring(folder: Path, ring: int, bits: int) -> None:
    config = load_cluster(write(folder, f"ring = {ring}\n" + GOOD)).config
    assert (config.ring_bits, config.fxp_fraction_bits) == (ring, bits)


def test_a_file_that_names_no_protocol_has_one_that_holds_among_its_parties(folder: Path) -> None:
    """Two as `spu.SPU` has it; where more take part, those that do not compute do not count."""
    found = [load_cluster(write(folder, head + GOOD + DAVE * more)) for head, more in FILES]
    assert [c.config.protocol for c in found] == ["semi2k_ot", "aby3", "semi2k_ot"]
    assert [c.protocols for c in found] == [("semi2k_ot",), ("aby3",), ("semi2k_ot",)]
    assert all(protocol_of(c.config).dealer is None for c in found)


def test_listen_and_ipv6_and_parameters(folder: Path) -> None:
    cluster = load_cluster(
        write(folder, 'timeout_seconds = 2.5\nprotocol = "semi2k"\nring = 64\ndealer = "dave"\n' + GOOD + DAVE)
    )
    alice, bob, _ = cluster.parties
    assert alice.listen == Address("0.0.0.0", 9101)
    assert bob.address == Address("::1", 9102)
    assert str(bob.address) == "[::1]:9102"
    assert cluster.timeout_seconds == 2.5
    assert (cluster.config.protocol, cluster.config.fxp_fraction_bits) == ("semi2k", 18)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('ca = "ca.crt"', "", "lacks `ca`"),
        ('ca = "ca.crt"', 'ca = "none.crt"', "there is no file"),
        ('ca = "ca.crt"', 'ca = "ca.crt"\ncolour = 1', "unknown key `colour`: known are ca, crl, timeout_seconds"),
        ('ca = "ca.crt"', 'ca = "ca.crt"\ntimeout_seconds = 0', "`timeout_seconds`"),
        ('ca = "ca.crt"', 'ca = "ca.crt"\nring = "64"', "`ring` in .* must be of type int"),
        ('ca = "ca.crt"', 'ca = "ca.crt"\nring = 65', "`ring` must be one of"),
        ('listen = "0.0.0.0:9101"', "port = 3", r"\[parties.alice\] .* unknown key `port`"),
        ('"127.0.0.1:9101"', '"127.0.0.1"', "must be `host:port`"),
        ('"127.0.0.1:9101"', '"127.0.0.1:99999"', "must be `host:port`"),
        ('"127.0.0.1:9101"', '"[::1]:9102"', "alice and bob have the same `address`"),
        ("parties.bob", "parties.alice", "a party may appear only once"),
        ("parties.bob", 'parties."bob smith"', "a party's name has"),
        ('address = "[::1]:9102"', "", "lacks `address`"),
        ("[parties.bob]", "[", "not valid TOML"),
        ('[parties.bob]\naddress = "[::1]:9102"', "", "at least two parties"),
    ],
)
def test_mistakes_are_named(folder: Path, before: str, after: str, message: str) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(ConfigError, match=message):
        load_cluster(write(folder, GOOD.replace(before, after)))


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_cluster(tmp_path / "none.toml")


def test_only_ones_own_credentials_are_needed_and_checked(folder: Path) -> None:
    cluster = load_cluster(write(folder, GOOD))
    with pytest.raises(ConfigError, match=r"`certificate` of alice: there is no file"):
        cluster.credentials("alice")
    with pytest.raises(ConfigError, match=r"needs `certificate` and `key` where bob runs"):
        cluster.credentials("bob")
    with pytest.raises(ConfigError, match=r"`dave` is not in the cluster file"):
        cluster.credentials("dave")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    cluster = load_cluster(make_cluster(tmp_path, ["alice", "bob"]))
    (tmp_path / "alice.key").chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 640.*chmod 600 .*alice.key"):
        cluster.credentials("alice")


def test_issue_needs_an_authority(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make_authority"):
        issue(tmp_path, "alice")
    make_authority(tmp_path)
    assert issue(tmp_path, "alice") == tmp_path / "alice.crt"


def test_a_dealer_has_the_last_rank_and_is_no_computing_party(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, ["dave", "alice", "bob"], protocol="semi2k", dealer="dave")
    cluster = load_cluster(path)
    assert cluster.names == ("alice", "bob", "dave")
    assert cluster.config.parties == ("alice", "bob")
    assert cluster.rank("dave") == cluster.config.world_size == protocol_of(cluster.config).dealer
    assert cluster.dealer == "dave"
    assert cluster.credentials("dave") == (tmp_path / "dave.crt", tmp_path / "dave.key")


def test_a_dealer_beside_one_party_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs two parties or more, got 1"):
        load_cluster(make_cluster(tmp_path, ["alice"], protocol="semi2k", dealer="dave"))


def test_make_cluster_adds_a_dealer_who_is_no_party(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, ["alice", "bob"], ports=[9101, 9102, 9103], protocol="semi2k", dealer="dave")
    dave = load_cluster(path).parties[-1]
    assert (dave.name, str(dave.address)) == ("dave", "127.0.0.1:9103")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('protocol = "semi2k"', "needs a dealer for protocol 'semi2k': set `dealer`"),
        ('protocol = "semi2k"\ndealer = "erin"', "`dealer` in .* must be one of alice, bob, dave, got 'erin'"),
        ('protocol = "semi2k"\ndealer = 3', "`dealer` of .* must be a text"),
        ("", "`dealer` in .* is 'dave', but protocol 'aby3' has none"),
        ('protocol = "none"', "`protocol` must be one of"),
    ],
)
def test_mistakes_about_the_dealer_are_named(folder: Path, head: str, message: str) -> None:
    erin = '[parties.erin]\naddress = "127.0.0.1:9104"\n'
    text = f"{head}\n{GOOD}{DAVE}" if head else f'dealer = "dave"\n{GOOD}{DAVE}{erin}'
    with pytest.raises(ConfigError, match=message):
        load_cluster(write(folder, text))
