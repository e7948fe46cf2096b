"""An MLServer runtime with its adaptive batching, which joins the inputs of requests (model-settings.json)."""

from generator import Generator
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    async def load(self) -> bool:
        self.generator = Generator()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        seeds = NumpyCodec.decode_input(payload.inputs[0]).ravel().tolist()
        output = StringCodec.encode_output("images", self.generator.digits(seeds))
        return InferenceResponse(model_name=self.name, outputs=[output])
