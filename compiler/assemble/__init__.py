"""Stages become bytecode: the equations of a stage in, a program of the vector engine out."""
