"""``python -m digitgan`` is the same as ``digitgan``."""

import os
import signal
import sys

# In a container the kernel keeps signals without a handler from process 1, and the imports below take a while.
if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

from digitgan.cli import main

if __name__ == "__main__":
    main()
