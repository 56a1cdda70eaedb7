"""Every primitive, type, visibility, shape, protocol and ring, against JAX in the clear; and the documents from it."""
