"""The machine: protocols, links, executors. Imports nothing of the compiler or the interface."""
