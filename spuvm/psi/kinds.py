"""Kinds of join, and the sides of each on which a key may be in several rows."""

KINDS = ("inner", "left", "right", "full", "semi", "anti", "union")
MANY = {"inner": (0, 1), "left": (0,), "semi": (0, 1), "anti": (0, 1), "right": (1,)}  # sides whose keys may repeat
