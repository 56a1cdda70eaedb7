"""Arithmetic of words of 32, 64 and 128 bits: in and out, arrays of ring elements; in XLA or by native kernels."""
