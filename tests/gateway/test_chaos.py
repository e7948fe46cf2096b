"""The model server is killed under load: ``python -m benchmarks.chaos``, in short."""

from pathlib import Path

import pytest

from benchmarks import chaos


def test_a_killed_model_server_is_a_503_soon_and_used_again_when_it_is_back(
    sockets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = chaos.Chaos(sockets, clients=4)
    try:
        findings = run.run(kills=1)
    finally:
        run.stop()
    assert findings.answers["503 /problems/model-server-unreachable"]
    assert findings.answers["200"]
    assert chaos.verdict(findings, slack=4) == [], capsys.readouterr().out
