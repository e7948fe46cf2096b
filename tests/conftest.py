"""What every test shares."""

pytest_plugins = ["tests.model_server.option"]
