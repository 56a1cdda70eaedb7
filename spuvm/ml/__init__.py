"""Learning on data of several parties."""

from spuvm.ml.sgb import Sgb as Sgb
from spuvm.ml.sgb import load as load
