"""Oblivious transfer between two parties: in, a link and draws of correlated streams; out, each party's components."""
