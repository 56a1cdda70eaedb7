"""What every link promises, over memory and over TLS: messages, counters, agreement, keys, failures."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import run_threads

from spuvm.runtime.errors import (
    OWN_ERROR,
    DataError,
    LinkError,
    PeerAbortedError,
    PeerLostError,
    PeerMismatchError,
    PeerTimeoutError,
)
from spuvm.runtime.link import memory_link
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Link, flat_view
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.link.session_keys import SessionKeys
from spuvm.runtime.link.tls import link as tls_link
from spuvm.runtime.link.tls.connect import connect

PARTIES = ("alice", "bob", "carol")
Session = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cluster(tmp_path_factory.mktemp("cluster"), PARTIES)


@pytest.fixture(params=["memory", "tls"])
def session(request: pytest.FixtureRequest, cluster_file: Path) -> Session:
    """Runs a function of the link as every party; what each returned or raised."""

    def run(body: Callable[[Link], Any], timeout: float = 10) -> list[Any]:
        if request.param == "memory":
            links = memory_links(PARTIES, timeout=timeout)
            opened: list[Callable[[], Link]] = [lambda link=link: link for link in links]  # type: ignore[misc]
        else:
            cluster = load_cluster(cluster_file)
            opened = [lambda p=p: connect(cluster, p, timeout=timeout) for p in PARTIES]  # type: ignore[misc]

        def party(open_link: Callable[[], Link]) -> Any:
            with open_link() as link:
                return body(link)

        return run_threads([lambda o=o: party(o) for o in opened])  # type: ignore[misc]

    return run


def ring(link: Link) -> tuple[int, int]:
    return (link.rank + 1) % 3, (link.rank - 1) % 3


def test_odd_sizes_arrive_however_they_are_cut(session: Session) -> None:
    sizes = [0, 1, 7, 8, 16363, 16364, 16365, 70001, 131073, 4 << 20, (4 << 20) + 1, 9_000_001]

    def body(link: Link) -> bool:
        after, before = ring(link)
        for n in sizes:
            message = np.random.default_rng(n + link.rank).integers(0, 256, n, np.uint8)
            due = np.random.default_rng(n + before).integers(0, 256, n, np.uint8)
            got = np.zeros(n, np.uint8)
            cut = n // 3
            link.exchange({after: [message[:cut], message[cut:]]}, {before: [got[: n // 2], got[n // 2 :]]})
            assert np.array_equal(got, due), n
        assert link.counters.rounds == len(sizes) - 1
        assert link.counters.bytes_sent == {after: sum(sizes), before: 0}
        assert link.counters.bytes_received == {after: 0, before: sum(sizes)}
        assert link.counters.messages_sent == {after: len(sizes) - 1, before: 0}
        assert link.counters.messages_received == {after: 0, before: len(sizes) - 1}
        return True

    assert session(body) == [True] * 3


def test_messages_move_in_pieces_and_several_rounds_are_under_way(session: Session) -> None:
    sizes = [10, 1_000_000, 300_000, 7]

    def body(link: Link) -> bool:
        after, before = ring(link)
        begun = []
        for n in sizes:
            message, due = (np.random.default_rng(n + r).integers(0, 256, n, np.uint8) for r in (link.rank, before))
            got = np.zeros(n, np.uint8)
            exchange = link.begin({after: n}, {before: [got[: n // 4], got[n // 4 :]]})
            exchange.put(after, message, n // 3)
            exchange.put(after, message[n // 3 :], n - n // 3)
            exchange.wait(before, n // 2)
            assert np.array_equal(got[: n // 2], due[: n // 2]), n
            begun.append((exchange, got, due))
        for exchange, got, due in begun:
            exchange.finish()
            assert np.array_equal(got, due)
        assert link.counters.rounds == len(sizes)
        assert link.counters.bytes_sent == {after: sum(sizes), before: 0}
        assert link.counters.messages_received == {after: 0, before: len(sizes)}
        link.agree("end", b"")
        return True

    assert session(body) == [True] * 3


def test_a_party_stops_inside_a_message(session: Session) -> None:
    def body(link: Link) -> None:
        if link.rank == 0:
            exchange = link.begin({1: 4_000_000}, {})
            exchange.put(1, np.zeros(1_000_000, np.uint8), 1_000_000)
            raise PeerLostError("no more")
        link.exchange({}, {0: [np.zeros(4_000_000 if link.rank == 1 else 8, np.uint8)]})

    start = time.monotonic()
    errors = session(body)
    assert time.monotonic() - start < 5
    assert all("no more" in str(error) for error in errors)
    assert [type(error) for error in errors] == [PeerLostError, PeerAbortedError, PeerAbortedError]


def test_many_small_and_typed_buffers(session: Session) -> None:
    def body(link: Link) -> bool:
        message = [np.full((3, i % 5), link.rank + i, np.uint64) for i in range(500)]
        got = {peer: [np.zeros((3, i % 5), np.uint64) for i in range(500)] for peer in link.peers}
        link.exchange(dict.fromkeys(link.peers, message), got)
        return all((array == peer + i).all() for peer in link.peers for i, array in enumerate(got[peer]))

    assert session(body) == [True] * 3


def test_empty_exchange_costs_nothing(session: Session) -> None:
    def body(link: Link) -> int:
        link.exchange({}, {})
        link.exchange({link.peers[0]: [np.zeros(0)]}, {link.peers[0]: []})
        return link.counters.rounds

    assert session(body) == [0, 0, 0]


def test_one_party_runs_ahead(session: Session) -> None:
    def body(link: Link) -> bool:
        got = np.zeros(1000, np.uint8)
        if link.rank == 0:
            time.sleep(0.2)  # carol's five messages are all on their way by now
        for i in range(5):
            if link.rank == 2:
                link.exchange({0: [np.full(1000, i, np.uint8)]}, {})
            if link.rank == 1:
                link.exchange({0: [np.full(1000, 10 + i, np.uint8)]}, {})
        for sender in (1, 2):
            for i in range(5 if link.rank == 0 else 0):
                link.exchange({}, {sender: [got]})
                assert (got == (i if sender == 2 else 10 + i)).all()
        return True

    assert session(body) == [True] * 3


def test_short_messages_among_all_others(session: Session) -> None:
    """By the quick way and the general one in turn, with agreements between, a party far ahead, and pauses."""

    def body(link: Link) -> bool:
        after, before = ring(link)
        for n in range(1, 60):
            got, wide = np.zeros(n, np.uint8), np.zeros(20_000 * (n % 20 == 0), np.uint8)
            link.exchange_short({after: memoryview(bytes([n] * n))}, {before: got.data})
            assert got.tolist() == [n] * n
            if n % 7 == 0:
                link.agree("step", bytes([n]))
            if n % 11 == link.rank:
                time.sleep(0.3 if n < 13 else 0.005)  # once longer than a short message is awaited
            link.exchange({after: [wide + n]}, {before: [wide]})
            assert set(wide.tolist()) <= {n}
        if link.rank == 0:  # runs ahead, with more than is taken at once
            for n in range(200):
                link.exchange_short({1: memoryview(bytes([n] * 200))}, {})
        for n in range(200 if link.rank == 1 else 0):
            mine, others = np.zeros(200, np.uint8), np.zeros(3, np.uint8)
            link.exchange_short({2: memoryview(b"two")}, {0: mine.data, 2: others.data})
            assert mine.tolist() == [n] * 200 and others.tobytes() == b"one"
        for _ in range(200 if link.rank == 2 else 0):
            others = np.zeros(3, np.uint8)
            link.exchange_short({1: memoryview(b"one")}, {1: others.data})
            assert others.tobytes() == b"two"
        link.agree("end", b"")
        return True

    assert session(body) == [True] * 3


@pytest.mark.parametrize("sent", [4, 6])
def test_a_short_message_of_another_size_stops_everyone(session: Session, sent: int) -> None:
    def body(link: Link) -> None:
        after, before = ring(link)
        size = sent if link.rank == 0 else 5
        link.exchange_short({after: memoryview(bytes(size))}, {before: np.zeros(5, np.uint8).data})
        link.agree("end", b"")

    errors = session(body)
    assert isinstance(errors[1], PeerMismatchError)
    assert f"alice sent {sent} bytes in round 1 where 5 are due" in str(errors[1])
    assert all(isinstance(e, LinkError) for e in errors)


def test_large_messages_both_ways_do_not_block(session: Session) -> None:
    n = 100_000_000

    def body(link: Link) -> bool:
        if link.rank == 2:
            return True
        message, got = np.full(n, link.rank + 1, np.uint8), np.zeros(n, np.uint8)
        link.exchange({1 - link.rank: [message]}, {1 - link.rank: [got]})
        return bool(got[0] == got[-1] == 2 - link.rank and (got == got[0]).all())

    assert session(body) == [True] * 3


def test_agreement(session: Session) -> None:
    def body(link: Link) -> bool:
        link.agree("program", b"same")
        link.agree("program", b"same again")
        return link.counters.rounds == 0

    assert session(body) == [True] * 3


def test_disagreement_is_seen_by_every_party_and_names_who_differs(session: Session) -> None:
    for error in session(lambda link: link.agree("program", b"other" if link.rank == 1 else b"same")):
        assert isinstance(error, PeerMismatchError)
        assert str(error).startswith("bob differs from alice and carol in `program`")


def test_who_proposes_waits_for_nobody(session: Session) -> None:
    proposed = threading.Event()

    def body(link: Link) -> bool:
        if link.rank:
            assert proposed.wait(10)
        link.propose({"program": b"same"})
        link.propose({"public arguments": b"same"})
        proposed.set()
        got = np.zeros(8, np.uint8)
        after, before = ring(link)
        exchange = link.begin({after: 8}, {before: [got]})
        exchange.put(after, np.full(8, link.rank, np.uint8), 8)
        exchange.finish()
        link.settle()
        return bool((got == before).all())

    assert session(body) == [True] * 3


@pytest.mark.parametrize("then", ["exchange", "put", "wait", "finish", "settle", "agree"])
def test_nothing_moves_before_what_was_proposed_is_agreed_on(session: Session, then: str) -> None:
    arrived = [np.zeros(8, np.uint8) for _ in PARTIES]

    def body(link: Link) -> None:
        link.propose({"program": b"other" if link.rank == 1 else b"same"})
        (after, before), got, sent = ring(link), [arrived[link.rank]], np.ones(8, np.uint8)
        if then == "exchange":
            return link.exchange({after: [sent]}, {before: got})
        if then == "settle":
            return link.settle()
        if then == "agree":
            return link.agree("public arguments", b"same")
        exchange = link.begin({after: 8} if then == "put" else {}, {before: got})
        if then == "put":
            exchange.put(after, sent, 8)
        elif then == "wait":
            exchange.wait(before, 8)
        else:
            exchange.finish()
        raise AssertionError("it went on")

    for error in session(body):
        assert isinstance(error, PeerMismatchError)
        assert str(error).startswith("bob differs from alice and carol in `program`")
    assert not any(got.any() for got in arrived)


def test_session_keys(session: Session) -> None:
    def body(link: Link) -> dict[tuple[int, ...], bytes]:
        sets = [(0, 1), (0, 2), (1, 2), (0, 1, 2), (link.rank,)]
        own = [holders for holders in sets if link.rank in holders]
        own = own[link.rank :] + own[: link.rank]  # the order does not matter
        keys = {holders: link.session_key(frozenset(holders)) for holders in own}
        assert keys == {holders: link.session_key(holders) for holders in own}
        return keys

    first, second = session(body), session(body)
    for keys in (first, second):
        assert keys[0][0, 1] == keys[1][0, 1]
        assert keys[0][0, 2] == keys[2][0, 2]
        assert keys[1][1, 2] == keys[2][1, 2]
        assert keys[0][0, 1, 2] == keys[1][0, 1, 2] == keys[2][0, 1, 2]
    different = {key for session_keys in (first, second) for keys in session_keys for key in keys.values()}
    assert len(different) == 14  # in each session 3 pairs, 1 triple, 3 of one party
    assert all(len(key) == 32 for key in different)


def test_malformed_parts_of_keys_are_refused() -> None:
    """As is one that is said twice: a peer that says it again and again is not listened to for ever."""
    wrong = [b"", b"0", b"1,0", b"0,1,1", b"1,2", b"0,3", b"-1,0,1", b"0,1," + 5000 * b"9"]
    key = b"\0" + bytes(32)
    for bodies in (*([holders + key] for holders in wrong), [b"0,1" + key[1:]], [b"0,1,2" + key] * 2):
        heard = iter(bodies)
        keys = SessionKeys(0, PARTIES, lambda *_: None, lambda *_: next(heard))  # noqa: B023
        keys.begin()
        with pytest.raises(PeerMismatchError, match="bob sent a malformed part of a session key"):
            keys.derive((0, 1))


def test_keys_of_others_are_refused(session: Session) -> None:
    for error in session(lambda link: link.session_key(link.peers)):
        assert isinstance(error, LinkError)
        assert "can only ask for keys that it holds" in str(error) or isinstance(error, PeerAbortedError)


def test_another_size_stops_everyone(session: Session) -> None:
    def body(link: Link) -> None:
        after, before = ring(link)
        n = 8 if link.rank else 16
        link.exchange({after: [np.zeros(n, np.uint8)]}, {before: [np.zeros(8, np.uint8)]})
        for _ in range(3):
            link.exchange({after: [np.zeros(8, np.uint8)]}, {before: [np.zeros(8, np.uint8)]})

    errors = session(body)
    assert isinstance(errors[1], PeerMismatchError)
    assert "alice sent 16 bytes in round 1 where 8 are due" in str(errors[1])
    for error in (errors[0], errors[2]):
        assert isinstance(error, PeerAbortedError)
        assert "bob stopped" in str(error)
        assert "alice sent 16 bytes" in str(error)


def test_out_of_step_is_noticed(session: Session) -> None:
    def body(link: Link) -> None:
        if link.rank == 0:
            link.exchange({1: [np.zeros(8, np.uint8)]}, {1: [np.zeros(8, np.uint8)]})
        link.agree("configuration", b"1")

    errors = session(body)
    assert any(isinstance(e, PeerMismatchError) and "do not run the same program" in str(e) for e in errors)
    assert all(isinstance(e, PeerMismatchError | PeerAbortedError) for e in errors)


@pytest.mark.parametrize("awaited", ["the message of round 1", "agreement on `program`"])
def test_silence_times_out_and_says_who_what_and_how_long(session: Session, awaited: str) -> None:
    release = threading.Event()

    def body(link: Link) -> None:
        if link.rank == 2:
            release.wait(20)
            return
        try:
            if "round" in awaited:
                link.exchange({}, {2: [np.zeros(8, np.uint8)]})
            else:
                link.agree("program", b"")
        finally:
            if link.rank == 0:
                release.set()

    start = time.monotonic()
    errors = session(body, timeout=1)[:2]
    assert time.monotonic() - start < 5
    timeouts = [e for e in errors if isinstance(e, PeerTimeoutError)]
    assert timeouts
    assert "Nothing came from carol for 1 s" in str(timeouts[0])
    assert awaited in str(timeouts[0])
    assert "timeout" in str(timeouts[0]).partition("Raise the limit")[2]
    assert all("carol" in str(e) for e in errors)


def test_peers_do_not_hear_what_a_partys_rows_hold(session: Session) -> None:
    def body(link: Link) -> None:
        with link._abort_on_error():
            if link.rank == 1:
                raise DataError("column `x` has 3 of 5 cells missing (the first in row 2)")
        link.exchange({}, {1: [np.zeros(8, np.uint8)]} if link.rank != 1 else {})

    errors = session(body)
    assert isinstance(errors[1], DataError)
    for error in (errors[0], errors[2]):
        assert "bob stopped" in str(error)
        assert str(error).endswith(f": {OWN_ERROR}")
        assert "3" not in str(error)
        assert "`x`" not in str(error)


def test_abort_reaches_everyone_with_its_reason(session: Session) -> None:
    def body(link: Link) -> None:
        if link.rank == 1:
            link.abort("InputError: `x` has another shape")
            with pytest.raises(LinkError, match="another shape"):
                link.exchange({}, {0: [np.zeros(8, np.uint8)]})
            return
        try:
            link.exchange({}, {2 - link.rank: [np.zeros(8, np.uint8)]})
        finally:
            with pytest.raises(PeerAbortedError):
                link.agree("program", b"")

    errors = session(body)
    assert errors[1] is None
    for error in (errors[0], errors[2]):
        assert isinstance(error, PeerAbortedError)
        assert "bob stopped" in str(error)
        assert "`x` has another shape" in str(error)


def test_what_is_under_way_arrives_though_another_has_stopped(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carol is done and stops; what bob sends a moment later completes alice's round."""
    for link_of in (memory_link, tls_link):
        monkeypatch.setattr(link_of, "UNDER_WAY", 60.0)
    stopped = threading.Event()

    def body(link: Link) -> int:
        got = np.zeros(1, np.uint8)
        link.agree("start", b"")
        if link.rank == 2:
            link.exchange({0: [got + 3]}, {})
            link.abort("the end of its script")
            stopped.set()
        elif link.rank == 1:
            time.sleep(0.3)
            link.exchange({0: [got + 2]}, {})
            assert stopped.wait(60)  # so that alice loses carol, not bob
        else:
            from_carol = np.zeros(1, np.uint8)
            link.exchange({}, {1: [got], 2: [from_carol]})
            with pytest.raises(PeerAbortedError, match="carol stopped: the end of its script"):
                link.agree("next", b"")
            return int(got[0]) + int(from_carol[0])
        return 0

    assert session(body, timeout=60)[0] == 5


