"""`spuvm bench`: operations timed at a size, simulated and networked, beside a peer."""

from spuvm.bench.command import bench as bench
