"""Helpers outside of the machine itself."""

from spuvm.utils import testing as testing
