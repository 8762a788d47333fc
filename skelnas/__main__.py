"""Where the program starts: `skelnas`, and `python -m skelnas`, which is the same.

Nothing is imported before Ctrl-C is expected, so that it ends with a word at any moment.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from skelnas.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("skelnas: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
