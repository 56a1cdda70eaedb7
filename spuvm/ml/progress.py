"""A bar over the rounds of training, with the scores if there are any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Scores = Mapping[str, Mapping[str, float]]
Done = Callable[[int, Scores], None]


@dataclass(frozen=True)
class Progress:
    """`shown`: a bar on a terminal (with `rich`), else a line a round."""

    shown: bool

    @contextmanager
    def of(self, rounds: int) -> Iterator[Done]:
        """A function to call after each round with its number and scores."""
        if not self.shown:
            yield lambda number, scores: None
            return
        bar = _bar() if sys.stderr.isatty() else None
        if bar is None:
            yield lambda number, scores: print(f"[{number}] {_text(scores)}".rstrip(), flush=True)
            return
        with bar:
            task = bar.add_task("trees", total=rounds, scores="")
            yield lambda number, scores: bar.update(task, completed=number + 1, scores=_text(scores))


def _text(scores: Scores) -> str:
    return "  ".join(f"{name}-{metric}: {value:.5f}" for name, s in scores.items() for metric, value in s.items())


def _bar() -> Any:
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return RichProgress(*columns, TextColumn("{task.fields[scores]}"), console=Console(stderr=True))
