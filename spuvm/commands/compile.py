"""`spuvm compile`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from spuvm.commands.options import function_options
from spuvm.commands.programs import Options, program_of
from spuvm.commands.results import who
from spuvm.commands.reveals import reveals
from spuvm.commands.terminal import say
from spuvm.compiler.compile import STAGES, Program
from spuvm.data.targets import check_target, replacing
from spuvm.runtime.errors import InputError


@click.command(name="compile")
@click.argument("target", metavar="FILE.py:FUNCTION")
@function_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The program to write, f.spux.")
@click.option("--emit", type=click.Choice(list(STAGES)), help="Print the program as it is at a stage.")
@click.option(
    "--calibrate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="SAMPLE.npz",
    help="Public or synthetic arrays, by argument: scales are fitted to their ranges, which all parties see.",
)
@click.option("--force", is_flag=True, help="Replace a file that is no program of spuvm.")
def compile_(
    target: str, output: Path | None, emit: str | None, calibrate: Path | None, force: bool, **options: Any
) -> None:
    """Compile a JAX function for secret-shared arguments.

    The result is a text that the parties can read, and of which they compare the hash before
    they run it. Each argument has a type and an owner; a program whose inputs all have owners
    (or are public) can be run by separate parties, one with secret inputs only in simulation.

    \b
      spuvm compile train.py:train --arg 'f32[569,30]@alice' --arg 'f32[569]@carol' \\
                    --static epochs=10 -o train.spux
      spuvm compile train.py:train --arg 'f32[8]' --emit ir
      spuvm compile train.py:train --arg 'f32[8]' --calibrate sample.npz -o train.spux
      spuvm compile train.spux --emit choreography

    A parameter that has a default keeps it unless an argument is given.
    """
    if output is None and emit is None:
        raise InputError("say where to write the program, `-o f.spux`, or what to print, `--emit ir`.")
    if output is not None:
        _check(output, force)
    program = program_of(target, Options(**options), sample=None if calibrate is None else _sample(calibrate))
    if emit is not None:
        click.echo(program.emit(emit), nl=False)
    if output is not None:
        with replacing(output, force=True) as temporary:
            program.save(temporary)
        _describe(program, output)


def _sample(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file of arrays, by the names of the arguments: {error}.") from None


def _check(output: Path, force: bool) -> None:
    if output.suffix != ".spux":
        raise InputError(f"{output}: a program's name ends in .spux.")
    check_target(output, force=True, formats=())
    if output.is_file() and not force:
        with output.open("rb") as file:
            if file.read(5) not in (b"spux ", b""):
                raise InputError(f"{output} is there already and no program of spuvm: `--force` replaces it.")


def _describe(program: Program, output: Path) -> None:
    say(f"wrote {output}: {program!r}")
    say(f"  hash {program.hash}")
    module = program.module
    for word, names, dtypes, values in (
        ("takes", module.inputs, module.input_dtypes, module.body.params),
        ("gives", module.outputs, module.output_dtypes, module.body.results),
    ):
        for name, dtype, value in zip(names, dtypes, values):
            dims = ",".join(map(str, value.shape))
            say(f"  {word} {name} {dtype}[{dims}] {who(value.type, program.config.members)}")
    if module.ranges:
        say(f"  fitted to the ranges of a sample, {len(module.ranges)} lines of the program that all parties see")
    for line in reveals(program):
        say(f"  {line}")
