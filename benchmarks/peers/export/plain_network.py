"""Writes the generator's plain network as ONNX: python plain_network.py weights.npz generator.onnx

Layer by layer as it was trained, with batch normalisation folded into the weights before it, as every exporter does.
"""

import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAK = 0.2


def build(weights: Any) -> onnx.ModelProto:
    """Returns the model. ``weights``: as ``benchmarks.peers.model`` reads them."""
    initializers = [
        numpy_helper.from_array(np.asarray(weights[name], np.float32), name)
        for name in ("dense_kernel", "dense_bias", "first_bias", "second_bias")
    ]
    # ONNX has [in, out, height, width], TensorFlow [height, width, out, in].
    for name in ("first_kernel", "second_kernel", "last_kernel"):
        kernel = np.ascontiguousarray(weights[name].transpose(3, 2, 0, 1), np.float32)
        initializers.append(numpy_helper.from_array(kernel, name))
    initializers += [
        numpy_helper.from_array(np.array([-1, 7, 7, 256]), "maps"),
        numpy_helper.from_array(np.array([-1, 28, 28, 1]), "image"),
        numpy_helper.from_array(np.float32(127.5), "half"),
        numpy_helper.from_array(np.float32(0), "black"),
        numpy_helper.from_array(np.float32(255), "white"),
    ]
    # "Same" padding crops kernel - stride pixels, the smaller half before.
    stride_1 = {"strides": [1, 1], "pads": [2, 2, 2, 2]}
    stride_2 = {"strides": [2, 2], "pads": [1, 1, 2, 2]}
    nodes = [
        helper.make_node("Gemm", ["noise", "dense_kernel", "dense_bias"], ["a"]),
        helper.make_node("LeakyRelu", ["a"], ["b"], alpha=LEAK),
        helper.make_node("Reshape", ["b", "maps"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 3, 1, 2]),
        helper.make_node("ConvTranspose", ["d", "first_kernel", "first_bias"], ["e"], **stride_1),
        helper.make_node("LeakyRelu", ["e"], ["f"], alpha=LEAK),
        helper.make_node("ConvTranspose", ["f", "second_kernel", "second_bias"], ["g"], **stride_2),
        helper.make_node("LeakyRelu", ["g"], ["h"], alpha=LEAK),
        helper.make_node("ConvTranspose", ["h", "last_kernel"], ["i"], **stride_2),
        helper.make_node("Tanh", ["i"], ["j"]),
        helper.make_node("Reshape", ["j", "image"], ["k"]),
        helper.make_node("Mul", ["k", "half"], ["l"]),
        helper.make_node("Add", ["l", "half"], ["m"]),
        helper.make_node("Clip", ["m", "black", "white"], ["n"]),
        helper.make_node("Round", ["n"], ["o"]),
        helper.make_node("Cast", ["o"], ["images"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["N", 100])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 28, 28, 1])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    onnx.save(build(np.load(sys.argv[1])), sys.argv[2])
