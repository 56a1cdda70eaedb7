"""From a JAX function to one program per party. Imports the runtime, never the interface."""
