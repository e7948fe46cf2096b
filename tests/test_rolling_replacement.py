"""Replaced or killed, gateways and model servers lose no request, under the settings of the manifests."""

from collections.abc import Iterator

import pytest

from benchmarks.rolling_replacement import Cluster, Settings, cluster, kill_each_server, measure, replace_everything


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    """Two gateways and two model servers; pauses are a tenth of the manifests'."""
    with cluster(Settings.of_base(pace=0.1)) as made:
        yield made


def test_nothing_is_lost_while_everything_is_replaced(made: Cluster) -> None:
    before = {process.process.pid for process in (*made.gateways, *made.servers.values())}
    outcome = measure(replace_everything, made, requests=500, rate=50)
    assert len(outcome.seconds) >= 500
    assert outcome.failures == []
    assert before.isdisjoint({process.process.pid for process in (*made.gateways, *made.servers.values())})


def test_nothing_is_lost_when_each_model_server_is_killed(made: Cluster) -> None:
    outcome = measure(kill_each_server, made, requests=200, rate=50)
    assert outcome.failures == []
