"""Ring-LWE as protocols and devices use it: in, random words and coefficients; out, ciphertexts to add and multiply."""
