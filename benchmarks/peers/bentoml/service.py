"""BentoML with its adaptive batching: a batchable method takes and returns lists, cut out of what has come together."""

import bentoml
from generator import Generator


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 512})
class Digits:
    def __init__(self) -> None:
        self.generator = Generator()

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=1000)
    def generate(self, seeds: list[int]) -> list[str]:
        return self.generator.digits(seeds)
