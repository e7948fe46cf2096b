"""The embedded model server: TensorFlow Serving's gRPC API in Python, on OpenVINO."""
