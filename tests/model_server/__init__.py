"""The model server's suite, written against TensorFlow Serving's API and its official stubs only.

It runs on the embedded server, and with ``--model-server=/path/to/tensorflow_model_server`` on that program. What is
particular to the embedded server is tested in tests/model_server/embedded, whatever the option says.
"""
