"""What takes minutes: ``make test-slow``. ``make test`` leaves this folder out."""
