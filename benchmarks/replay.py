"""A model server that answers at once: python -m benchmarks.replay digits.npy socket

It has the real one's digits, uint8 [256, 28, 28], and gives the first N of them for any N rows. What is left of a
request's time in front of it is the gateway's, and both sides of the gRPC call.
"""

import signal
import sys

import grpc
import numpy as np

from serving.apis import PredictRequest
from serving.contract import IMAGES, NOISE
from tests.support.misbehaving import MisbehavingServer, answer

if __name__ == "__main__":
    digits = np.load(sys.argv[1])[..., np.newaxis]
    recorded: dict[int, bytes] = {}

    def replay(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        """Returns the recorded answer for as many rows; records it the first time."""
        rows = request.inputs[NOISE].tensor_shape.dim[0].size
        if rows not in recorded:
            recorded[rows] = answer(request, {IMAGES: digits[:rows]})
        return recorded[rows]

    with MisbehavingServer(f"unix:{sys.argv[2]}") as server:
        server.behaviour = replay
        print("ready", flush=True)
        signal.pause()
