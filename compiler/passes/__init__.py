"""In, IR; out, better IR."""
