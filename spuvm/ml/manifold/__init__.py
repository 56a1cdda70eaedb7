"""Rows in few dimensions, by their neighbours: features in, secret coordinates out."""
