"""Executes the PTX that Triton compiles, in NumPy: no GPU, but bounds, races and bank conflicts."""
