"""What commands print on the terminal; it stands alone, so that commands that need no JAX start at once."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from spuvm.runtime.legible import legible


class Legible(RenderHook):
    """What is printed moves no terminal, whoever wrote it: cells, names and reasons may be of peers."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [LegibleText(x) for x in renderables]


@dataclass(frozen=True)
class LegibleText:
    """Something to be printed, with `?` for what nobody would see."""

    shown: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for s in console.render(self.shown, options):
            yield s if s.control else Segment(legible(s.text, lines=True), s.style)


def console(stderr: bool = False) -> Console:
    """Made when needed, so that it writes to what the stream is then."""
    out = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not out.is_terminal:
        out = Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=160, soft_wrap=True)
    out.push_render_hook(Legible())
    return out


def say(text: str) -> None:
    """A line of progress, to stderr."""
    console(stderr=True).print(legible(text, lines=True))
