"""``python -m digitgan`` is the same as ``digitgan``."""

import os
import sys

# Python puts the current folder first on the import path, where a user's queue.py would hide the library's.
if sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH109, PTH120
    del sys.path[0]

import signal

# In a container the kernel keeps signals without a handler from process 1, and the imports below take a while.
if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

from digitgan.cli import main

if __name__ == "__main__":
    main()
