"""What may become of a job, from its asking to its end."""

STATES = ("waiting", "approved", "running", "done", "failed", "refused", "cancelled")
ENDED = ("done", "failed", "refused", "cancelled")
