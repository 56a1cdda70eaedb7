"""In, a party's program and its components; out, components of the results."""
