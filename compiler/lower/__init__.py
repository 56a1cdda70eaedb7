"""In, a jaxpr; out, MPC IR. One dict RULES for each family of primitives."""
