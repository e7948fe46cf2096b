"""What the embedded model server serves, where, and how."""

from dataclasses import dataclass
from pathlib import Path

from serving.contract import BATCH_SIZES
from serving.tf_serving.model_config import ModelConfig
from serving.tf_serving.server_config import GRPC_MAX_THREADS


@dataclass(frozen=True)
class ServerOptions:
    """The options of a server. Those that TensorFlow Serving has too are named as there.

    ``models`` come from ``serving.tf_serving.model_config``: ``read`` a models.config, or ``from_directory``.
    """

    models: tuple[ModelConfig, ...]
    address: str = "127.0.0.1:0"
    """``host:port``, with the port 0 for any that is free, or ``unix:/path``."""
    model_config_file: Path | None = None
    """Where ``models`` come from, for ``model_config_file_poll_wait_seconds``."""
    model_config_file_poll_wait_seconds: float = 0.0
    """How often the file is read again; 0 means never."""
    file_system_poll_wait_seconds: float = 1.0
    """How often new versions are looked for."""
    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60.0
    require_model_cards: bool = False
    """Whether a version without a model card is refused."""
    max_batch_size: int | None = BATCH_SIZES[-1]
    """Rows that a request may have. None: any number, and rows are run as they come, not filled up."""
    threads: int = 0
    """How many OpenVINO uses; 0: one for each CPU."""
    grpc_max_threads: int = GRPC_MAX_THREADS
    """Calls handled at once, those that wait included; more are refused with RESOURCE_EXHAUSTED."""
    grpc_channel_arguments: tuple[tuple[str, int | str], ...] = ()
    """Options of gRPC's server, such as ``grpc.max_connection_age_ms``."""
    shutdown_grace_seconds: float = 5.0
    """How long a stop waits for calls in progress before it cancels them."""
