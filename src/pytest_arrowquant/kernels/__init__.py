"""Compiled loops: 2-D arrays in, arrays filled. No validation, no shapes, only scratch memory.

A kernel calls only kernels of its own file and reads only constants of its own file: numba's
disk cache watches the calling file alone, so a helper edited elsewhere would be served stale.
"""
