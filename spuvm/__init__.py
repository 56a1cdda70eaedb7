"""Secure multi-party computation, compiled by JAX."""
