"""A link whose parties are numbered anew: a machine counts its computing parties first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from spuvm.runtime.link.link import Buffer, Kind, Link
from spuvm.runtime.link.round import Exchange, Renamed


def renumbered(link: Link, parties: Sequence[str]) -> Link:
    """The same link with its parties in another order; the link itself if that is theirs."""
    return link if tuple(parties) == link.parties else Renumbered(link, parties)


class Renumbered(Link):
    """Everything is done by the link beneath; `counters` are those of what went through here."""

    def __init__(self, link: Link, parties: Sequence[str]) -> None:
        self._ranks = [link.parties.index(p) for p in parties]
        assert sorted(self._ranks) == list(range(len(link.parties))), "a link is renumbered as a whole"
        super().__init__(self._ranks.index(link.rank), parties, link.timeout, "")
        self._link = link

    @property
    def base(self) -> Link:
        return self._link.base

    def exchange(self, outgoing: Mapping[int, Sequence[Buffer]], incoming: Mapping[int, Sequence[Buffer]]) -> None:
        self._link.exchange(*({self._ranks[p]: b for p, b in way.items()} for way in (outgoing, incoming)))
        self._count_all(*({p: sum(x.nbytes for x in b) for p, b in way.items()} for way in (outgoing, incoming)))

    def begin(self, outgoing: Mapping[int, int], incoming: Mapping[int, Sequence[Buffer]]) -> Exchange:
        sends, receives = ({self._ranks[p]: x for p, x in way.items()} for way in (outgoing, incoming))
        exchange = self._link.begin(sends, receives)  # type: ignore[arg-type]
        self._count_all(outgoing, {p: sum(x.nbytes for x in b) for p, b in incoming.items()})
        return Renamed(exchange, self._ranks)

    def _count_all(self, sent: Mapping[int, int], received: Mapping[int, int]) -> None:
        moved = [{p: n for p, n in way.items() if n} for way in (sent, received)]
        if any(moved):
            self._count(*moved)

    def settle(self) -> None:
        self._link.settle()

    def propose(self, values: Mapping[str, bytes], among: Collection[int] | None = None, note: str = "") -> None:
        self._link.propose(values, None if among is None else [self._ranks[p] for p in among], note)

    def conclude(self) -> None:
        self._link.conclude()

    @property
    def failed(self) -> bool:
        return self._link.failed

    def session_key(self, holders: Iterable[int]) -> bytes:
        return self._link.session_key(self._ranks[h] for h in holders)

    def confirm_key(self, holders: Iterable[int]) -> None:
        self._link.confirm_key(self._ranks[h] for h in holders)

    def abort(self, why: BaseException | str) -> None:
        self._link.abort(why)

    def close(self) -> None:
        self._link.close()

    # The transport is the link's beneath.

    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        raise AssertionError("unreachable")

    def _settle(self) -> None:
        raise AssertionError("unreachable")

    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None:
        raise AssertionError("unreachable")

    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        raise AssertionError("unreachable")

    def _send_abort(self, origin: str, reason: str) -> None:
        raise AssertionError("unreachable")

    def _shut(self, graceful: bool) -> None:
        raise AssertionError("unreachable")
