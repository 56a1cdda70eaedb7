"""In, the user's function; out, a jaxpr with names, pytrees and source lines."""
