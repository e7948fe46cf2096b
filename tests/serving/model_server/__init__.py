"""The model server's suite, written against TensorFlow Serving's API and its official stubs only.

It runs on TensorFlow Serving or on the embedded server (tests/support/servers.py). What is particular to the
embedded server is tested in tests/serving/model_server/embedded.
"""
