"""Hosting the models: the contract, the gRPC messages, the client, and the embedded model server."""
