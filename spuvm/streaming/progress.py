"""How far a stream is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def reporting(total: int, already: int, show: bool | None) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the number of rows of each block that is done.

    Args:
        total: rows in all; `already` of them were done before.
        show: whether to report at all; None: if stderr is a terminal.
    """
    if show is None:
        show = sys.stderr.isatty()
    if not show:
        yield None
    elif sys.stderr.isatty():
        with _bar(total, already) as advance:
            yield advance
    else:
        yield _lines(total, already)


@contextmanager
def _bar(total: int, already: int) -> Iterator[Callable[[int], None]]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _lines(total, already)
        return
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    meter = _Meter(total, already)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=already, rate="")

        def advance(rows: int) -> None:
            progress.update(task, advance=rows, rate=meter.after(rows))

        yield advance


def _lines(total: int, already: int) -> Callable[[int], None]:
    meter = _Meter(total, already)
    told = time.monotonic()

    def advance(rows: int) -> None:
        nonlocal told
        rate = meter.after(rows)
        if time.monotonic() > told + SECONDS_BETWEEN_LINES or meter.done == total:
            told = time.monotonic()
            print(f"{meter.done:,} of {total:,} rows, {rate}", file=sys.stderr, flush=True)

    return advance


class _Meter:
    """Rate and time left."""

    def __init__(self, total: int, already: int) -> None:
        self.total, self.done = total, already
        self._began, self._here = time.monotonic(), 0

    def after(self, rows: int) -> str:
        """In words, after so many rows more."""
        self.done += rows
        self._here += rows
        rate = self._here / max(time.monotonic() - self._began, 1e-9)
        left = round((self.total - self.done) / rate)
        speed = f"{rate / 1e6:.2f} million" if rate >= 1e5 else f"{rate:,.0f}"
        return f"{speed} rows/s, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
