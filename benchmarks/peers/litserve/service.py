"""LitServe with its dynamic batching: requests are decoded, batched, predicted, unbatched and encoded."""

import os
from typing import Any

import litserve
from generator import Generator


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.generator = Generator()

    def decode_request(self, request: dict[str, Any]) -> list[int]:
        return list(request["seeds"])

    def batch(self, inputs: list[list[int]]) -> list[list[int]]:
        return inputs

    def predict(self, batch: list[list[int]]) -> list[list[str]]:
        digits = iter(self.generator.digits([seed for seeds in batch for seed in seeds]))
        return [[next(digits) for _ in seeds] for seeds in batch]

    def unbatch(self, output: list[list[str]]) -> list[list[str]]:
        return output

    def encode_response(self, output: list[str]) -> dict[str, Any]:
        return {"images": output}


if __name__ == "__main__":
    api = Digits(max_batch_size=64, batch_timeout=0.002, api_path="/generate")
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
