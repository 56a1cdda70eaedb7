"""A worker as a process: `python -m spuvm.psi.bulk FOLDER NUMBER`."""

from spuvm.psi.bulk.worker import work
from spuvm.streaming.worker import as_process

if __name__ == "__main__":
    raise SystemExit(as_process(work))
