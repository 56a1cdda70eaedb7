"""The `spuvm` command. What it takes is in `commands/`; here is what happens when something goes wrong.

Results go to stdout, progress and errors to stderr. An error on purpose is one line and its class's
exit status; Ctrl-C exits with 130, SIGTERM with 143, and both leave nothing behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

INSTALL = "error: the command line needs packages that are missing: pip install 'spuvm[cli]'"
INTERRUPTED = 130
AGAIN = 0.05  # seconds


class Terminated(BaseException):
    """SIGTERM arrived: unwind as for Ctrl-C, so that peers are told and children end."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (of `sys.argv` if not given) and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _unraisable
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


def run(argv: Sequence[str]) -> int:
    """Run a command line; the exit status."""
    try:
        import click
        import rich as rich
    except ImportError:
        print(INSTALL, file=sys.stderr)
        return 1
    from spuvm.commands import cli
    from spuvm.runtime.errors import SpuError

    debug = "--debug" in argv
    try:
        status = cli.main(list(argv), prog_name="spuvm", standalone_mode=False, obj={"debug": debug})
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        return e.exit_code
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        hint = f" See `{context.command_path} --help`." if context else ""
        return _failed(f"{e.format_message()}{hint}", e.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted", INTERRUPTED, debug)
    except Terminated:
        return _failed("stopped by SIGTERM", 128 + signal.SIGTERM, debug)
    except BrokenPipeError:  # as in `spuvm ... | head`; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except SpuError as e:
        return _failed(str(e), e.exit_status, debug)
    except Exception as e:
        text = f"{type(e).__name__}: {e}".strip().partition("\n")[0]
        return _failed(f"{text} (a mistake inside spuvm; `--debug` shows where)", 1, debug)


def _failed(message: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    from spuvm.runtime.legible import legible

    print(f"error: {legible(message, lines=True)}", file=sys.stderr, flush=True)
    return status


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """A signal that arrived where exceptions end, as while garbage is collected, comes again a moment later."""
    lost = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(unraisable.exc_type)
    if lost is None:
        sys.__unraisablehook__(unraisable)
    else:
        again = threading.Timer(AGAIN, os.kill, (os.getpid(), lost))
        again.daemon = True
        with suppress(RuntimeError):  # no thread begins any more: the process is ending
            again.start()


if __name__ == "__main__":
    main()
