"""The whole pipeline, straight-line: a JAX function, or a saved program, to programs of the parties."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from spuvm.compiler import program_cache
from spuvm.compiler.cost import Cost, cost
from spuvm.compiler.expand import choreography as ch
from spuvm.compiler.expand.expand import expand
from spuvm.compiler.front.fingerprint import fingerprint
from spuvm.compiler.front.trace import Traced, trace
from spuvm.compiler.ir import text
from spuvm.compiler.ir.configuration import config_of as config_of
from spuvm.compiler.ir.module import Module, Visibility
from spuvm.compiler.leakage.statement import Statement, statement
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.compiler.passes.ranges import Ranges
from spuvm.compiler.project.project import project
from spuvm.compiler.quickest import weighed
from spuvm.compiler.seconds import Seconds, estimate
from spuvm.compiler.uncollected import uncollected
from spuvm.runtime.config import Config
from spuvm.runtime.engine.interpreter import Interpreted
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import PartyProgram, Straight, tasks_of
from spuvm.runtime.protocols.registered import protocol_of, rank_names


class Program:
    """A compiled program: its text is what the parties review, hash and agree on."""

    def __init__(self, module: Module, traced: Traced | None = None, name: str | None = None) -> None:
        """`name` is the fingerprint under which parts of it are kept on disk."""
        self.module = module
        self.traced = traced
        self._name = name
        self.config = config_of(module)
        self._parties: dict[int | None, PartyProgram] = {}
        self.large_from: float | None = None  # arguments of so many bits are looked at, see spuvm/overflows.py
        self.looked_at: tuple[int, ...] = ()  # sizes of arguments that were looked at for overflows, in bits

    @cached_property
    def text(self) -> str:
        """The MPC IR as text; `parse` reads it back."""
        return text.to_text(self.module)

    @cached_property
    def hash(self) -> str:
        """Hexadecimal SHA-256 that parties with the same program agree on."""
        return text.program_hash(self.module)

    @cached_property
    def choreography(self) -> ch.Choreography:
        return expand(self.module, protocol_of(self.config), weighed(self.config.optimize))

    @cached_property
    def cost(self) -> Cost:
        """Rounds and bytes of one run."""
        found = cost(self.choreography, rank_names(self.config))
        found.timed = self._seconds
        return found

    def _seconds(self, link: str) -> Seconds:
        parts = [self.party(rank) for rank in range(len(rank_names(self.config)))]
        return estimate(parts, self.cost.rounds, self.cost.bytes_sent.tolist(), link)

    @cached_property
    def learns(self) -> Statement:
        """What each party learns: what the program reveals to it; that all else says nothing is proved."""
        return statement(self.choreography, protocol_of(self.config), rank_names(self.config))

    def party(self, rank: int | None) -> PartyProgram:
        """The program of one party; of None, the simulator's."""
        if rank not in self._parties:
            with uncollected():
                self._parties[rank] = self._kept(rank) or self._projected(rank)
        return self._parties[rank]

    def _kept(self, rank: int | None) -> PartyProgram | None:
        return None if self._name is None else program_cache.read_party(self._name, rank)

    def _projected(self, rank: int | None) -> PartyProgram:
        program = project(self.choreography, rank, (self.module.inputs, self.module.outputs))
        if self._name is not None:
            program_cache.write_party(self._name, rank, program)
        return program

    def save(self, path: str | Path) -> None:
        """Write the text to a file, replacing it."""
        Path(path).write_bytes(self.text.encode())

    def emit(self, stage: str) -> str:
        """The program at a stage of the pipeline: jaxpr, ir, choreography, stages or bytecode."""
        if stage not in STAGES:
            raise InputError(f"`emit` must be one of {', '.join(STAGES)}, got {stage!r}.")
        return STAGES[stage](self)

    def __repr__(self) -> str:
        return f"<Program {self.module.name} {self.config.protocol}/{self.config.ring_bits} {self.hash[:12]}>"


