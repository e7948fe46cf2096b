"""Roll-outs by version label: which versions of a model are loaded, and what ``stable`` and ``canary`` mean.

with connected("model-server:8500") as servers:
    RollOut(Path("/models"), servers, print).promote("generator", 4, STABLE, {}, force=False)
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from serving import apis
from serving.errors import UserError
from serving.storage import find_versions
from serving.tf_serving import model_config
from serving.tf_serving.client import VersionStatus, version_statuses
from serving.tf_serving.server_config import MODELS_CONFIG, write_models_config
from serving.versions.model_card import CardError, read_card, verify
from serving.versions.quality_gate import Thresholds, shortfalls

STABLE: Final = "stable"
CANARY: Final = "canary"
PREVIOUS: Final = "previous"
"""The version that was stable before. It stays loaded, so a roll-back needs no loading."""
LABELS: Final = (STABLE, CANARY, PREVIOUS)

CALL_S: Final = 30.0
LOAD_S: Final = 300.0
"""How long a server may take to load or unload a version."""
OLD_FAILURE_S: Final = 10.0
"""When a failure that was there before the change counts: until its next poll, a server reports the last attempt."""
CONFIRM_S: Final = 60.0
"""How long a server may take to serve labels that it has accepted."""
_LOOK_EVERY_S: Final = 0.05

Labels = Mapping[str, int]


class RollOutError(UserError):
    """A change that was not made, or was taken back. The message gives the cause, and what serves."""


@dataclass(frozen=True)
class Snapshot:
    """What one model server serves, by model: the status of each version, and the version that each label means."""

    address: str
    statuses: Mapping[str, Mapping[int, VersionStatus]]
    labels: Mapping[str, Labels]


@dataclass(frozen=True)
class ModelServer:
    """One model server. Each method raises RollOutError if the server does not answer or refuses."""

    address: str
    channel: grpc.Channel

    def reload(self, config: apis.ModelServerConfig) -> None:
        """Gives the server a configuration."""
        request = apis.ReloadConfigRequest(config=config)
        answer = self._call(apis.HANDLE_RELOAD_CONFIG_REQUEST, request, apis.ReloadConfigResponse)
        if answer.status.error_code:
            raise RollOutError(f"{self.address} refuses the configuration: {answer.status.error_message}")

    def statuses(self, model: str) -> dict[int, VersionStatus]:
        """Returns the status of each version that the server knows; nothing for an unknown model."""
        request = apis.GetModelStatusRequest(model_spec={"name": model})
        unknown = (grpc.StatusCode.NOT_FOUND,)
        answer = self._call(apis.GET_MODEL_STATUS, request, apis.GetModelStatusResponse, unknown)
        return {one.version: one for one in version_statuses(answer)}

    def labels(self, model: str, names: Iterable[str]) -> dict[str, int]:
        """Returns the version that answers for each label; nothing for a label without one."""
        found = {}
        for name in names:
            request = apis.GetModelMetadataRequest(
                model_spec={"name": model, "version_label": name}, metadata_field=["signature_def"]
            )
            unknown = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
            answer = self._call(apis.GET_MODEL_METADATA, request, apis.GetModelMetadataResponse, unknown)
            if answer.HasField("model_spec"):
                found[name] = answer.model_spec.version.value
        return found

    def _call(self, method: str, request: Any, answer: Any, empty: Sequence[grpc.StatusCode] = ()) -> Any:
        """Returns the answer; an empty one for the status codes ``empty``."""
        call = self.channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            return call(request, timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in empty:
                return answer()
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise RollOutError(
                    f"no model server answers at {self.address} ({error.details()}). Start it, or name another address "
                    "with --model-server or DIGITGAN_MODEL_SERVER"
                ) from error
            raise RollOutError(f"{self.address}: {error.code().name}: {error.details()}") from error


@contextmanager
def connected(target: str) -> Iterator[list[ModelServer]]:
    """Gives every model server behind ``target``, as for the gateway. Raises RollOutError for an unknown name."""
    with ExitStack() as stack:
        yield [ModelServer(one, stack.enter_context(grpc.insecure_channel(one))) for one in addresses(target)]


def addresses(target: str) -> list[str]:
    """Returns the address of each server behind ``target``. Raises RollOutError for a name without an address."""
    if target.startswith("unix:"):
        return [target]
    if target.startswith(("ipv4:", "ipv6:")):
        return target.partition(":")[2].split(",")
    host, _, port = target.removeprefix("dns:").rpartition("/")[2].rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise RollOutError(
            f"--model-server {target} has no address ({error}): give host:port, dns:///name:port, "
            "ipv4:address:port,… or unix:/path"
        ) from error
    # A server with an address of each family is one server.
    if v4 := {str(at[0]) for family, *_, at in found if family is socket.AF_INET}:
        return sorted(f"{ip}:{port}" for ip in v4)
    return sorted(f"[{ip}]:{port}" for ip in {str(at[0]) for *_, at in found})


@dataclass
class RollOut:
    """Changes of the labels in one base directory's ``models.config``, on all model servers that follow it.

    Raises ConfigError if there is no ``models.config`` that a server could follow.
    """

    base: Path
    servers: Sequence[ModelServer]
    progress: Callable[[str], None]
    """Gets a sentence for each step."""
    poll_s: float = 1.0
    """How often the servers look for versions (``--file_system_poll_wait_seconds``)."""

    def __post_init__(self) -> None:
        self.config = model_config.read_proto(self.base / MODELS_CONFIG)

    @property
    def models(self) -> list[str]:
        """The models of the configuration."""
        return [one.name for one in self.config.model_config_list.config]

    def labels(self, model: str) -> dict[str, int]:
        """Returns the labels of a model in ``models.config``. Raises RollOutError for a model that is not there."""
        for one in self.config.model_config_list.config:
            if one.name == model:
                return dict(one.version_labels)
        raise RollOutError(f"{self.base / MODELS_CONFIG} has no model {model}; it has: {', '.join(self.models)}")

    def promote(
        self, model: str, version: int, label: str, thresholds: Mapping[str, Thresholds], *, force: bool
    ) -> None:
        """Gives ``label`` (STABLE or CANARY) to a version, and PREVIOUS to the one that was stable.

        ``thresholds`` are those of the quality gate, by model; ``force`` ignores them, and nothing else. Raises
        RollOutError if there is no such version, if it falls short, or if a server did not load it.
        """
        self._check(model, version, thresholds.get(model, {}), force)
        change = _Change(self, model)
        before = change.labels.get(STABLE) or max(change.kept, default=None)
        if label == CANARY:
            if before is None or before == version:
                raise RollOutError(
                    f"{model} version {version} is what serves already; a canary needs another beside it"
                )
            target = {**change.labels, STABLE: before, CANARY: version}
        else:
            target = {**change.labels, STABLE: version}
            if target.get(CANARY) == version:
                del target[CANARY]
            if before is not None and before != version:
                target[PREVIOUS] = before
        change.make(target)

    def rollback(self, model: str) -> None:
        """Makes the version that was stable before stable again. Raises RollOutError if there is none."""
        change = _Change(self, model)
        if PREVIOUS not in change.labels:
            raise RollOutError(f"{model} has no version labelled {PREVIOUS}: nothing was promoted over another yet")
        change.make({**change.labels, STABLE: change.labels[PREVIOUS], PREVIOUS: change.labels[STABLE]})

    def look_at(self, server: ModelServer) -> Snapshot:
        """Returns what a server serves of the models in ``models.config``. Raises RollOutError."""
        return Snapshot(
            server.address,
            {model: server.statuses(model) for model in self.models},
            {model: server.labels(model, {*LABELS, *self.labels(model)}) for model in self.models},
        )

    def _check(self, model: str, version: int, thresholds: Thresholds, force: bool) -> None:
        directory = self.base / model
        found = sorted(find_versions(directory)) if directory.is_dir() else []
        if version not in found:
            there = _listed(found) or "none"
            raise RollOutError(f"{directory} holds no version {version}; there are: {there}")
        try:
            verify(directory / str(version))
            card = read_card(directory / str(version))
        except CardError as error:
            raise RollOutError(f"{model} version {version} isn't what was exported: {error}") from error
        if short := "; ".join(shortfalls(card, thresholds)):
            if not force:
                raise RollOutError(f"{model} version {version} falls short: {short}. --force promotes it all the same")
            self.progress(f"{model} version {version} falls short, and is promoted anyway: {short}")


class _Change:
    """A change of one model's labels, in three steps: load the new versions, move the labels, unload what has no label.

    A model server refuses a ``models.config`` as a whole if it labels a version that is not AVAILABLE, so every server
    confirms a step before the next one begins. Each step is written to ``models.config`` first, so that a server that
    starts or polls meanwhile does the same.
    """

    def __init__(self, roll_out: RollOut, model: str) -> None:
        self._roll_out = roll_out
        self._model = model
        written = {name: roll_out.labels(name) for name in {model, *roll_out.models}}
        self._snapshots = [roll_out.look_at(server) for server in roll_out.servers]
        before = {name: {**labels, **self._snapshots[0].labels[name]} for name, labels in written.items()}
        self.labels = before[model]
        """The labels before the change: those that the first server serves, whatever the file says."""
        self._available = set.intersection(*(_available(each.statuses[model]) for each in self._snapshots))
        served = {version for each in self._snapshots for version in each.labels[model].values()}
        self.kept = {*self.labels.values(), *served} or self._available
        """The versions that stay loaded until the labels have moved."""
        self._now = [_changed(roll_out.config, labels) for labels in (before, *(one.labels for one in self._snapshots))]
        """What is served now, as a configuration for the file, and as one for each server."""

    def make(self, target: Labels) -> None:
        """Brings all servers, and the file, to the labels ``target``. Raises RollOutError."""
        model, new = self._model, set(target.values())
        progress = self._roll_out.progress
        try:
            if missing := new - self._available:
                progress(f"Loading {model} version {_listed(missing)} beside the others")
            self._apply(self.kept | new, {})
            self._wait_until_available(new)
            self._apply(self.kept | new, {model: target})
            self._wait_until_served(target)
        except RollOutError as error:
            left = self._take_back()
            now = format_labels(self.labels) or "without labels"
            raise RollOutError(f"{error}. Nothing changed: {model} is {now}{left}") from error
        progress(f"{model}: {format_labels(target)}")
        if unloaded := self.kept - new:
            progress(f"Unloading {model} version {_listed(unloaded)}, which has no label any more")
            try:
                self._apply(new, {model: target})
                self._wait_until_unloaded(unloaded)
            except RollOutError as error:
                now = format_labels(target)
                raise RollOutError(f"{error}. The labels have moved everywhere: {model} is {now}") from error

    def _apply(self, versions: set[int], labels: Mapping[str, Labels]) -> None:
        """Gives the file and each server these versions. Without ``labels``, each keeps its own.

        Raises RollOutError that names each server that did not take it.
        """
        if failures := self._write([_changed(now, labels, {self._model: versions}) for now in self._now]):
            raise RollOutError("; ".join(failures))

    def _write(self, configs: Sequence[apis.ModelServerConfig]) -> list[str]:
        """Writes the file, and gives each server its configuration. Returns the error of each that did not take it."""
        write_models_config(self._roll_out.base, configs[0])
        failures = []
        for server, config in zip(self._roll_out.servers, configs[1:], strict=True):
            try:
                server.reload(config)
            except RollOutError as error:
                failures.append(str(error))
        return failures

    def _take_back(self) -> str:
        """Restores the file and the servers. Returns what a user has to know about those that failed.

        A server tries a failed version again only after a poll without it. So this waits for a poll, with a margin for
        a busy server.
        """
        failures = self._write(self._now)
        time.sleep(2 * self._roll_out.poll_s + 1)
        return "".join(f"; until it reads {MODELS_CONFIG}, a server may serve otherwise: {one}" for one in failures)

    def _wait_until_available(self, versions: Iterable[int]) -> None:
        """Waits until the versions are AVAILABLE everywhere. Raises RollOutError if one cannot be loaded."""
        begun, model = time.monotonic(), self._model
        before = {each.address: each.statuses[model] for each in self._snapshots}

        def complaint(server: ModelServer) -> str:
            statuses = server.statuses(model)
            for version in versions:
                status = statuses.get(version)
                is_new = status != before[server.address].get(version)
                if status and status.error_message and (is_new or time.monotonic() - begun > OLD_FAILURE_S):
                    raise RollOutError(
                        f"{server.address} can't load {model} version {version}: {status.error_message}. "
                        "Publish it again under a new number"
                    )
                if not status or status.state != "AVAILABLE":
                    state = status.state if status else "UNKNOWN"
                    return f"{model} version {version} is still {state} at {server.address}. Look at the server's log"
            return ""

        self._wait(complaint, LOAD_S)

    def _wait_until_unloaded(self, versions: set[int]) -> None:
        """Waits until no server has one of the versions AVAILABLE, so that the next change does not count on it."""

        def complaint(server: ModelServer) -> str:
            left = versions & _available(server.statuses(self._model))
            return f"{server.address} does not unload {self._model} version {_listed(left)}" if left else ""

        self._wait(complaint, LOAD_S)

    def _wait_until_served(self, target: Labels) -> None:
        """Waits until every server has served the labels ``target`` for the time of a poll.

        A server that read the file just before it was written may go back to the old labels until its next poll.
        """
        names = {*LABELS, *self.labels, *target}

        def complaint(server: ModelServer) -> str:
            found = server.labels(self._model, names)
            here = format_labels(found) or "no label"
            return "" if found == target else f"{server.address} serves {here} in place of {format_labels(target)}"

        self._wait(complaint, CONFIRM_S, self._roll_out.poll_s)

    def _wait(self, complaint: Callable[[ModelServer], str], timeout_s: float, quiet_s: float = 0.0) -> None:
        """Waits until no server has had a complaint for ``quiet_s``. Raises RollOutError with the last one."""
        begun = quiet_since = time.monotonic()
        last = ""
        while True:
            found = next(filter(None, map(complaint, self._roll_out.servers)), "")
            now = time.monotonic()
            if found:
                last, quiet_since = found, now
            elif now - quiet_since >= quiet_s:
                return
            if now - begun > timeout_s + quiet_s:
                raise RollOutError(last)
            time.sleep(_LOOK_EVERY_S)


def _available(statuses: Mapping[int, VersionStatus]) -> set[int]:
    return {version for version, status in statuses.items() if status.state == "AVAILABLE"}


def format_labels(labels: Labels) -> str:
    """Returns labels in words, "stable 4, previous 3"."""
    names = sorted(labels, key=lambda name: ([*LABELS, name].index(name), name))
    return ", ".join(f"{name} {labels[name]}" for name in names)


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions)))


def _changed(
    config: apis.ModelServerConfig,
    labels: Mapping[str, Labels],
    versions: Mapping[str, Iterable[int]] | None = None,
) -> apis.ModelServerConfig:
    """Returns the configuration with other labels and other versions, each by model.

    A model that gets labels and no versions keeps its own, and the versions that the labels need.
    """
    changed = apis.ModelServerConfig.FromString(config.SerializeToString())
    for one in changed.model_config_list.config:
        policy = one.model_version_policy
        if one.name in labels:
            one.version_labels.clear()
            one.version_labels.update(labels[one.name])
        if versions and one.name in versions:
            policy.specific.versions[:] = sorted(versions[one.name])
        elif policy.WhichOneof("policy_choice") == "specific":
            policy.specific.versions[:] = sorted({*policy.specific.versions, *one.version_labels.values()})
    return changed
