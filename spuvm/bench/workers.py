"""The parent's side of worker processes: one for a simulation, or one for each party."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spuvm.bench.worker import PARTIES
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.certificates import free_ports, make_cluster

PEER_SCRIPT = Path(__file__).with_name("peer_worker.py")
LAST_WORDS = 2000  # bytes of a dead worker's standard error that are shown


class BenchmarkError(SpuError):
    """A worker failed, died or took too long."""


class Workers:
    """Processes that all get the same requests, each a JSON line; a context manager.

    `patience`: seconds that any answer may take. After an error the processes are gone.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], patience: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self.patience = patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        env = {**os.environ, **(environment or {})}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._processes = [subprocess.Popen(command, env=env, **pipes) for command in commands]
        self._answers()

    def ask(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The replies, by rank.

        Raises BenchmarkError with the first worker's own words if one fails.
        """
        line = json.dumps(request).encode() + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                self._fail(f"a worker has died: {self._last_words()}")
        return self._answers()

    def close(self) -> None:
        """End the processes: politely, then not."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # of what a dead worker did not read
                process.stdin.close()
        deadline = time.monotonic() + 5
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._processes = []
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _answers(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + self.patience
        answers: dict[int, dict[str, Any]] = {}
        with selectors.DefaultSelector() as selector:
            for rank, process in enumerate(self._processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, rank)
            while len(answers) < len(self._processes):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._fail(f"no answer within {self.patience:g} s")
                for key, _ in ready:
                    answers[key.data] = self._answer(key.data)
                    selector.unregister(key.fileobj)
        return [answers[rank] for rank in range(len(answers))]

    def _answer(self, rank: int) -> dict[str, Any]:
        stdout = self._processes[rank].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            self._fail(f"a worker has died: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._fail(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - LAST_WORDS))
        text = self._errors.read().decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"

    def _fail(self, reason: str) -> None:
        for process in self._processes:
            process.kill()
        self.close()
        raise BenchmarkError(reason)


def simulated(patience: float, environment: Mapping[str, str] | None = None) -> Workers:
    """One process that simulates all parties."""
    return Workers([[sys.executable, "-m", "spuvm.bench.worker"]], patience, environment)


def networked(patience: float, folder: Path, environment: Mapping[str, str] | None = None) -> Workers:
    """A process for each party, over mutual TLS on this machine; certificates are made in `folder`."""
    cluster = make_cluster(folder, PARTIES, timeout_seconds=patience)
    commands = [[sys.executable, "-m", "spuvm.bench.worker", party, str(cluster)] for party in PARTIES]
    return Workers(commands, patience, environment)


def peer_simulated(python: Path, patience: float) -> Workers:
    """The peer's three parties as threads of one process."""
    return Workers([[str(python), "-P", str(PEER_SCRIPT)]], patience)


def peer_networked(python: Path, patience: float) -> Workers:
    """The peer's three parties as processes, over plain TCP on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(PARTIES))]
    ranks = range(len(PARTIES))
    return Workers([[str(python), "-P", str(PEER_SCRIPT), str(rank), *addresses] for rank in ranks], patience)
