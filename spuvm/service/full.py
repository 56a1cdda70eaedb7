"""What a service says when its disk takes nothing: to its own people why, to peers that they may ask again."""

from __future__ import annotations

import logging
import sqlite3

LOG = logging.getLogger("spuvm.service")
FULL = (OSError, sqlite3.Error)  # while a request is answered: of the state folder
NOT_NOW = "it cannot take anything in at the moment: ask again later"


def unwritable(error: Exception) -> str:
    """In words for people, who find more in the service's own log."""
    why = getattr(error, "strerror", None) or str(error)
    LOG.error("the state folder cannot be used: %s", why)
    LOG.debug("it was here", exc_info=error)
    return f"this service cannot use its state folder now ({why}): nothing was done. Put that right, and ask again."
