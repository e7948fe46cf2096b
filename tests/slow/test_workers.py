"""Two workers train one model. One is killed: the job goes on from the checkpoint. One is told to stop: both do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 150.0
ARGUMENTS = ("--preset", "deck", "--batch-size", "4", "--log-every", "1", "--checkpoint-every", "5", "--no-export")


def wait_for(condition: Callable[[], bool], workers: list["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        assert [worker.poll() for worker in workers] == [None, None]
        time.sleep(0.02)


@contextmanager
def job(run: Path, data: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two workers as k8s/overlays/training-workers starts them; those that are left at the end are killed."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]}
    command = [sys.executable, "-m", "digitgan", "train", "--data", str(data), "--run", str(run), "--resume"]
    command += ["--steps", "500", *ARGUMENTS]
    workers = []
    try:
        for index in range(2):
            config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            with Path(f"{run}.{index}.log").open("ab") as log:
                workers.append(subprocess.Popen(command, env=os.environ | {"TF_CONFIG": config}, stderr=log))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        print(Path(f"{run}.0.log").read_text(errors="replace")[-4000:])


def rows(run: Path) -> dict[int, Any]:
    """The whole lines of the run's log, by step."""
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except OSError:
        return {}
    return {row["step"]: row for row in map(json.loads, lines)}


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in (run / "checkpoints").glob("ckpt-*.index"))


@pytest.mark.timeout(600)
def test_a_killed_worker_ends_the_job_which_resumes_and_one_that_is_told_to_stop_stops_it(
    digits_npz: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with job(run, digits_npz) as workers:
        wait_for(lambda: len(rows(run)) >= 7 and bool(checkpoints(run)), workers)
        workers[1].kill()
        assert workers[0].wait(DEADLINE_S) not in (0, 128 + signal.SIGTERM)
    killed, saved = rows(run), checkpoints(run)[-1]
    assert saved % 5 == 0
    with job(run, digits_npz) as workers:
        wait_for(lambda: len(rows(run)) > len(killed), workers)
        workers[1].terminate()
        assert [worker.wait(DEADLINE_S) for worker in workers] == [128 + signal.SIGTERM] * 2
    resumed = rows(run)
    assert list(resumed) == list(range(1, len(resumed) + 1))
    assert checkpoints(run)[-1] == len(resumed)
    assert {step: resumed[step] for step in killed} == killed, "what was lost is computed again, the same"
