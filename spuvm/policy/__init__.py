"""What owners allow and what anybody learns: in, a program or a request; out, a decision with its reasons, a record."""