def test_two_that_wait_for_each_other_hear_of_the_third(session: Session) -> None:
    def body(link: Link) -> None:
        link.agree("start", b"")
        if link.rank == 2:
            return link.abort("the end of its script")
        link.exchange({}, {1 - link.rank: [np.zeros(1, np.uint8)]})

    start = time.monotonic()
    errors = session(body, timeout=60)
    assert time.monotonic() - start < 30
    assert all(isinstance(e, PeerAbortedError) and "the end of its script" in str(e) for e in errors[:2])


def test_two_that_go_on_without_the_third_stop_soon(session: Session) -> None:
    def body(link: Link) -> None:
        link.agree("start", b"")
        if link.rank == 2:
            return link.abort("the end of its script")
        got = np.zeros(1, np.uint8)
        while True:
            link.exchange({1 - link.rank: [got]}, {1 - link.rank: [got.copy()]})

    errors = session(body, timeout=60)
    assert all(isinstance(e, PeerAbortedError) and "the end of its script" in str(e) for e in errors[:2])


def test_an_exception_inside_the_session_is_passed_on_without_its_text(session: Session) -> None:
    def body(link: Link) -> None:
        if link.rank == 0:
            raise ValueError("the secret is 42")
        link.exchange({}, {0: [np.zeros(8, np.uint8)]})

    errors = session(body)
    assert isinstance(errors[0], ValueError)
    for error in errors[1:]:
        assert isinstance(error, PeerAbortedError)
        assert "alice stopped" in str(error)
        assert "ValueError" not in str(error)
        assert "42" not in str(error)


