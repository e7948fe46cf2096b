"""The gateway's settings: read once from the environment, checked, and handed in (``docs/reference.md``)."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import grpc
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.middleware.keys import keys_of
from serving.errors import UserError
from serving.tf_serving.tls import read_credentials

PREFIX = "DIGITGAN_"


def _grpc_target(target: str) -> str:
    if target.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return target
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError("should be host:port, dns:///name:port, unix:/path or ipv4:address:port,…")
    return target


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(text.replace(",", " ").split())
    for origin in found:
        scheme, _, host = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not host or set(host) & set("/?#@")):
            raise ValueError("should be origins like https://example.org, separated by commas, or *")
    return found


def _with_opentelemetry(tracing: bool) -> bool:
    if tracing:
        try:
            import_module("api.telemetry.tracing")
        except ImportError as error:
            raise ValueError("needs OpenTelemetry: pip install 'digitgan[otel]'") from error
    return tracing


class Settings(BaseSettings):
    """All that can be set. A variable's name is ``DIGITGAN_`` and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        validate_default=False,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    model_server: Annotated[str, AfterValidator(_grpc_target)] = "127.0.0.1:8500"
    """The model server's gRPC address: `host:port`, `dns:///name:port`, `unix:/path`, or several:
    `ipv4:address:port,address:port`."""
    version_label: str | None = None
    """The label in `models.config`, such as `stable`, of the version that serves by default. Without a label, it is the
    newest."""
    model_server_tls_ca: Path | None = None
    """For TLS to the model server: a PEM file with its certificate authorities."""
    model_server_tls_cert: Path | None = None
    """For mutual TLS: a PEM file with the gateway's own certificate."""
    model_server_tls_key: Path | None = None
    """For mutual TLS: a PEM file with that certificate's private key."""
    models_dir: Path | None = None
    """A directory with `<model>/<version>/model.json`, for the model cards in `GET /models`."""
    request_timeout_s: float = Field(10.0, gt=0, le=3600)
    """Seconds for a request, or for each batch of a stream. The header `Request-Timeout` can lower it."""
    max_images_in_flight: int = Field(512, ge=1, le=2**20)
    """The most images in progress, for small requests (up to 64 images) and for large ones each
    ([security.md](security.md#load))."""
    ready_timeout_s: float = Field(1.0, gt=0, le=60)
    """Seconds for the model server's answer about the states of its models."""
    shutdown_delay_s: float = Field(0.0, ge=0, le=600)
    """Seconds from becoming unready on SIGTERM to refusing connections."""
    shutdown_timeout_s: int = Field(30, ge=1, le=3600)
    """Seconds that requests in progress then have to finish."""
    max_body_bytes: int = Field(8 * 2**20, ge=1024)
    """The largest request body."""
    max_images: int = Field(4096, ge=1, le=2**20)
    """The most images in one answer as JSON or PNG, and the most noise vectors."""
    max_stream_images: int = Field(100_000, ge=1, le=2**24)
    """The most images in one streamed answer (zip, npy)."""
    max_pixels: int = Field(64 * 2**20, ge=784, le=2**30)
    """The most pixels in one answer as JSON or PNG, after scaling."""
    max_score_images: int = Field(256, ge=1, le=2**16)
    """The most images in one request to score."""
    max_image_pixels: int = Field(4096 * 4096, ge=784, le=2**27)
    """The most pixels of all images in one request to score; checked before decoding."""
    header_timeout_s: float = Field(10.0, gt=0, le=3600)
    """Seconds that a request's header has to arrive, from the connection on."""
    body_timeout_s: float = Field(60.0, gt=0, le=3600)
    """Seconds that a request's body has to arrive."""
    send_timeout_s: float = Field(30.0, gt=0, le=3600)
    """Seconds that a client has to take 64 KiB of its answer."""
    keep_alive_s: int = Field(65, ge=1, le=3600)
    """Seconds that an idle connection stays open. A reverse proxy in front should close first (nginx: 60 s)."""
    max_connections: int = Field(2048, ge=1, le=2**20)
    """The most connections of a process. Beyond them, only probes get an answer."""
    max_waiting_bytes: int = Field(128 * 2**20, ge=2**20)
    """The most memory for large request bodies, and as much for answers that clients have not read
    ([security.md](security.md#slow-clients))."""
    api_keys: Annotated[dict[str, int | None], NoDecode, BeforeValidator(keys_of)] = Field({}, repr=False)
    """The API keys, as `digitgan key` prints them: `name:sha256` or `name:sha256:images`, separated by commas. Empty:
    no key is needed."""
    key_images_per_minute: int = Field(60_000, ge=0)
    """Images a minute for an API key without a number of its own; 0 is no limit."""
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = ()
    """Origins that may use the API from a browser, separated by commas; `*` allows all."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`."""
    log_format: Literal["text", "json"] = "text"
    """`text`, or a `json` object for each event."""
    access_log: bool = False
    """Whether each request is logged."""
    tracing: Annotated[bool, AfterValidator(_with_opentelemetry)] = False
    """Whether requests are traced, as OpenTelemetry's own variables say."""

    @model_validator(mode="after")
    def _tls_files(self) -> Self:
        """Reads the files at the start, so that the gateway does not start with a wrong one."""
        self.model_server_credentials()
        return self

    def model_server_credentials(self) -> grpc.ChannelCredentials | None:
        """Returns the credentials for TLS to the model server; None for no TLS. Raises ValueError for wrong files."""
        ca, cert, key = self.model_server_tls_ca, self.model_server_tls_cert, self.model_server_tls_key
        if (cert is None) != (key is None) or (cert and ca is None):
            raise ValueError(
                f"{PREFIX}MODEL_SERVER_TLS_CERT and {PREFIX}MODEL_SERVER_TLS_KEY go together, and with"
                f" {PREFIX}MODEL_SERVER_TLS_CA"
            )
        return read_credentials(ca, cert, key) if ca else None


def load_settings(**overrides: Any) -> Settings:
    """Returns the settings from ``overrides``, the environment, the defaults: in this order. Raises UserError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            line = one["msg"].removeprefix("Value error, ")
            if one["loc"]:  # otherwise the message names the variables
                name = str(one["loc"][0])
                shown = "…" if name == "api_keys" else one["input"]  # where a key could stand by mistake
                line = f"{PREFIX}{name.upper()}={shown}: {line}"
            lines.append(line)
        raise UserError("\n".join(lines)) from error
