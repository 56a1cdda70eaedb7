"""Survival: times and events of several parties' rows come in; curves, tests and hazards go out."""
