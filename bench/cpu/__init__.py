"""Compiled kernels for a CPU, behind one call."""
