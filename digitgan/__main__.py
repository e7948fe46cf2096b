"""``python -m digitgan`` is the same as ``digitgan``."""

from digitgan.cli import main

if __name__ == "__main__":
    main()
