"""Joining a session over TLS, or telling its peers why one does not come: in, a cluster and a party; out, its link."""

import logging
import time

from spuvm.runtime.cores import share_cores
from spuvm.runtime.errors import CertificateError, PeerMismatchError, PeerTimeoutError, SpuError, for_peers
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.tls.channel import FAREWELL
from spuvm.runtime.link.tls.hello import Stopped
from spuvm.runtime.link.tls.link import TlsLink
from spuvm.runtime.link.tls.pace import paces
from spuvm.runtime.link.tls.setup import SetUp
from spuvm.runtime.link.tls.stream import Wake
from spuvm.runtime.link.tls.ways import of_cluster

DIFFERENT = 3.0  # seconds that a party waits for peers to tell them that the set-up cannot succeed
DECLINE = 5.0  # seconds that a party that cannot take part waits for peers to tell them
LONGER = 1.4  # times the limit: parties that compute notice first who does not come

log = logging.getLogger(__name__)


def connect(cluster: Cluster, party: str, timeout: float | None = None) -> TlsLink:
    """Join the session of the cluster as `party`; returns when all parties are connected to this one.

    `timeout` (seconds; the cluster file's `timeout_seconds` if not given) limits the set-up and later
    every wait. Raises `CertificateError`, `PeerMismatchError`, `PeerTimeoutError`, or `LinkError`.
    """
    rank = cluster.rank(party)
    share_cores(cluster.on_host_of(party))
    limit = cluster.timeout_seconds if timeout is None else timeout
    dealer = None if cluster.dealer is None else cluster.rank(cluster.dealer)
    computes = rank < cluster.config.world_size
    patience, ways = limit if computes else LONGER * limit, of_cluster(cluster, party)
    link = TlsLink(
        *(rank, cluster.names, patience, ways, cluster.ahead, dealer),
        paces=paces(cluster),
        compress=cluster.compress,
        counts=cluster.counts,
    )
    try:
        with SetUp(cluster, party, limit, link._wake, ways) as setup:
            _join(link, setup, limit)
        if cluster.grace_seconds:
            link._take_up_again(cluster)
        link._start_session()
    except BaseException:
        link.close()
        raise
    return link


def decline(cluster: Cluster, party: str, reason: str) -> None:
    """Tell the peers why `party` does not come: those that wait, and those that start within `DECLINE` seconds.

    Says nothing if this party's own certificate or address cannot be used. No secrets in `reason`.
    """
    wake, ways = Wake(), of_cluster(cluster, party)
    try:
        with SetUp(cluster, party, DECLINE, wake, ways) as setup:
            setup.fail(party, reason, DECLINE)
    except SpuError as error:
        log.debug("%s could not tell its peers that it stops: %s", party, error)
    finally:
        ways.close()
        wake.close()


def _join(link: TlsLink, setup: SetUp, limit: float) -> None:
    deadline = time.monotonic() + limit
    with link._abort_on_error():
        try:
            while not link._complete:
                if time.monotonic() > deadline:
                    raise PeerTimeoutError(setup.absence(link._senders, link._receivers))
                link._poll(0.2)
                if link._stopped is not None:
                    raise link._stopped
                for made in setup.news():
                    link._attach(made)
        except Stopped as stopped:
            setup.fail(stopped.origin, stopped.reason)
            raise link._aborted(stopped.peer, stopped.origin, stopped.reason) from None
        except SpuError as error:
            lasting = isinstance(error, CertificateError | PeerMismatchError)  # those who start later meet it, too
            setup.fail(*(link._cause or (setup.party, for_peers(error))), DIFFERENT if lasting else FAREWELL)
            raise
