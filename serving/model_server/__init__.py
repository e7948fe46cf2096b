"""The embedded model server: TensorFlow Serving's gRPC API in Python, on one of several engines."""
