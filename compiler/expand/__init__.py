"""In, IR; out, the choreography: calls of the protocol's kernels."""
