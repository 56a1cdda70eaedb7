"""Row blocks of files of any length through a jitted function."""
