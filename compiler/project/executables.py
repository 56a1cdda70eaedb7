"""Stages that can run: in memory by key, on disk by key, else assembled or compiled now.

A stage is bytecode for the vector engine, or, if it has an operation that the engine lacks or XLA is asked for,
compiled by XLA. The code of an element-wise stage is that of one unit of elements, the same for every length. One that
has run long enough on wide arrays gets machine code, made beside the work: by LLVM, or where llvmlite is not, by XLA.
Where a device is named (`engine.device`) it is compiled for that one, its products of matrices by limbs.

On disk an entry `KEY` names the entry that holds what was compiled, by the text of its module: stages of
different parties, and of different programs, are often the same. Several threads may ask: whoever wants
what another is just compiling waits for it.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import jax
from jax.experimental import serialize_executable

from spuvm.compiler.assemble.assemble import assemble
from spuvm.compiler.assemble.values import Unsupported
from spuvm.compiler.cache import disk
from spuvm.compiler.cache.recent import Recent
from spuvm.compiler.fuse import llvm
from spuvm.compiler.project import machine_code
from spuvm.compiler.project.elsewhere import elsewhere
from spuvm.compiler.project.kernel_plan import StagePlan
from spuvm.runtime.engine import device, tier
from spuvm.runtime.engine.check import check
from spuvm.runtime.engine.code import Code
from spuvm.runtime.engine.interpreter import EARNED, Interpreted
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.ring import native
from spuvm.runtime.ring.limbs import limbs_for

Executable = Callable[..., Sequence[Any]]  # an `Interpreted`, or XLA's

# Circuits run 1.5 times faster on registers of 512 bits; processors without them take what they have.
OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}

NAME = re.compile(rb"[0-9a-f]{32}\.stage")

_LOADED: Recent[str, Executable] = Recent()
_INTERPRETED: dict[str, Interpreted | None] = {}  # None: the engine lacks an operation
_FUSED: dict[str, Interpreted | None] = {}  # with machine code; None: it would not gain by it
_PROMOTED: Recent[str, Future[Executable | None]] = Recent()
_BESIDE = ThreadPoolExecutor(1, "compile beside")
_BUSY: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by key, and by the module's text
compiled_count = 0  # how many stages this process compiled, for tests of the cache
assembled_count = 0
left_to_xla: Counter[str] = Counter()  # what the engine lacks, and for how many stages of this process


class StageMissing(Exception):
    """A stage that is known by its key alone is not on disk."""


@dataclass(frozen=True)
class StageLoader:
    """Gives the stage ready to run, making it the first time that anyone asks.

    `stage` is None in a program that was read from disk: such a stage cannot be made. `unit` is the key, and
    `unit_stage` the plan, of an element-wise stage at one unit of elements.
    """

    key: str
    inputs: int
    outputs: int
    stage: StagePlan | None
    unit: str = ""
    unit_stage: StagePlan | None = None

    def __call__(self) -> Executable:
        wanted = tier.current()
        found = None if wanted == "xla" else self.engine()
        if found is None:
            return self._for_xla()
        if wanted == "llvm":
            return self._machine_code(found) or found
        return self._promoted(found) if found.seconds and self._earned(found) else found

    def _earned(self, found: Interpreted) -> bool:
        return found.seconds >= EARNED or machine_code.on_disk(self.unit)

    def _promoted(self, found: Interpreted) -> Executable:
        """What ran long enough on wide arrays is compiled beside the work, and then takes its place."""
        done = _PROMOTED.use(self.key)
        if done is None:
            done = _PROMOTED.keep(self.key, _BESIDE.submit(self._compiled_beside, found))
        return done.result() or found if done.done() else found

    def _compiled_beside(self, found: Interpreted) -> Executable | None:
        try:
            return self._machine_code(found) if llvm.binding() is not None else self._for_xla()
        except StageMissing:  # a program from disk: the engine goes on
            return None

    def _machine_code(self, found: Interpreted) -> Interpreted | None:
        name = self.unit or self.key
        if name not in _FUSED:
            with _BUSY[name + ".machine"]:
                if name not in _FUSED:
                    _FUSED[name] = machine_code.machine_code(name, found.code)
        return _FUSED[name]

    def __reduce__(self) -> Any:
        return StageLoader, (self.key, self.inputs, self.outputs, None, self.unit)

    # the vector engine -------------------------------------------------------------------------------

    def engine(self) -> Interpreted | None:
        """For the engine, with machine code if that is there by now; None if it lacks an operation."""
        found = self._interpreted(self.unit, self.unit_stage, scales=True) if self.unit else None
        found = found or self._interpreted(self.key, self.stage, scales=False)
        return found and (_FUSED.get(self.unit or self.key) or found)

    def settled(self) -> bool:
        """Whether `engine` gives what it will always give: with machine code, or without if nothing is gained by it."""
        return (self.unit or self.key) in _FUSED or llvm.binding() is None

    def settle(self) -> None:
        """Have machine code made beside the work."""
        found = self.engine()
        if found is not None and _PROMOTED.use(self.key) is None:
            _PROMOTED.keep(self.key, _BESIDE.submit(self._compiled_beside, found))

    def _interpreted(self, key: str, stage: StagePlan | None, *, scales: bool) -> Interpreted | None:
        name = f"{key}.code"
        if name in _INTERPRETED:
            return _INTERPRETED[name]
        with _BUSY[name]:
            if name not in _INTERPRETED:
                code = _stored_code(name)
                if code is None:
                    code = _assembled(key, stage, scales=scales)
                    disk.write(name, pickle.dumps(code, pickle.HIGHEST_PROTOCOL))
                if isinstance(code, str):
                    left_to_xla[code] += 1
                _INTERPRETED[name] = Interpreted(code) if isinstance(code, Code) else None
        return _INTERPRETED[name]

    # XLA ---------------------------------------------------------------------------------------------

    def _for_xla(self) -> Executable:
        place = _Place.now()
        key = self.key + place.suffix
        found = _LOADED.use(key)
        if found is None:
            with _BUSY[key]:
                made = _LOADED.use(key) or self._from_disk(key, place) or self._compiled(key, place)
                found = _LOADED.keep(key, made)
        return found

    def _from_disk(self, key: str, place: _Place) -> Executable | None:
        name = disk.read(key)
        return self._loaded(name.decode(), place) if name is not None and NAME.fullmatch(name) else None

    def _loaded(self, name: str, place: _Place) -> Executable | None:
        content = disk.read(name)
        if content is None:
            return None
        native.register()
        inputs = jax.tree.structure(((0,) * self.inputs, {}))
        outputs = jax.tree.structure([0] * self.outputs)
        try:
            loaded: Executable = place.loaded(content, inputs, outputs)
        except Exception:  # whatever is wrong with an entry, compiling anew puts it right
            return None
        return place.runs(loaded)

    def _compiled(self, key: str, place: _Place) -> Executable:
        global compiled_count
        if self.stage is None:
            raise StageMissing(self.key)
        function = place.function(self.stage)

        def stage(*args: Any) -> Sequence[Any]:  # one name for all: it is part of the module's text
            return function(*args)

        with jax.enable_x64(True), jax.default_device(place.device):
            lowered = jax.jit(stage).lower(*self.stage.avals)
            text = lowered.as_text() + place.suffix
            name = hashlib.sha256(text.encode()).hexdigest()[:32] + ".stage"
            with _BUSY[name]:
                found = self._loaded(name, place)
                if found is None:
                    compiled_count += 1
                    made = lowered.compile(compiler_options=place.options)
                    found = place.runs(made)
                    try:
                        content, _, _ = serialize_executable.serialize(made)
                    except (ValueError, NotImplementedError):  # this kind of executable cannot be stored
                        return found
                    disk.write(name, content)
        disk.write(key, name.encode())
        return found


@dataclass(frozen=True)
class _Place:
    """Where a stage runs by XLA: on this machine's processor, or on a device that was `asked` for."""

    device: Any
    asked: bool

    @classmethod
    def now(cls) -> _Place:
        name = device.wanted()
        return cls(device.processor(), False) if name is None else cls(device.found(name), True)

    @property
    def far(self) -> bool:
        """Whether it is another one than the processor, on which arrays of NumPy's lie."""
        return self.asked and self.device != jax.devices("cpu")[0]

    @property
    def suffix(self) -> str:
        """Of the keys of what is compiled for it."""
        d = self.device
        return f"@{re.sub('[^a-zA-Z0-9]', '-', d.device_kind)}-{d.platform}-{d.id}" if self.far else ""

    @property
    def options(self) -> dict[str, Any]:
        return OPTIONS if self.device.platform == "cpu" else {}

    def function(self, stage: StagePlan) -> Callable[..., Sequence[Any]]:
        return elsewhere(stage.function, limbs_for(self.device.platform)) if self.far else stage.function

    def loaded(self, content: bytes, inputs: Any, outputs: Any) -> Executable:
        if not self.far:
            return cast(Executable, serialize_executable.deserialize_and_load(content, inputs, outputs))
        client, only = self.device.client, [self.device]
        return cast(Executable, serialize_executable.deserialize_and_load(content, inputs, outputs, client, only))

    def runs(self, compiled: Executable) -> Executable:
        """What takes arrays wherever they are."""
        if not self.far:
            return compiled

        def run(*arrays: Any) -> Sequence[Any]:
            return compiled(*(jax.device_put(x, self.device) for x in arrays))

        return run


def _stored_code(name: str) -> Code | str | None:
    """What is on disk: code that passes its checks, or what the engine lacks."""
    content = disk.read(name)
    if content is None:
        return None
    try:  # the folder is this user's alone, see `disk`
        found = pickle.loads(content)
        if isinstance(found, Code):
            check(found)
    except Exception:  # whatever is wrong with an entry, making it anew puts it right
        return None
    return found if isinstance(found, (Code, str)) else None


def _assembled(key: str, stage: StagePlan | None, *, scales: bool) -> Code | str:
    """The stage's code, or what the engine lacks for it."""
    global assembled_count
    if stage is None:
        raise StageMissing(key)
    first = len(stage.avals) - len(stage.randoms)
    streams = [False] * first + [r.dtype != PERMUTATION for r in stage.randoms]
    with jax.enable_x64(True):
        equations = stage.function.equations()
    try:
        code = assemble(equations, (), streams, scales=scales)
    except Unsupported as lack:
        return str(lack)
    assembled_count += 1
    return code


def stage_loader(
    key: str, stage: StagePlan, unit: str = "", unit_stage: StagePlan | None = None
) -> Callable[[], Executable]:
    return StageLoader(key, len(stage.avals), len(stage.outputs), stage, unit, unit_stage)
