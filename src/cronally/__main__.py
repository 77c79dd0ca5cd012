"""``python -m cronally``."""

import sys

from cronally.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
