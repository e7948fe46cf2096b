"""A whole service in threads of this process, for a command that has no gateway."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from digitgan.errors import require

OWN_MODEL_SERVER: Final[dict[str, Any]] = {  # whatever the environment says of a model server elsewhere
    "model_server": "unix:",
    **dict.fromkeys(("model_server_tls_ca", "model_server_tls_cert", "model_server_tls_key")),
}


@contextmanager
def local_service(models: Path) -> Iterator[str]:
    """Gives the URL of a service that ends with the block. It still loads the models in the base directory ``models``.

    It needs no API key, whatever the environment says: only this process knows the address. Raises UserError if a part
    isn't installed, a setting is wrong, or a model cannot be loaded.
    """
    require("gateway")
    require("model-server")
    import uvicorn

    from api.app import create_app
    from api.settings import load_settings
    from serving.model_server.in_process import running_models
    from serving.tf_serving import model_config

    settings = load_settings(**OWN_MODEL_SERVER, models_dir=models, api_keys="")
    with (
        running_models(model_config.from_directory(models)) as transport,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        app = create_app(settings, transport)
        server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="on", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
