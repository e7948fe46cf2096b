"""The Python client of the gateway: arrays in, arrays out (``docs/client.md``)."""

from digitgan.client.asynchronous import AsyncClient
from digitgan.client.errors import (
    AnswerError,
    BrokenStreamError,
    DigitganError,
    FieldError,
    InvalidRequestError,
    NoSeedIndexError,
    ProblemError,
    RefusedError,
    ServiceError,
    SlowAnswerError,
    UnavailableError,
    UnreachableError,
    VersionNotFoundError,
)
from digitgan.client.results import Digits, LabelledDigits, Model, ModelVersion, Saved, Score, Scores
from digitgan.client.synchronous import Client

__all__ = [
    "AnswerError",
    "AsyncClient",
    "BrokenStreamError",
    "Client",
    "DigitganError",
    "Digits",
    "FieldError",
    "InvalidRequestError",
    "LabelledDigits",
    "Model",
    "ModelVersion",
    "NoSeedIndexError",
    "ProblemError",
    "RefusedError",
    "Saved",
    "Score",
    "Scores",
    "ServiceError",
    "SlowAnswerError",
    "UnavailableError",
    "UnreachableError",
    "VersionNotFoundError",
]
