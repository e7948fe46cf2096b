"""Roll-outs by version label: which versions of a model are loaded, and what ``stable`` and ``canary`` mean.

``models.config`` is the truth: a server that starts, or reads it again (``--model_config_file_poll_wait_seconds``),
does what it says; servers that are named are told at once, by HandleReloadConfigRequest, and watched.

TensorFlow Serving takes a label only for a version that is AVAILABLE
(https://www.tensorflow.org/tfx/serving/serving_config), and nothing says in which order the versions and the labels of
one configuration take effect. So each change is made in steps, between which every label means a loaded version: load
what is new, move the labels, unload what no label means any more.
"""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
from google.protobuf import text_format

from serving import apis, model_config
from serving.client import STATES
from serving.files import write_atomically
from serving.model_card import CardError, read_card, verify
from serving.quality_gate import Threshold, shortfalls
from serving.server_config import MODELS_CONFIG
from serving.storage import find_versions

STABLE: Final = "stable"
CANARY: Final = "canary"
PREVIOUS: Final = "previous"
"""The version that was stable before: it stays loaded, so that a roll-back needs no loading."""

CALL_S: Final = 30.0
_POLL_S: Final = 0.1

Say = Callable[[str], None]


class RollOutError(RuntimeError):
    """A change that wasn't made, or was taken back. The message tells why, and what serves."""


@dataclass(frozen=True)
class Status:
    """A version at one server: its state, and the error that ended it ("" for none)."""

    server: str
    state: str
    error: str


