"""Tables of several parties: vertical and horizontal frames."""
