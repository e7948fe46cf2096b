"""The exporter's log without a collector: one record a minute."""

import logging

from opentelemetry.exporter.otlp.proto.grpc import exporter

from api.telemetry.tracing import _EXPORTER, OncePer


def test_one_record_passes_in_each_period() -> None:
    once = OncePer(60.0)

    def passes(at_s: float) -> bool:
        record = logging.LogRecord("exporter", logging.ERROR, "", 0, "no collector", None, None)
        record.created = at_s
        return once.filter(record)

    assert [passes(at_s) for at_s in (100.0, 101.0, 159.0, 160.0, 161.0, 221.0)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_the_exporter_logs_by_that_name() -> None:
    assert exporter.logger.name == _EXPORTER
