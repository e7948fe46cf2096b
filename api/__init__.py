"""The HTTP gateway: FastAPI routes that turn seeds into PNG digits and images into scores."""
