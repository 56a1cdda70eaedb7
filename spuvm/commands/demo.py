"""`spuvm demo`: three processes train a model on three hospitals' files, over mutual TLS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from spuvm.network import tied
from spuvm.runtime.errors import InputError

CHECKOUT = Path(__file__).resolve().parent.parent.parent / "examples" / "hospitals"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default="spuvm-demo", show_default=True, help="Made here.")
@click.option("--simulate", is_flag=True, help="All parties in one process.")
def demo(folder: Path, simulate: bool) -> int:
    """Train a logistic regression on three hospitals' data, each in a process of its own.

    \b
        spuvm demo
        spuvm demo --folder hospitals --simulate

    Writes one Parquet file a hospital below FOLDER, and what carol is shown in the end: the risks of the patients held
    out. The scripts are those of examples/hospitals.
    """
    scripts = where()
    data, output = folder / "data", folder / "predictions.parquet"
    how = [] if simulate else ["--network"]
    preparing, training = ["--data", str(data)], [*how, "--data", str(data), "--output", str(output)]
    for script, arguments in (("prepare.py", preparing), ("train.py", training)):
        ran = subprocess.run(tied([sys.executable, str(scripts / script), *arguments]), check=False)
        if ran.returncode:
            return ran.returncode
    return 0


def where() -> Path:
    """The folder of the scripts: in an installed package, or a checkout."""
    installed = Path(__file__).resolve().parent.parent / "demo"
    for place in (installed, CHECKOUT):
        if (place / "train.py").is_file():
            return place
    raise InputError("the scripts of the demo are not installed: install spuvm from its wheel.")
