"""The commands of `spuvm`, one file each."""

from spuvm.commands.group import cli as cli
