"""The components that come with spuvm: in, values of a flow's kinds; out, the same, each by a few lines over a library."""
