"""A worker as a process: `python -m spuvm.streaming FOLDER NUMBER`."""

from spuvm.streaming.worker import as_process, work

if __name__ == "__main__":
    raise SystemExit(as_process(work))
