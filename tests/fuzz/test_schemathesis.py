"""The live service keeps to its own OpenAPI document: schemathesis' checks, on the real models.

The cases that cover the document as part of the tests; ``make schemathesis`` makes SCHEMATHESIS_EXAMPLES (500) of each.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways

EXAMPLES: Final = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))


# A limit of a microsecond in Request-Timeout is kept to, by 504.
_CONFIG: Final = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


@pytest.fixture(scope="module")
def url(model_server: str) -> Iterator[str]:
    limits = {"max_images": 64, "max_stream_images": 64, "max_pixels": 2**22}  # so that cases are many and not large
    with gateways.gateway(model_server, models_dir=MODELS_DIR, **limits) as process:
        yield process.url
        before, traceback, after = process.log.partition("Traceback")
        assert not traceback, before[-1000:] + traceback + after[:6000]


@pytest.mark.timeout(3600 if EXAMPLES else 300)
def test_it_keeps_to_its_own_description(url: str, tmp_path: Path) -> None:
    if EXAMPLES:
        budget = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)]
        budget += ["--generation-database", "none"]
    else:
        budget = ["--phases", "examples,coverage", "--generation-deterministic"]
    (tmp_path / "schemathesis.toml").write_text(_CONFIG, "utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            # That a string holds a picture, or which fields go together, the document does not say.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--no-color", "--no-shrink", "--continue-on-failure"),
            *("--suppress-health-check", "all", "--warnings", "off", *budget),
            *("--request-timeout", "120", "--max-response-time", "120"),  # for a busy machine
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
