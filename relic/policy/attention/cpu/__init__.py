"""Compiled attention kernels for the CPU."""
