"""In, buffers of a round; out, the same buffers at other parties, and what that cost."""
