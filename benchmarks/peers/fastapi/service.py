"""FastAPI and ONNX Runtime by hand. The endpoint is a plain function: FastAPI runs those in threads."""

from fastapi import FastAPI
from generator import Generator
from pydantic import BaseModel

app = FastAPI()
generator = Generator()


class Request(BaseModel):
    seeds: list[int]


class Answer(BaseModel):
    images: list[str]


@app.post("/generate")
def generate(request: Request) -> Answer:
    return Answer(images=generator.digits(request.seeds))
