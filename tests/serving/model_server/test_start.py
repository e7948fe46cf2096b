"""Start and end of the server's process."""

import shutil
import signal
from pathlib import Path

from tests.serving.model_server import saved_models
from tests.serving.model_server.conftest import Templates
from tests.serving.model_server.process import config, connected, server_process
from tests.support.waiting import wait_until


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_name_version_and_cause(
    program: str, templates: Templates, models: dict[str, Path], tmp_path: Path
) -> None:
    broken = saved_models.publish(templates.half_plus_two, tmp_path / "broken", 4)
    saved_models.cut_variables(broken)
    with server_process(program, config({"half": models["half"], "broken": tmp_path / "broken"})) as server:
        assert server.wait() not in (0, -signal.SIGKILL)
        assert "broken" in server.log
        assert "version 4" in server.log or "version: 4" in server.log
        assert "OUT_OF_RANGE" in server.log or "Out of range" in server.log


def test_a_server_waits_for_a_base_path_says_so_and_ends_on_sigterm(
    program: str, templates: Templates, models: dict[str, Path], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    with server_process(program, config({"half": models["half"], "late": late})) as server:
        wait_until(lambda: str(late) in server.log, lambda: server.log)
        assert server.process.poll() is None
        shutil.copytree(templates.half_plus_two, tmp_path / "late.tmp" / "3")
        (tmp_path / "late.tmp").rename(late)
        with connected(server) as client:
            assert client.half_plus("late") == (2.5, 3)
            assert client.half_plus("half") == (3.5, 2)
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() in (0, 143, -signal.SIGTERM)
