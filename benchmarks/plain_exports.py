"""The generator exported as one would without thinking of speed, to measure the inference graph against."""

from pathlib import Path
from typing import Any

import numpy as np

from serving.contract import IMAGE_SHAPE, IMAGES, NOISE, NOISE_DIM, PIXEL_SCALE, SIGNATURE
from training.gan.networks import LEAK


def example_generator() -> Any:
    """A generator with random weights, and statistics that are nowhere near their initial values.

    Time doesn't depend on what the weights are, so nothing has to be trained.
    """
    import keras

    from training.gan.networks import build_generator

    keras.utils.set_random_seed(0)
    generator = build_generator()
    rng = np.random.default_rng(0)
    generator.set_weights(
        [np.abs(rng.normal(1, 0.3, weight.shape)) if weight.ndim == 1 else weight for weight in generator.get_weights()]
    )
    return generator


def save_keras(generator: Any, directory: Path) -> None:
    """Writes the Keras network as a SavedModel with the contract's signature, by Keras's own ExportArchive."""
    import tensorflow as tf
    from keras.export import ExportArchive

    def images(noise: Any) -> dict[str, Any]:
        pixels = generator(noise, training=False) * PIXEL_SCALE + PIXEL_SCALE
        return {IMAGES: tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)}

    archive = ExportArchive()
    archive.track(generator)
    archive.add_endpoint(SIGNATURE, images, input_signature=[tf.TensorSpec([None, NOISE_DIM], tf.float32, NOISE)])
    archive.write_out(str(directory), verbose=False)


def save_onnx(generator: Any, path: Path) -> None:
    """Writes the network, layer by layer, as an ONNX model with the contract's input and output."""
    import onnx
    from keras import layers
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), f"constant{len(constants)}"))
        return str(constants[-1].name)

    def node(operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"value{len(nodes)}"
        nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    x = NOISE
    for layer in generator.layers:
        match layer:
            case layers.Dense():
                x = node("MatMul", x, constant(layer.kernel))
            case layers.BatchNormalization():
                x = node("BatchNormalization", x, *map(constant, layer.get_weights()), epsilon=layer.epsilon)
            case layers.LeakyReLU():
                x = node("LeakyRelu", x, alpha=LEAK)
            case layers.Reshape():  # ONNX has channels first
                x = node("Reshape", x, constant(np.array([-1, *layer.target_shape])))
                x = node("Transpose", x, perm=[0, 3, 1, 2])
            case layers.Conv2DTranspose():
                stride = layer.strides[0]
                # "Same" padding crops kernel - stride pixels, the smaller half before.
                cropped = layer.kernel_size[0] - stride
                before, after = cropped // 2, cropped - cropped // 2
                kernel = constant(np.transpose(layer.kernel, (3, 2, 0, 1)))
                x = node("ConvTranspose", x, kernel, strides=[stride] * 2, pads=[before] * 2 + [after] * 2)
            case layers.Activation():
                x = node("Tanh", x)
            case _:
                raise TypeError(f"no ONNX for {layer}")
    scale = constant(np.float32(PIXEL_SCALE))
    x = node("Reshape", x, constant(np.array([-1, *IMAGE_SHAPE])))
    x = node("Add", node("Mul", x, scale), scale)
    x = node("Round", node("Clip", x, constant(np.float32(0)), constant(np.float32(255))))
    node("Cast", x, output=IMAGES, to=TensorProto.UINT8)
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info(NOISE, TensorProto.FLOAT, ["N", NOISE_DIM])],
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["N", *IMAGE_SHAPE])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
