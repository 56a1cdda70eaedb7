"""Non-linear functions on the IR, a file each: meaning, stated error, ways to compute it."""
