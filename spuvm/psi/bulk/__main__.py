"""A worker as a process: `python -m spuvm.psi.bulk FOLDER NUMBER`."""

from __future__ import annotations

import sys
from pathlib import Path

from spuvm.psi.bulk.worker import work
from spuvm.runtime.errors import SpuError


def main() -> int:
    try:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
