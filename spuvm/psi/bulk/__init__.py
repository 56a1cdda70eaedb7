"""Intersections of any size: in, files of the owners; out, files of the rows that match, in bounded memory."""
