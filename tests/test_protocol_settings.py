"""Every combination of parties, protocol, preprocessing, security, ring and truncation: taken, or one clear error."""

from __future__ import annotations

from itertools import product

import pytest

import spuvm as spu
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.registered import PROTOCOLS, SOUND

NAMES = ["alice", "bob", "carol", "dave", "erin"]
PARTIES = {"aby3": (3,), "aby3_malicious": (3,), "rep4": (4,), "semi2k_ot": (2,), "ref2k": (1, 2, 3, 4, 5)}
ALONE = ("aby3_malicious", "rep4")  # nobody takes part who does not compute
WORDS = ("aby3_malicious", "semi2k_ot")  # rings of 32 and 64 bits


def meant(n: int, protocol: str | None, preprocessing: str | None, security: str | None) -> str | None:
    """The protocol that settings ask for, None if they contradict each other."""
    if protocol is None and n < 2:
        return None
    name = protocol or SOUND.get(n, "semi2k")
    if preprocessing is not None:
        if name not in ("semi2k", "semi2k_ot"):
            return None
        name = {"ot": "semi2k_ot", "dealer": "semi2k"}[preprocessing]
    if security == "malicious":
        return {"aby3": "aby3_malicious", "aby3_malicious": "aby3_malicious", "rep4": "rep4"}.get(name)
    return "aby3" if security and name == "aby3_malicious" else name


def fits(name: str, n: int, ring: int, present: int) -> bool:
    if (ring == 128 and name in WORDS) or (name in ALONE and present > n):
        return False
    return n in PARTIES.get(name, range(2, 6))


@pytest.mark.parametrize("present", [3, 4, 5])
def test_every_combination(present: int) -> None:
    spu.init(parties=NAMES[:present], address="local")
    try:
        for n, protocol, preprocessing, security, ring, truncation in product(
            range(1, present + 1),
            [None, *sorted(PROTOCOLS)],
            [None, "dealer", "ot"],
            [None, "semi-honest", "malicious"],
            [32, 64, 128],
            [None, "exact"],
        ):
            settings = {"ring": ring} | ({"protocol": protocol} if protocol else {})
            definition = spu.utils.testing.cluster_def(NAMES[:n], settings)
            name = meant(n, protocol, preprocessing, security)
            said = ""
            try:
                device = spu.SPU(definition, preprocessing, truncation, security)
            except ConfigError as error:
                said = str(error)
            case = (n, protocol, preprocessing, security, ring, said)
            assert (name is not None and fits(name, n, ring, present)) == (not said), case
            if said:
                names_it = any(word in said for word in ("`protocol`", "`preprocessing`", "`security`", "`ring`"))
                assert names_it and said.endswith(".") and "\n" not in said, case
            else:
                config = device.vm.config
                assert (config.protocol, config.ring_bits, config.exact) == (name, ring, truncation == "exact"), case
    finally:
        spu.shutdown()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "spdz", "preprocessing": "ot"}, "`protocol` must be one of .* got 'spdz'"),
        ({"protocol": "spdz", "security": "malicious"}, "`protocol` must be one of .* got 'spdz'"),
        ({"security": "covert"}, "`security` must be 'semi-honest' or 'malicious', got 'covert'"),
        ({"preprocessing": "silent"}, "`preprocessing` must be 'dealer' or 'ot', got 'silent'"),
        ({"truncation": "nearest"}, "`truncation` must be one of probabilistic, exact, got 'nearest'"),
        ({"optimize": "speed"}, "`optimize` must be one of auto, latency, bandwidth, got 'speed'"),
        ({"protocol": "semi2k_first_party_unsafe", "preprocessing": "dealer"}, "has no choice of it"),
        ({"ring": 16}, r"`ring` must be one of \(32, 64, 128\), got 16"),
        ({"fxp_fraction_bits": 40}, "`fxp_fraction_bits` must be between 1 and 28"),
    ],
)
def test_settings_that_are_none(settings: dict[str, object], message: str) -> None:
    spu.init(parties=NAMES[:2], address="local")
    try:
        with pytest.raises(ConfigError, match=message):
            spu.SPU(spu.utils.testing.cluster_def(NAMES[:2], settings))
    finally:
        spu.shutdown()


def test_more_parties_than_a_protocol_without_others_has() -> None:
    spu.init(parties=NAMES, address="local")
    try:
        with pytest.raises(ConfigError, match=r"runs among 4 parties, got 5: .*erin\. It has no others\."):
            spu.SPU(spu.utils.testing.cluster_def(NAMES, {"protocol": "REP4"}))
    finally:
        spu.shutdown()
