"""`python -m spuvm` is the command `spuvm`."""

from spuvm.cli import main

main()
