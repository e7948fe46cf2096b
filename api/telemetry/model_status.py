"""The status of a model: which version answers, and whether a newer one failed to become AVAILABLE."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.contract import MODELS
from serving.tf_serving.client import ModelClient, ModelNotServedError, ModelServerError, VersionStatus


@dataclass(frozen=True)
class ModelStatus:
    """``serving``: the version that answers requests without a version: the one with ``label``, or without a label the
    newest that is AVAILABLE. ``failed``: a newer version, which ended with an error.
    """

    versions: Sequence[VersionStatus]
    serving: VersionStatus | None
    failed: VersionStatus | None
    label: str | None = None

    @property
    def word(self) -> Literal["available", "degraded", "unavailable"]:
        if self.serving is None:
            return "unavailable"
        return "degraded" if self.failed else "available"

    @property
    def detail(self) -> str | None:
        """What is wrong, in a sentence; None if nothing is."""
        if self.failed:
            failure = f"version {self.failed.version}: {self.failed.error_code}: {self.failed.error_message}"
            return f"{failure}; {f'version {self.serving.version} serves on' if self.serving else 'nothing serves'}"
        if self.serving:
            return None
        states = ", ".join(f"{one.version} {one.state}" for one in self.versions)
        label = f" with the label {self.label}" if self.label else ""
        return f"no version{label} is AVAILABLE ({states or 'there are none'})"


async def model_status(client: ModelClient, model: str, timeout_s: float) -> ModelStatus:
    """Returns the status of ``model``; without versions if the server does not know it. Raises ModelServerError.

    A failed version older than the one that serves is ignored.
    """
    label = client.version_label
    try:
        versions = await client.model_versions(model, timeout_s=timeout_s)
    except ModelNotServedError:
        return ModelStatus((), None, None, label)
    if label is None:
        serving = _newest(one for one in versions if one.state == "AVAILABLE")
    else:
        version = await client.labelled_version(model, timeout_s=timeout_s)
        serving = None if version is None else VersionStatus(version, "AVAILABLE", "OK", "")
    oldest = serving.version if serving else 0
    failed = _newest(one for one in versions if one.state == "END" and one.error_code != "OK" and one.version >= oldest)
    return ModelStatus(versions, serving, failed, label)


def _newest(versions: Iterable[VersionStatus]) -> VersionStatus | None:
    return max(versions, key=lambda one: one.version, default=None)


async def all_statuses(client: ModelClient, timeout_s: float) -> dict[str, ModelStatus | ModelServerError]:
    """Returns the status of each model, or why it is not known."""

    async def status(model: str) -> ModelStatus | ModelServerError:
        try:
            return await model_status(client, model, timeout_s)
        except ModelServerError as error:
            return error

    return dict(zip(MODELS, await asyncio.gather(*map(status, MODELS)), strict=True))
