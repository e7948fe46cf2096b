"""A rolling replacement of both gateways and both model servers loses no request."""

from benchmarks.rolling_replacement import measure


def test_nothing_is_lost_while_everything_is_replaced() -> None:
    seconds, failures = measure(requests=500, rate=50)
    assert len(seconds) >= 500
    assert failures == []
