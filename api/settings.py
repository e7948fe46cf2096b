"""The gateway's settings: read once from the environment, checked, and handed in (``docs/settings.md``)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DIGITGAN_"
_OTEL = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc")


class SettingsError(ValueError):
    """A setting has a value that it cannot have. The message names each variable and its value."""


def _grpc_target(target: str) -> str:
    if target.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return target
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError("should be host:port, dns:///name:port, unix:/path or ipv4:address:port,…")
    return target


def _installed(tracing: bool) -> bool:
    try:
        missing = tracing and any(find_spec(name) is None for name in _OTEL)
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise ValueError("needs OpenTelemetry: pip install 'digitgan[otel]'")
    return tracing


class Settings(BaseSettings):
    """All that can be set. A variable's name is ``DIGITGAN_`` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that answer requests on that port. One keeps a model server on a few cores busy.",
    )
    model_server: Annotated[str, AfterValidator(_grpc_target)] = Field(
        "127.0.0.1:8500",
        description="The model server's gRPC address: `host:port`, `dns:///name:port`, `unix:/path`, "
        "or several: `ipv4:address:port,address:port`.",
    )
    version_label: str | None = Field(
        None,
        description="The version that is asked where a request names none, by its label in `models.config`, such as "
        "`stable`. Without: the newest.",
    )
    models_dir: Path | None = Field(
        None,
        description="A directory with `<model>/<version>/model.json`, for the model cards in `GET /models`.",
    )
    request_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds that the model server has for a request or a batch of a stream.",
    )
    ready_timeout_s: float = Field(
        1.0, gt=0, le=60, description="Seconds that the model server has to tell its models' states."
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds from becoming unready on SIGTERM to refusing connections.",
    )
    shutdown_timeout_s: int = Field(
        30, ge=1, le=3600, description="Seconds that requests under way then have to finish."
    )
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="The largest request body.")
    max_images: int = Field(
        4096,
        ge=1,
        le=2**20,
        description="The most images in one answer as JSON or PNG, and the most noise vectors.",
    )
    max_stream_images: int = Field(
        100_000, ge=1, le=2**24, description="The most images in one streamed answer (zip, npy)."
    )
    max_pixels: int = Field(
        64 * 2**20,
        ge=784,
        le=2**30,
        description="The most pixels in one answer as JSON or PNG, after scaling.",
    )
    max_score_images: int = Field(256, ge=1, le=2**16, description="The most images in one request to score.")
    max_image_pixels: int = Field(
        4096 * 4096,
        ge=784,
        le=2**27,
        description="The most pixels of all images in one request to score; checked before decoding.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Lines of text, or a JSON object for each event.")
    access_log: bool = Field(False, description="Whether each request is logged.")
    tracing: Annotated[bool, AfterValidator(_installed)] = Field(
        False,
        description="Whether requests are traced. Where to, and how many, is up to OpenTelemetry's own variables.",
    )


def load_settings(**overrides: Any) -> Settings:
    """Returns the settings from ``overrides`` (by field name), the environment, the defaults: in this order.

    Raises SettingsError.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'.'.join(map(str, one['loc'])).upper()}={one['input']!s}: {_message(one['msg'])}"
            for one in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from error


def _message(message: str) -> str:
    return message.removeprefix("Value error, ")
