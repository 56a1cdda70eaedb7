"""A program beside its truth in float64: where they part, and why."""
