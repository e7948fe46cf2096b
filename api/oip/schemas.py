"""The JSON of the Open Inference Protocol. Unknown fields are ignored: the protocol allows extensions."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class _Request(BaseModel):
    """Part of a request. An optional member that is null counts as absent, as in KServe and MLServer."""

    model_config = ConfigDict(strict=True, frozen=True)


class TensorParameters(_Request):
    """How an input or a requested output is sent."""

    binary_data_size: NonNegativeInt | None = Field(
        default=None, description="Input: so many bytes after the JSON are the tensor, in place of data."
    )
    binary_data: bool | None = Field(default=None, description="Output: whether it comes as bytes after the JSON.")
    classification: None = Field(default=None, description="Not supported.")
    shared_memory_region: None = Field(default=None, description="Not supported.")


class RequestParameters(_Request):
    """How the request is answered."""

    binary_data_output: bool | None = Field(
        default=None, description="Whether outputs that don't say come as bytes after the JSON."
    )


class InputTensor(_Request):
    """One input."""

    name: str = Field(description="The input's name.")
    shape: list[NonNegativeInt] = Field(description="All dimensions, the batch first.")
    datatype: str = Field(description="The contract's: FP32 or UINT8.")
    parameters: TensorParameters | None = Field(default=None, description="How the tensor is sent.")
    data: list[Any] | None = Field(
        default=None,
        description="The numbers in row-major order, nested as the shape says or flat; unless they come as bytes.",
    )


class OutputTensor(_Request):
    """One output to return."""

    name: str = Field(description="The output's name.")
    parameters: TensorParameters | None = Field(default=None, description="How the tensor is sent.")


class InferenceRequest(_Request):
    """An inference request object."""

    id: str | None = Field(default=None, description="Comes back in the answer.")
    parameters: RequestParameters | None = Field(default=None, description="How it is answered.")
    inputs: list[InputTensor] = Field(description="The model's one input.")
    outputs: list[OutputTensor] | None = Field(default=None, description="The outputs to return; all if none is named.")


class TensorMetadata(BaseModel):
    """What an input or an output looks like."""

    name: str = Field(description="Its name.")
    datatype: str = Field(description="Its datatype, by the protocol's names.")
    shape: list[int] = Field(description="Its dimensions; -1 is the batch.")


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str = Field(description="The model's name.")
    versions: list[str] = Field(description="The AVAILABLE versions.")
    platform: str = Field(description="What runs it.")
    inputs: list[TensorMetadata] = Field(description="Its input.")
    outputs: list[TensorMetadata] = Field(description="Its outputs.")


class OutputData(TensorMetadata):
    """One output."""

    data: list[float] = Field(default_factory=list, description="The numbers, flat, unless they come as bytes.")
    parameters: TensorParameters = Field(
        default_factory=TensorParameters, description="binary_data_size: so many bytes after the JSON are the tensor."
    )


class InferenceResponse(BaseModel):
    """An inference response object."""

    model_name: str = Field(description="The model that answered, as the model server says.")
    model_version: str = Field(description="Its version, as the model server says.")
    id: str = Field(default_factory=str, description="The request's, if it has one.")
    outputs: list[OutputData] = Field(description="The outputs, in the order of the request.")


class RepositoryEntry(BaseModel):
    """One version of a model."""

    name: str = Field(description="The model's name.")
    version: str = Field(description="The version's number.")
    state: State = Field(description="READY means that it is AVAILABLE.")
    reason: str = Field(description="The error that ended it; empty without one.")
