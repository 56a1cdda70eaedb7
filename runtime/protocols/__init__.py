"""In, sharings; out, kernels that compute on them. A protocol is a file, or a folder where it has many kernels."""
