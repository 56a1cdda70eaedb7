"""Federated learning: in, parties' own data and a loss in plain JAX; out, a model, and of its updates only sums."""

from spuvm.fed.aggregates import Rule as Rule
from spuvm.fed.aggregates import clipped as clipped
from spuvm.fed.aggregates import krum as krum
from spuvm.fed.aggregates import median as median
from spuvm.fed.aggregates import trimmed as trimmed
from spuvm.fed.compressing import RandomK as RandomK
from spuvm.fed.compressing import TopK as TopK
from spuvm.fed.compressing import random_k as random_k
from spuvm.fed.compressing import top_k as top_k
from spuvm.fed.low_rank import LowRank as LowRank
from spuvm.fed.low_rank import low_rank as low_rank
from spuvm.fed.model import Model as Model
from spuvm.fed.private import Private as Private
from spuvm.fed.sketching import Sketch as Sketch
from spuvm.fed.sketching import sketch as sketch
from spuvm.fed.split import SplitModel as SplitModel
from spuvm.fed.split import split as split
from spuvm.fed.strategies import STRATEGIES as STRATEGIES
from spuvm.fed.strategies import Strategy as Strategy
from spuvm.fed.strategies import strategy as strategy
from spuvm.fed.train import train as train
