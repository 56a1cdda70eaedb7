"""Flows: in, components on each other's outputs; out, their results, kept so that only what changed runs anew."""

from spuvm.flow import files as files
from spuvm.flow import grants as grants
from spuvm.flow import kinds as kinds
from spuvm.flow.components import Component as Component
from spuvm.flow.components import component as component
from spuvm.flow.components import find as find
from spuvm.flow.components import known as known
from spuvm.flow.graph import Flow as Flow
from spuvm.flow.kinds import Report as Report
from spuvm.flow.places import Places as Places
from spuvm.flow.run import NodeFailed as NodeFailed
from spuvm.flow.run import Run as Run
from spuvm.flow.run import run as run
from spuvm.flow.tuning import Range as Range
from spuvm.flow.tuning import Tuning as Tuning
from spuvm.flow.tuning import tune as tune
