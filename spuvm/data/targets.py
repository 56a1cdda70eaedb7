"""Where results go: refused before the work begins if they could not be written, whole or not at all in the end."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from spuvm.runtime.errors import InputError, SaveError


def check_target(path: str | Path, force: bool = False, formats: Sequence[str] = ()) -> None:
    """Refuse a file that could not be written at the end, before the work begins.

    Raises InputError if its folder is missing, its format unknown, or, without `force`, it exists.
    """
    path = Path(path)
    if formats and path.suffix.lower() not in formats:
        raise InputError(f"{path}: the name must end in one of {', '.join(formats)}.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder.")
    if path.exists() and not force:
        raise InputError(f"{path} is there already: give another name, or `--force` to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent.absolute()} cannot be written to.")


def saved_or_kept(path: str | Path, save: Callable[[Path], None]) -> SaveError | None:
    """Save a result at `path`; if that fails, in another folder: the error then says where it is.

    To be called before parties agree that they are done. Raises what `save` raises if no folder takes it.
    """
    path = Path(path)
    try:
        save(path)
        return None
    except (InputError, OSError) as error:
        kept = kept_aside(path.name, save)
        if kept is None:
            raise
        return SaveError(f"{error} Nothing is lost: the result is in {kept}; move it where it should be.")


def kept_aside(name: str, save: Callable[[Path], None]) -> Path | None:
    """Save under this name in the first folder that takes it, new and for its owner alone; where. None: nowhere."""
    for place in _places():
        with suppress(InputError, OSError):
            folder = Path(tempfile.mkdtemp(prefix="spuvm-kept-", dir=place))
            try:
                save(folder / name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return folder / name
    return None


def folder_aside() -> Path:
    """A new folder, for its owner alone, where there is most room."""
    return Path(tempfile.mkdtemp(prefix="spuvm-kept-", dir=_places()[0]))


def temporary() -> list[Path]:
    """The system's folder for temporary files; none where every disk is full, which looking for it finds out."""
    try:
        return [Path(tempfile.gettempdir())]
    except OSError:
        return []


def _places() -> list[Path]:
    """Folders where something may be kept, those with most room first."""
    found = {}
    for place in (Path.cwd(), Path.home(), *temporary(), Path("/dev/shm")):
        with suppress(OSError):
            found[place] = shutil.disk_usage(place).free
    return sorted(found, key=lambda place: -found[place])


@contextmanager
def replacing(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the body ends, and vanishes if it fails.

    Raises InputError if, without `force`, somebody else made the file meanwhile.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if not force:
            try:
                os.link(temporary, path)  # unlike rename, it fails if the name is taken
                return
            except FileExistsError:
                raise InputError(f"{path} has appeared meanwhile: give another name, or `--force`.") from None
            except OSError:  # a file system without links
                check_target(path, formats=())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
