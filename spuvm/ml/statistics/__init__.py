"""Statistics: columns of any form come in; the numbers asked for go out, revealed to all parties, and nothing else."""