def test_a_party_that_finished_is_lost_only_to_those_who_need_it(session: Session) -> None:
    def body(link: Link) -> bool:
        if link.rank == 2:
            return True
        time.sleep(0.3)
        got = np.zeros(8, np.uint8)
        link.exchange({1 - link.rank: [np.ones(8, np.uint8)]}, {1 - link.rank: [got]})
        if link.rank == 0:
            link.exchange({}, {2: [got]})
        return bool(got.all())

    lost, bob, carol = session(body)
    assert isinstance(lost, PeerLostError)
    assert "carol closed its link" in str(lost)
    assert bob is carol is True


def test_closed_links_and_wrong_buffers_are_refused() -> None:
    link, *others = memory_links(PARTIES)
    for buffers, text in [
        ({0: [np.zeros(1)]}, "is no peer"),
        ({1: [np.zeros((4, 4))[:, :2]]}, "contiguous"),
    ]:
        with pytest.raises(LinkError, match=text):
            link.exchange(buffers, {})
    with pytest.raises(LinkError, match="writable"):
        link.exchange({}, {1: [memoryview(b"12")]})
    link.close()
    with pytest.raises(LinkError, match="closed"):
        link.agree("program", b"")
    for other in others:
        other.close()


def test_flat_views_share_memory() -> None:
    array = np.zeros((2, 3), np.uint32)
    flat_view(array, writable=True)[4] = 1
    assert array[0, 1] == 1
    assert flat_view(memoryview(b"abc"), writable=False).tobytes() == b"abc"