def compile_function(
    fn: Callable[..., Any],
    args: Sequence[Any],
    visibilities: Sequence[Visibility],
    config: Config,
    static_argnums: int | Sequence[int] = (),
    masked: Collection[int] = (),
    keywords: Mapping[str, Any] | None = None,
    static_argnames: Collection[str] = (),
    finer: Sequence[int] = (),
    bounds: Sequence[float | None] = (),
    keeps_scales: bool = False,
    guard: bool = False,
    missing: Collection[int] = (),
    ranges: Ranges | None = None,
) -> Program:
    """Trace, lower, improve. Expansion and projection follow when first asked for.

    `masked` are the positions of private inputs that are masked already. Inputs by keyword follow those by position, in
    the order of their names. `finer` are fraction bits that inputs have beyond the default, `bounds` what is stated of
    their magnitudes; with `keeps_scales` secret results may have more fraction bits, too. With `guard` one bit is
    opened before anything is revealed, which says whether a number left the ring (see `passes.guard`). Inputs at
    `missing` may be NaN: each has a bool of its own, behind all inputs. `ranges` are those that scales are fitted to.
    What another process has compiled before is read from disk (see `kept`).
    """
    protocol_of(config)
    traced = trace(fn, args, static_argnums, keywords, static_argnames)
    name = fingerprint(traced, visibilities, config, masked, finer, bounds, keeps_scales, guard, missing, ranges)
    found = program_cache.read_module(name)
    if found is not None:
        program = Program(found[0], traced, name)
        program.hash = found[1]
        return program
    with uncollected():
        module = _module(traced, visibilities, config, masked, finer, bounds, keeps_scales, guard, missing, ranges)
    program = Program(module, traced, name)
    program_cache.write_module(name, module, program.hash)
    return program


def _module(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    masked: Collection[int],
    finer: Sequence[int],
    bounds: Sequence[float | None],
    keeps_scales: bool,
    guard: bool,
    missing: Collection[int],
    ranges: Ranges | None,
) -> Module:
    """Lower, improve."""
    module = lower(traced, visibilities, config, masked=masked, missing=missing, price=_price)
    module.finer, module.keeps_scales = tuple(finer), keeps_scales
    module.bounds = (*bounds, *[None] * (len(missing) if bounds else 0))
    module.guard = guard
    if ranges is not None:
        ranges.apply(module)
    run_passes(module)
    return module


def _price(module: Module) -> tuple[int, int]:
    """Rounds of a piece of IR, and bytes of the party that sends most."""
    run_passes(module)
    found = Program(module).cost
    return found.rounds, int(found.bytes_sent.max(initial=0))


def load(path: str | Path) -> Program:
    """A program saved by `Program.save`."""
    try:
        source = Path(path).read_bytes().decode()  # as it is: no line end is translated
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"cannot read the program {path}: {e}") from None
    return Program(text.parse(source))


def _jaxpr(program: Program) -> str:
    if program.traced is None:
        raise InputError("a loaded program has no jaxpr: it was saved as IR. Emit `ir` instead.")
    return str(program.traced.jaxpr) + "\n"


def _stages(program: Program) -> str:
    """Per party: its rounds, the tasks of each, and what it sends."""
    lines = []
    names = rank_names(program.config)
    for rank, name in enumerate(names):
        lines.append(f"party {name}")
        steps = program.party(rank).block.steps
        for number, step in enumerate(steps):
            if not isinstance(step, Straight):
                lines.append(f"  step {number}: {type(step).__name__}")
                continue
            for index, round_ in enumerate(step.rounds):
                lines.append(f"  step {number} round {index}")
                lines += [
                    f"    {t.op} {t.location} {_registers(t.inputs)} -> {_registers(t.outputs)}" for t in round_.tasks
                ]
                for peer, messages in round_.sends.items():
                    lines.append(f"    send {sum(m.nbytes for m in messages):,} bytes to {names[peer]}")
    return "\n".join(lines) + "\n"


def _bytecode(program: Program) -> str:
    """The code of each stage of the simulated program, as the vector engine runs it."""
    parts, seen = [], set()
    for task in tasks_of(program.party(None).block):
        for length, stage in task.stages.items():
            found = stage.load()
            if id(found) not in seen:
                seen.add(id(found))
                of = f" of {length} elements" if length else ""
                left = "by XLA: the engine lacks an operation, or `SPUVM_ENGINE` is xla"
                code = str(found.code) if isinstance(found, Interpreted) else left
                parts.append(f"stage {task.op} {task.location}{of}\n{code}\n")
    return "\n".join(parts)


def _registers(numbers: Sequence[int]) -> str:
    return " ".join(f"r{n}" for n in numbers)


STAGES: dict[str, Callable[[Program], str]] = {
    "jaxpr": _jaxpr,
    "ir": lambda program: program.text,
    "choreography": lambda program: ch.to_text(program.choreography),
    "stages": _stages,
    "bytecode": _bytecode,
}
