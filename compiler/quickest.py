"""What a call takes over the links that a configuration is optimised for: the quickest of several is called."""

from __future__ import annotations

from collections.abc import Callable

from spuvm.compiler.expand.choreography import Call
from spuvm.compiler.lower.weigh import TRADES
from spuvm.compiler.project.project import message_of
from spuvm.compiler.project.schedule import reference_plan


def weighed(optimize: str) -> Callable[[Call], float] | None:
    """The seconds of a call by itself; None where the usual kernels are taken, whatever they cost."""
    trade = TRADES.get(optimize)

    def seconds(call: Call) -> float:
        assert trade is not None
        found, sent = reference_plan(call), dict[int, int]()
        for number, message in enumerate(found.sent):
            sent[message.src] = sent.get(message.src, 0) + message_of(call, number, 0).nbytes
        return trade.seconds(found.rounds, max(sent.values(), default=0))

    return None if trade is None else seconds
