"""A transformer's cached step on the CPU, by compiled kernels and products of matrices."""
