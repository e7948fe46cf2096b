"""Ray Serve with its dynamic request batching."""

import os
from typing import Any

import ray
from generator import Generator
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Digits:
    def __init__(self) -> None:
        self.generator = Generator()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def digits(self, batch: list[list[int]]) -> list[list[str]]:
        digits = iter(self.generator.digits([seed for seeds in batch for seed in seeds]))
        return [[next(digits) for _ in seeds] for seeds in batch]

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"images": await self.digits((await request.json())["seeds"])}


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Digits.bind(), blocking=True)
