"""The process and its machine: ranks, devices, memory, console, files, seeds, signals."""