class ModelServers:
    """Every model server behind a name, each spoken to by itself. Close it, or use it as a context manager."""

    def __init__(self, target: str) -> None:
        """``target`` as for the gateway; a name with several addresses is several servers. Raises RollOutError."""
        self._channels = {address: grpc.insecure_channel(address) for address in addresses(target)}

    def __enter__(self) -> "ModelServers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            channel.close()

    def reload(self, config: apis.ModelServerConfig) -> None:
        """Gives all servers a configuration. Raises RollOutError for the first that doesn't take it."""
        request = apis.ReloadConfigRequest(config=config)
        for address in self._channels:
            answer = self._call(address, apis.HANDLE_RELOAD_CONFIG_REQUEST, request, apis.ReloadConfigResponse)
            if answer.status.error_code:
                raise RollOutError(f"{address} didn't take the configuration: {answer.status.error_message}")

    def statuses(self, model: str) -> dict[int, list[Status]]:
        """Returns what each server says of each version that it knows; of an unknown model, nothing."""
        found: dict[int, list[Status]] = {}
        request = apis.GetModelStatusRequest(model_spec={"name": model})
        for address in self._channels:
            answer = self._call(address, apis.GET_MODEL_STATUS, request, apis.GetModelStatusResponse)
            for one in answer.model_version_status:
                status = Status(address, STATES.get(one.state, "UNKNOWN"), one.status.error_message)
                found.setdefault(one.version, []).append(status)
        return found

    def available(self, model: str) -> list[int]:
        """Returns the versions that are AVAILABLE at every server, ascending."""
        return sorted(
            version
            for version, statuses in self.statuses(model).items()
            if [one.state for one in statuses] == ["AVAILABLE"] * len(self._channels)
        )

    def _call(self, address: str, method: str, request: Any, answer: Any) -> Any:
        call = self._channels[address].unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            return call(request, timeout=CALL_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if method == apis.GET_MODEL_STATUS and error.code() is grpc.StatusCode.NOT_FOUND:
                return answer()
            raise RollOutError(f"{address}: {error.code().name}: {error.details()}") from error


def addresses(target: str) -> list[str]:
    """Returns a gRPC target for each server that ``target`` means: ``host:port``, ``dns:///name:port``,
    ``ipv4:address:port,…`` or ``unix:/path``. Raises RollOutError for a name that nobody knows.
    """
    if target.startswith("unix:"):
        return [target]
    if target.startswith(("ipv4:", "ipv6:")):
        scheme, _, rest = target.partition(":")
        return [f"{scheme}:{address}" for address in rest.split(",")]
    host, _, port = target.removeprefix("dns:").lstrip("/").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise RollOutError(f"no model server at {target}: {error}") from error
    numeric = {(family, str(at[0])) for family, *_, at in found}
    return sorted(f"ipv4:{ip}:{port}" if family is socket.AF_INET else f"ipv6:[{ip}]:{port}" for family, ip in numeric)


class RollOut:
    """Changes of the labels in one base directory's ``models.config``."""

    def __init__(self, base: Path, servers: ModelServers | None, say: Say, timeout_s: float = 300.0) -> None:
        """``servers`` None: only the file is written. ``say`` is told each step. ``timeout_s``: for loading.

        Raises ConfigError when there is no ``models.config`` that a server could follow.
        """
        self.base = base
        self._servers = servers
        self._say = say
        self._timeout_s = timeout_s
        self._config = model_config.read_proto(base / MODELS_CONFIG)

    @property
    def models(self) -> list[str]:
        """The models of the configuration."""
        return [one.name for one in self._config.model_config_list.config]

    def labels(self, model: str) -> dict[str, int]:
        """The labels of a model."""
        return dict(self._entry(self._config, model).version_labels)

    def promote(
        self, model: str, version: int, label: str, thresholds: Mapping[str, Sequence[Threshold]], *, force: bool
    ) -> None:
        """Gives ``label`` (STABLE or CANARY) to a version, and keeps the one that was stable at hand as PREVIOUS.

        Args:
            model: its name.
            version: on disk, with the files that its card names.
            label: STABLE or CANARY.
            thresholds: of the quality gate, by model.
            force: past the quality gate, and only that.

        Raises:
            RollOutError: there is no such version, it falls short, or a server couldn't load it.
        """
        labels = self.labels(model)
        self._check(model, version, tuple(thresholds.get(model, ())), force)
        before = labels.get(STABLE) or self._serving(model)
        if label == CANARY:
            if before is None or before == version:
                raise RollOutError(
                    f"{model} version {version} is what serves already; a canary needs another beside it"
                )
            wanted = {**labels, STABLE: before, CANARY: version}
        else:
            wanted = {**labels, STABLE: version}
            if labels.get(CANARY) == version:
                del wanted[CANARY]
            if before is not None and before != version:
                wanted[PREVIOUS] = before
        self._change(model, wanted)

    def rollback(self, model: str) -> None:
        """Makes the version that was stable before stable again; done twice, nothing has changed.

        Raises RollOutError where there is none.
        """
        labels = self.labels(model)
        if PREVIOUS not in labels:
            raise RollOutError(f"{model} has no version labelled {PREVIOUS}: nothing was promoted over another yet")
        self._change(model, {**labels, STABLE: labels[PREVIOUS], PREVIOUS: labels[STABLE]})

    def _check(self, model: str, version: int, thresholds: tuple[Threshold, ...], force: bool) -> None:
        directory = self.base / model
        found = sorted(find_versions(directory)) if directory.is_dir() else []
        if version not in found:
            there = ", ".join(map(str, found)) or "none"
            raise RollOutError(f"{directory} holds no version {version}; there are: {there}")
        try:
            verify(directory / str(version))
            card = read_card(directory / str(version))
        except CardError as error:
            raise RollOutError(f"{model} version {version} isn't what was exported: {error}") from error
        if short := shortfalls(card, thresholds):
            figures = "; ".join(short)
            if not force:
                raise RollOutError(
                    f"{model} version {version} falls short: {figures}. --force promotes it all the same"
                )
            self._say(f"{model} version {version} falls short, and is promoted anyway: {figures}")

    def _serving(self, model: str) -> int | None:
        """What serves while nothing is labelled: the newest version that is AVAILABLE."""
        return max(self._servers.available(model), default=None) if self._servers else None

    def _change(self, model: str, labels: Mapping[str, int]) -> None:
        before = self._config
        old = self.labels(model)
        new_versions = set(labels.values())
        if self._servers is None:
            self._apply(_with(before, model, new_versions, labels))
            self._say(
                f"{MODELS_CONFIG}: {told(labels)}. No model server was told: those that read the file again will."
            )
            return
        # What serves without a label serves on until the labels have moved.
        loaded = set(self._servers.available(model)) | set(old.values())
        if self._entry(before, model).model_version_policy.WhichOneof("policy_choice") == "specific":
            loaded &= set(self._entry(before, model).model_version_policy.specific.versions)
        try:
            if new_versions - set(self._servers.available(model)):
                self._say(
                    f"Loading {model} version {', '.join(map(str, sorted(new_versions - loaded)))} beside the others"
                )
            self._apply(_with(before, model, loaded | new_versions, old))
            self._wait(model, new_versions)
            self._apply(_with(before, model, loaded | new_versions, labels))
            self._say(f"{model}: {told(labels)}")
        except RollOutError as error:
            self._apply(before)
            raise RollOutError(f"{error}. Nothing changed: {model} is {told(old) or 'without labels'}") from error
        if unloaded := loaded - new_versions:
            self._apply(_with(before, model, new_versions, labels))
            self._say(
                f"Unloading {model} version {', '.join(map(str, sorted(unloaded)))}, which no label means any more"
            )

    def _apply(self, config: apis.ModelServerConfig) -> None:
        """The servers first: what they refuse doesn't get into the file."""
        if self._servers:
            self._servers.reload(config)
        write_atomically(self.base / MODELS_CONFIG, text_format.MessageToString(config))
        self._config = config

    def _wait(self, model: str, versions: Iterable[int]) -> None:
        assert self._servers
        deadline = time.monotonic() + self._timeout_s
        while missing := set(versions) - set(self._servers.available(model)):
            for version in missing:
                for status in self._servers.statuses(model).get(version, []):
                    if status.error or status.state == "END":
                        raise RollOutError(
                            f"{status.server} can't load {model} version {version}: {status.error or status.state}"
                        )
            if time.monotonic() > deadline:
                raise RollOutError(f"{model} version {_listed(missing)} isn't AVAILABLE after {self._timeout_s:g} s")
            time.sleep(_POLL_S)

    def _entry(self, config: apis.ModelServerConfig, model: str) -> apis.ModelConfig:
        for one in config.model_config_list.config:
            if one.name == model:
                return one
        raise RollOutError(f"{self.base / MODELS_CONFIG} has no model {model}; it has: {', '.join(self.models)}")


def told(labels: Mapping[str, int]) -> str:
    """Labels in words, "stable 4, previous 3"."""
    order = (STABLE, CANARY, PREVIOUS)
    names = sorted(labels, key=lambda name: (order.index(name) if name in order else len(order), name))
    return ", ".join(f"{name} {labels[name]}" for name in names)


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions)))


def _with(
    config: apis.ModelServerConfig, model: str, versions: Iterable[int], labels: Mapping[str, int]
) -> apis.ModelServerConfig:
    changed = apis.ModelServerConfig.FromString(config.SerializeToString())
    for one in changed.model_config_list.config:
        if one.name == model:
            one.model_version_policy.specific.versions[:] = sorted(versions)
            one.version_labels.clear()
            one.version_labels.update(labels)
    return changed
