"""What is particular to the embedded server: how it batches, starts and stops, and where it goes its own way."""
