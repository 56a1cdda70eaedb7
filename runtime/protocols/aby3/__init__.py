"""ABY3: the protocol and its kernels; each file is one construction."""
