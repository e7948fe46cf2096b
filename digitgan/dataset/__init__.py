"""``digitgan dataset``: thousands of labelled digits, the same ones every time (``docs/datasets.md``)."""
