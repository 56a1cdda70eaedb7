"""What stages are made of beside ring arithmetic: the primitives of a choreography, and keystreams for masks."""
