"""docs/operate.md in three network namespaces, each a machine of its own with a name and an address: as root, on Linux.

    python benchmarks/namespaces.py
    python benchmarks/namespaces.py --root /srv/debian --spuvm /opt/spuvm/bin/spuvm   # all of it within a chroot

The page's commands run as they stand, at the party that they name, with `alice.example` and so on for 127.0.0.1 where
peers are meant (with --page also where people are, so that pages have TLS). Prints how long it took and how much there
was to type; exit status 1 if the joined table is not what it must be. Nothing outside the three can be reached.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "operate.md"
PARTIES = ("alice", "bob", "carol")
PORTS = {"9443": "alice", "9444": "bob", "9445": "carol"}
PEOPLE = {"8443": "alice", "8444": "bob", "8445": "carol"}
SERVE = "spuvm serve service.toml &\n"
NET = "10.77.0"
LIMIT = 600.0  # seconds for the commands of one block


def steps() -> list[tuple[str, str]]:
    """Party and commands, in the order of the page."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    parts = [p for block in blocks for p in re.split(r"^# at (?=\w+$)", block, flags=re.MULTILINE)[1:]]
    return [(party, commands) for party, _, commands in (p.partition("\n") for p in parts)]


def named(commands: str, ports: dict[str, str]) -> str:
    """With a party's name for the address at which the page has it."""
    return re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"{ports[m[1]]}.example:{m[1]}" if m[1] in ports else m[0], commands)


@contextmanager
def namespaces() -> Iterator[dict[str, str]]:
    """By party the name of a namespace; all three are on one bridge, and know each other's names."""
    mark = f"spu{os.getpid() % 100_000}"
    spaces = {party: f"{mark}{party}" for party in PARTIES}
    hosts = "127.0.0.1 localhost\n" + "".join(f"{NET}.{i} {p}.example\n" for i, p in enumerate(PARTIES, 1))
    with ExitStack() as stack:

        def ip(line: str, undo: str | None = None) -> None:
            subprocess.run(["ip", *line.split()], check=True)
            if undo is not None:
                stack.callback(subprocess.run, ["ip", *undo.split()], check=False)

        ip(f"link add {mark}br type bridge", f"link delete {mark}br")
        ip(f"link set {mark}br up")
        for i, space in enumerate(spaces.values(), 1):
            ip(f"netns add {space}", f"netns delete {space}")
            ip(f"link add {mark}{i} type veth peer name eth0 netns {space}")
            ip(f"link set {mark}{i} master {mark}br up")
            for line in (f"addr add {NET}.{i}/24 dev eth0", "link set eth0 up", "link set lo up"):
                ip(f"-n {space} {line}")
            folder = Path("/etc/netns") / space
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(hosts)
        yield spaces


class Machine:
    """A party's namespace, and a folder there."""

    def __init__(self, space: str, folder: str, root: Path | None, spuvm: str) -> None:
        self.space, self.folder, self.root, self.spuvm = space, folder, root, spuvm

    def line(self, commands: str) -> list[str]:
        begin = f'set -eu -o pipefail; cd {self.folder}; spuvm() {{ {shlex.quote(self.spuvm)} "$@"; }}\n'
        inside = [] if self.root is None else ["chroot", str(self.root)]
        hosts = f"cp /etc/hosts {self.root}/etc/hosts; " if self.root is not None else ""
        run = shlex.join([*inside, "bash", "-c", begin + commands])
        return ["ip", "netns", "exec", self.space, "bash", "-c", f"{hosts}exec {run}"]


def follow(spaces: dict[str, str], home: str, root: Path | None, spuvm: str, ports: dict[str, str]) -> int:
    """Run all steps; how much there was to type."""
    machines = {p: Machine(space, f"{home}/{p}", root, spuvm) for p, space in spaces.items()}
    with ExitStack() as stack:
        for party, commands in steps():
            print(f"at {party}", flush=True)
            ours = named(commands, ports)
            subprocess.run(machines[party].line(ours.replace(SERVE, "")), check=True, timeout=LIMIT)
            if SERVE in ours:
                process = subprocess.Popen(machines[party].line(f"exec {shlex.quote(spuvm)} serve service.toml"))
                stack.callback(process.wait, 60)
                stack.callback(process.terminate)
    return sum(len(commands) for _, commands in steps())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="A system to run all of it in.")
    parser.add_argument("--spuvm", default=str(Path(sys.executable).with_name("spuvm")), help="The command there.")
    parser.add_argument("--page", action="store_true", help="Names for the addresses of pages, too.")
    parser.add_argument("--home", default="/tmp/spuvm-operate", help="A folder for the parties' files, made anew.")
    given = parser.parse_args()
    here = Path(f"{given.root or ''}{given.home}")
    shutil.rmtree(here, ignore_errors=True)
    for party in PARTIES:
        (here / party).mkdir(parents=True)
    start = time.monotonic()
    with namespaces() as spaces:
        typed = follow(spaces, given.home, given.root, given.spuvm, {**PORTS, **(PEOPLE if given.page else {})})
    print(f"{time.monotonic() - start:.0f} s; {typed:,} characters to type: {typed / 200:.1f} minutes at 200 a minute")
    import pyarrow.parquet

    joined = pyarrow.parquet.read_table(here / "alice" / "joined.parquet").to_pydict()
    print(joined)
    return int(joined != {"id": [2, 4], "age": [51, 63]})


if __name__ == "__main__":
    sys.exit(main())
