"""What the embedded model server's engines need."""

from typing import Final

from digitgan.errors import require
from serving.model_server.engines import Engine

_EXTRAS: Final = {Engine.OPENVINO: "model-server", Engine.TENSORFLOW: "model-server-tensorflow"}


def require_engine(engine: Engine) -> None:
    """Raises UserError where the model server, or what this engine runs on, isn't installed."""
    require(_EXTRAS[engine], engine.value, "google_crc32c", "grpc_health")
