"""One configured model: it follows its versions on disk in a thread of its own.

Each round compares what is on disk and wanted by the policy with what is loaded. New versions are loaded
before old ones are unloaded, and an unwanted version serves on for as long as no wanted one is available.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grpc import StatusCode

from serving.model_config import ModelConfig
from serving.model_server.errors import ServingError
from serving.model_server.runner import Runner
from serving.model_server.version import State, Version
from serving.storage import StoredVersion, find_versions

MISSING_PATH_LOG_SECONDS: Final = 30.0
"""How often a base path that doesn't exist is mentioned."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadingOptions:
    """When versions are looked for and loaded, named as in TensorFlow Serving."""

    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60.0


class Model:
    """A model that serves. ``load`` makes a warmed up Runner of a version's directory, or raises ServingError.

    ``changed`` is shared by all models: its lock guards every version, and it is notified of every change
    of state.
    """

    def __init__(
        self,
        config: ModelConfig,
        load: Callable[[Path], Runner],
        options: LoadingOptions,
        changed: threading.Condition,
    ) -> None:
        self.config = config
        self.polled = False
        """Whether the base path has been read, since ``config`` was set."""
        self._load = load
        self._options = options
        self._changed = changed
        self._versions: dict[int, Version] = {}
        self._retired = False
        self._wake = threading.Event()
        self._missing_path_logged = float("-inf")
        self._thread = threading.Thread(target=self._follow, name=f"model-{config.name}", daemon=True)
        self._thread.start()

    def configure(self, config: ModelConfig) -> None:
        """Uses the labels of ``config`` from now on, and its versions from the next poll on."""
        with self._changed:
            self.config = config
            self.polled = False

    def retire(self) -> None:
        """Unloads everything, once its requests are answered, and ends. ``versions`` can still be read."""
        self._retired = True
        self._wake.set()

    def is_alive(self) -> bool:
        """Tells whether its thread runs."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Waits for a retired model's end."""
        self._thread.join()

    def versions(self) -> list[Version]:
        """Returns the versions known, newest first. Hold the lock of ``changed`` while reading them."""
        return [self._versions[number] for number in sorted(self._versions, reverse=True)]

    def available(self) -> list[Version]:
        """Returns the available versions, newest first."""
        return [version for version in self.versions() if version.state is State.AVAILABLE]

    @contextmanager
    def use(self, number: int | None) -> Iterator[tuple[int, Runner]]:
        """Gives the number and runner of an available version, the newest for None, and keeps it loaded.

        Raises ServingError NOT_FOUND when there is none.
        """
        with self._changed:
            version = next((each for each in self.available() if number in (None, each.number)), None)
            if version is None or version.runner is None:
                wanted = f"Latest({self.config.name})" if number is None else f"Specific({self.config.name}, {number})"
                raise ServingError(StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
            version.requests += 1
            runner = version.runner
        try:
            yield version.number, runner
        finally:
            with self._changed:
                version.requests -= 1
                if version.state is State.UNLOADING:
                    self._changed.notify_all()

    def _follow(self) -> None:
        while not self._retired:
            self._round()
            self._wake.wait(self._seconds_to_next_round())
            self._wake.clear()
        for version in self.versions():
            self._unload(version)

    def _seconds_to_next_round(self) -> float:
        retries = [each.retry_at - time.monotonic() for each in self.versions() if each.state is State.LOADING]
        return min([self._options.file_system_poll_wait_seconds, *(due for due in retries if due > 0)])

    def _round(self) -> None:
        config = self.config
        try:
            found = find_versions(config.base_path)
        except OSError as error:
            self._log_missing_path(error)
        else:
            wanted = {number: found[number] for number in config.policy.choose(found)}
            self._want(wanted)
            self._load_due(wanted)
            self._unload_unwanted(wanted)
        with self._changed:
            self.polled = self.polled or config is self.config
            self._changed.notify_all()

    def _log_missing_path(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._missing_path_logged >= MISSING_PATH_LOG_SECONDS:
            self._missing_path_logged = now
            _log.warning("%s: waiting for its base path %s: %s", self.config.name, self.config.base_path, error)

    def _want(self, wanted: dict[int, StoredVersion]) -> None:
        """Begins a life for each wanted version without one, and ends those that are unwanted before they serve."""
        with self._changed:
            for version in self._versions.values():
                version.wanted = version.wanted and version.number in wanted
                if not version.wanted and version.state in (State.START, State.LOADING):
                    version.state = State.END
            for number, stored in wanted.items():
                known = self._versions.get(number)
                if known is None or (known.state is State.END and (not known.wanted or known.stored != stored)):
                    self._versions[number] = Version(number, stored)

    def _load_due(self, wanted: dict[int, StoredVersion]) -> None:
        for number in sorted(wanted, reverse=True):
            version = self._versions[number]
            if version.state in (State.START, State.LOADING) and version.retry_at <= time.monotonic():
                if self._retired:
                    return
                self._try_to_load(version)

    def _try_to_load(self, version: Version) -> None:
        title = f"{self.config.name} version {version.number}"
        _log.info("%s: loading from %s", title, version.stored.path)
        self._enter(version, State.LOADING)
        started = time.monotonic()
        try:
            runner = self._load(version.stored.path)
        except Exception as error:
            if not isinstance(error, ServingError):
                _log.exception("%s: loading failed unexpectedly", title)
                error = ServingError(StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            version.attempts += 1
            version.retry_at = time.monotonic() + self._options.load_retry_interval_seconds
            again = version.attempts <= self._options.max_num_load_retries
            remedy = f"next try in {self._options.load_retry_interval_seconds:g} s" if again else "not tried again"
            _log.error("%s: failed to load (%s): %s", title, remedy, error)
            self._enter(version, State.LOADING if again else State.END, error)
        else:
            version.runner = runner
            self._enter(version, State.AVAILABLE)
            _log.info("%s: available after %.0f ms", title, 1000 * (time.monotonic() - started))

    def _unload_unwanted(self, wanted: dict[int, StoredVersion]) -> None:
        served = any(version.number in wanted for version in self.available())
        if served or not wanted:
            for version in self.available():
                if version.number not in wanted:
                    self._unload(version)

    def _unload(self, version: Version) -> None:
        if version.state is not State.AVAILABLE or version.runner is None:
            if version.state is not State.END:
                self._enter(version, State.END, version.error)
            return
        self._enter(version, State.UNLOADING)
        with self._changed:
            self._changed.wait_for(lambda: version.requests == 0)
        version.runner.close()
        version.runner = None
        self._enter(version, State.END)
        _log.info("%s version %d: unloaded", self.config.name, version.number)

    def _enter(self, version: Version, state: State, error: ServingError | None = None) -> None:
        with self._changed:
            version.state = state
            version.error = error
            self._changed.notify_all()
