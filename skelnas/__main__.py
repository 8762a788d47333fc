"""`python -m skelnas` is the same as `skelnas`."""

from skelnas.cli import main

main()
