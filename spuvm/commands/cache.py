"""`spuvm cache`: what compiled programs and stages lie on disk, and removing them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import click

from spuvm.compiler.cache import disk
from spuvm.compiler.cache.limits import entries, limit, versions

KINDS = {
    ".code": "stages, as bytecode of the vector engine",
    ".machine": "stages, as machine code",
    ".stage": "stages, compiled by XLA",
    ".plan": "kernels, cut into stages",
    ".module": "programs",
}


@click.group()
def cache() -> None:
    """The cache of compiled pieces on disk ($SPUVM_CACHE_DIR, or spuvm in the user's cache folder).

    It holds at most $SPUVM_CACHE_MB megabytes (2,048 if not set), those of earlier versions of spuvm included: what was
    not used for long goes first.

    \b
      spuvm cache show
      spuvm cache clear
    """


def _folder() -> Path:
    if not disk.wanted():
        raise click.ClickException("there is no cache: SPUVM_CACHE is 0.")
    try:
        return disk.place()
    except OSError as error:
        raise click.ClickException(f"there is no cache: {error}.") from None


@cache.command()
def show() -> None:
    """What lies there, by kind."""
    folder = _folder()
    number: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for entry in entries(folder):
        kind = KINDS.get(entry.path.suffix, "schedules of parties, and names of stages")
        number[kind] += 1
        nbytes[kind] += entry.nbytes
    others = [v for v in versions(folder.parent) if v != folder]
    size = sum(e.nbytes for v in others for e in entries(v))
    most = f" of {limit() / 2**20:,.0f}" if limit() else ", without a limit"
    click.echo(f"{folder.parent}: {(sum(nbytes.values()) + size) / 2**20:.1f} MB{most}")
    for kind, size in nbytes.most_common():
        click.echo(f"  {number[kind]:6} {size / 2**20:8.1f} MB  {kind}")
    if others:
        click.echo(f"  {len(others):6} {size / 2**20:8.1f} MB  other versions of spuvm, JAX or the processor")


@cache.command()
def clear() -> None:
    """Remove all of it, other versions' entries too. Programs are compiled anew when they are next called."""
    root = _folder().parent
    before = _size(root)
    for version in versions(root):
        shutil.rmtree(version, ignore_errors=True)
    left = _size(root)
    if left:
        raise click.ClickException(f"{left / 2**20:.1f} MB of {before / 2**20:.1f} in {root} cannot be removed.")
    click.echo(f"removed {before / 2**20:.1f} MB from {root}")


def _size(root: Path) -> int:
    return sum(e.nbytes for v in versions(root) for e in entries(v))
