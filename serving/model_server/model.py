"""One configured model: it follows its versions on disk in a thread of its own.

New versions are loaded before old ones are unloaded. An unwanted version serves until a wanted one is available.
"""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

from serving import apis
from serving.model_server.errors import ServingError
from serving.model_server.loaded_version import LoadedVersion, load_version
from serving.model_server.options import ServerOptions
from serving.storage import StoredVersion, find_versions
from serving.tf_serving.model_config import ModelConfig

WARNING_SECONDS: Final = 30.0
"""How often a base path without a wanted version is mentioned."""

LISTED: Final = 10
"""Names that a warning lists."""

_log = logging.getLogger(__name__)

State: Final = apis.ModelVersionStatus
"""The states of a version's life: START (wanted, not begun), LOADING (or waiting for another try), AVAILABLE,
UNLOADING (answering the last of its requests, accepting none), END (unloaded, or failed to load)."""


@dataclass
class Version:
    """The state of a version. Only its model's thread changes it, except for ``requests``."""

    number: int
    stored: StoredVersion
    state: int = State.START
    error: ServingError | None = None
    """Why the last attempt to load failed."""
    wanted: bool = True
    """Whether it has been wanted in every round so far."""
    attempts: int = 0
    retry_at: float = 0.0
    """When the next attempt to load is due, by ``time.monotonic``: it is made at the next poll after that."""
    loaded: LoadedVersion | None = None
    requests: int = 0
    """How many requests are using it now."""


class Model:
    """A model that serves.

    ``changed`` is shared by all models: its lock guards every version, and it is notified of every change of state.
    """

    def __init__(self, config: ModelConfig, options: ServerOptions, changed: threading.Condition) -> None:
        self.config = config
        self.polled = False
        """Whether the base path has been read, since ``config`` was set."""
        self.available: Sequence[Version] = ()
        """The available versions, newest first."""
        self._options = options
        self._changed = changed
        self._versions: dict[int, Version] = {}
        self._retired = threading.Event()
        self._warned = float("-inf")
        self._thread = threading.Thread(target=self._follow, name=f"model-{config.name}", daemon=True)
        self._thread.start()

    def configure(self, config: ModelConfig) -> None:
        """Uses the labels of ``config`` from now on, and its versions from the next poll on."""
        with self._changed:
            self.config = config
            self.polled = False

    def retire(self) -> None:
        """Unloads everything, once its requests are answered, and ends. ``versions`` can still be read."""
        self._retired.set()

    def join(self) -> None:
        """Waits for a retired model's end."""
        self._thread.join()

    def versions(self) -> list[Version]:
        """Returns the versions known, newest first. Hold the lock of ``changed`` while reading them."""
        return [self._versions[number] for number in sorted(self._versions, reverse=True)]

    def _follow(self) -> None:
        self._round()
        while not self._retired.wait(self._options.file_system_poll_wait_seconds):
            self._round()
        for version in self.versions():
            self._unload(version)

    def _round(self) -> None:
        config = self.config
        try:
            found = find_versions(config.base_path)
        except OSError as error:
            self._warn(f"waiting for its base path {config.base_path}: {error}")
        else:
            wanted = {number: found[number] for number in config.choose(found)}
            self._warn_of_missing(config, found)
            self._update_wanted(wanted)
            self._load_due(wanted)
            self._unload_unwanted(wanted)
        with self._changed:
            self.polled = self.polled or config is self.config
            self._changed.notify_all()

    def _warn_of_missing(self, config: ModelConfig, found: Collection[int]) -> None:
        """Logs which version is not there, and what is."""
        if absent := config.specific - set(found):
            missing = f"version {min(absent)} is not"
        elif not found:
            missing = "no version is"
        else:
            return
        names = sorted(path.name for path in config.base_path.glob("*"))
        holds = ", ".join([*names[:LISTED], *["…"] * (len(names) > LISTED)]) or "nothing"
        self._warn(
            f"{missing} under its base path {config.base_path}, which holds: {holds}. A version is a directory named "
            "by a number without leading zeros"
        )

    def _warn(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._warned >= WARNING_SECONDS:
            self._warned = now
            _log.warning("%s: %s", self.config.name, sentence)

    def _update_wanted(self, wanted: dict[int, StoredVersion]) -> None:
        """Adds the wanted versions that are new or replaced, and ends those that are unwanted before they serve."""
        with self._changed:
            for version in self._versions.values():
                version.wanted = version.wanted and version.number in wanted
                if not version.wanted and version.state in (State.START, State.LOADING):
                    version.state = State.END
            for number, stored in wanted.items():
                known = self._versions.get(number)
                if known is None or (known.state == State.END and (not known.wanted or known.stored != stored)):
                    self._versions[number] = Version(number, stored)

    def _load_due(self, wanted: dict[int, StoredVersion]) -> None:
        for number in sorted(wanted, reverse=True):
            version = self._versions[number]
            if version.state in (State.START, State.LOADING) and version.retry_at <= time.monotonic():
                if self._retired.is_set():
                    return
                self._try_to_load(version)

    def _try_to_load(self, version: Version) -> None:
        title = f"{self.config.name} version {version.number}"
        _log.info("%s: loading from %s", title, version.stored.path)
        self._enter(version, State.LOADING)
        started = time.monotonic()
        try:
            loaded = load_version(version.stored.path, self._options)
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
            version.loaded = loaded
            self._enter(version, State.AVAILABLE)
            _log.info("%s: available after %.0f ms", title, 1000 * (time.monotonic() - started))

    def _unload_unwanted(self, wanted: dict[int, StoredVersion]) -> None:
        served = any(version.number in wanted for version in self.available)
        if served or not wanted:
            for version in self.available:
                if version.number not in wanted:
                    self._unload(version)

    def _unload(self, version: Version) -> None:
        if version.state != State.AVAILABLE or version.loaded is None:
            if version.state != State.END:
                self._enter(version, State.END, version.error)
            return
        self._enter(version, State.UNLOADING)
        with self._changed:
            self._changed.wait_for(lambda: version.requests == 0)
        version.loaded.model.close()
        version.loaded = None
        self._enter(version, State.END)
        _log.info("%s version %d: unloaded", self.config.name, version.number)

    def _enter(self, version: Version, state: int, error: ServingError | None = None) -> None:
        with self._changed:
            version.state = state
            version.error = error
            self.available = [one for one in self.versions() if one.state == State.AVAILABLE]
            self._changed.notify_all()
