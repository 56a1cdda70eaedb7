"""What is compiled once and kept on disk."""
