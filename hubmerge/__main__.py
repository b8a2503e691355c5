"""`python -m hubmerge`."""

from __future__ import annotations

import sys

from hubmerge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
