"""The embedded model server: TensorFlow Serving's gRPC API on the TensorFlow runtime, in Python."""
