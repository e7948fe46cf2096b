"""The model server's suite, written against TensorFlow Serving's API with its official stubs.

It runs on TensorFlow Serving or on the embedded server (tests/conftest.py). What is particular to the embedded server
is tested in test_embedded.py.
"""
