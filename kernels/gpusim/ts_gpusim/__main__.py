# SPDX-License-Identifier: MIT
"""`python -m ts_gpusim`."""

import sys

from ts_gpusim.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
