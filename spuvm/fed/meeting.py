"""What the parties of a training say openly: forms, who attends, where each one's checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spuvm.context import abort_everyone_on_error, here
from spuvm.devices import PYU, PYUObject
from spuvm.runtime.errors import PeerMismatchError


def said(parties: Sequence[str], what: str, kind: type, function: Callable[..., Any], *own: Mapping[str, Any]) -> Any:
    """What `function` of each party's own things gives there, told to all: {party: value} of texts or bools."""
    mine: dict[str, PYUObject] = {p: PYU(p)(function)(*(o[p] for o in own)) for p in parties}
    context = here()
    if context.link is None:
        return {p: x.value for p, x in mine.items()}
    context.propose("federated training", what)
    with abort_everyone_on_error():
        body = {p: x.value for p, x in mine.items() if x.device.is_here}
        heard = dict(zip(context.parties, context.link.gather(json.dumps(body).encode(), counted=False), strict=True))
        return {p: _checked(heard[p], p, kind) for p in parties}


def given(party: str, function: Callable[[Any], Any], value: Any) -> PYUObject:
    """`function` at a party, of an object that it has there or of a value that no other party looks at."""
    if isinstance(value, PYUObject):
        return PYU(party)(function)(value)
    return PYU(party)(lambda: function(value))()


def _checked(body: bytes, party: str, kind: type) -> Any:
    try:
        value = json.loads(body)[party]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if type(value) is not kind:
        raise PeerMismatchError(f"{party} says something about its training that this version does not know.")
    return value
