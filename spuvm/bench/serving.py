"""A worker process: reads one JSON request a line, answers each with one JSON line.

Imports nothing of ours, so that a peer's own Python can load this file too.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def serve(start: Callable[[], Handler]) -> None:
    """Answer until the input ends. What libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(reply: dict[str, Any]) -> None:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    try:
        handler = start()
    except Exception as error:
        answer({"error": _reason(error)})
        return
    answer({})
    for line in sys.stdin:
        try:
            answer(handler(json.loads(line)))
        except Exception as error:
            traceback.print_exc()
            answer({"error": _reason(error)})


def seconds(run: Callable[[], Any], times: int) -> list[float]:
    """How long each of `times` calls took."""
    out = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        out.append(time.perf_counter() - start)
    return out


def _reason(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"
