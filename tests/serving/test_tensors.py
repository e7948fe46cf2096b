"""serving.tf_serving.tensors against TensorFlow's own reading and writing of the same protos."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.apis import TensorProto
from serving.tf_serving import tensors

DTYPES = [
    *("float32", "float64", "float16", "bool"),
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
]


def proto(number: int, shape: tuple[int, ...], **fields: object) -> TensorProto:
    return TensorProto(dtype=number, tensor_shape={"dim": [{"size": size} for size in shape]}, **fields)


def read_by_tensorflow(message: TensorProto) -> NDArray[Any]:
    parsed: NDArray[Any] = tf.io.parse_tensor(message.SerializeToString(), tf.dtypes.as_dtype(message.dtype)).numpy()
    return parsed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3)])
def test_an_array_survives_the_way_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    message = tensors.to_proto(array)
    for read in (tensors.to_array(message), read_by_tensorflow(message)):
        assert read.dtype == array.dtype
        assert read.shape == shape
        np.testing.assert_array_equal(read, array)


def test_an_array_that_is_not_contiguous_or_big_endian_is_written_in_order() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    np.testing.assert_array_equal(read_by_tensorflow(tensors.to_proto(array)), array)


@pytest.mark.parametrize(
    "message",
    [
        proto(1, (2,), float_val=[1, 2]),
        proto(1, (3,), float_val=[1, 2]),
        proto(1, (1,), float_val=[1, 2]),
        proto(1, (2,)),
        proto(1, (), float_val=[4]),
        proto(1, (0,), float_val=[4]),
        proto(1, (1,), float_val=[4], tensor_content=b"\0\0\0\0"),
        proto(2, (2,), double_val=[0.1]),
        proto(3, (2, 2), int_val=[-1, 7]),
        proto(4, (3,), int_val=[300, -1]),
        proto(6, (3,), int_val=[300, -1]),
        proto(9, (2,), int64_val=[-(2**62)]),
        proto(10, (2,), bool_val=[True, False]),
        proto(19, (3,), half_val=[0x3C00, 0xC000]),
        proto(23, (2,), uint64_val=[2**64 - 1]),
        proto(1, (1,), int_val=[5]),
    ],
    ids=repr,
)
def test_lists_are_read_by_tensorflows_rules(message: TensorProto) -> None:
    expected = read_by_tensorflow(message)
    actual = tensors.to_array(message)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (TensorProto(), "no dtype"),
        (proto(1, (1,), tensor_content=b"abc"), "3 bytes"),
        (proto(1, (1,), tensor_content=b"abcdefgh"), "8 bytes"),
        (proto(1, (-1,), float_val=[1]), "negative"),
        (proto(1, (0, -1)), "negative"),
        (proto(1, (2**40, 2**40), float_val=[1]), "larger"),
        (proto(10, (1,), tensor_content=b"\2"), "bool"),
        (proto(101, (1,), float_val=[1]), "unsupported dtype DT_101"),
    ],
    ids=["empty", "too short", "too long", "negative", "negative with zero", "overflow", "bool", "ref"],
)
def test_what_tensorflow_refuses_is_refused(message: TensorProto, complaint: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.parse_tensor(message.SerializeToString(), tf.float32)
    with pytest.raises(tensors.TensorError, match=complaint):
        tensors.to_array(message)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (TensorProto(dtype=1, tensor_shape={"unknown_rank": True}, float_val=[1]), "unknown rank"),
        (proto(1, (2**30,), float_val=[1]), "larger than"),
        (proto(7, (1,), string_val=[b"a"]), "unsupported dtype DT_7"),
        (proto(8, (1,), scomplex_val=[1, 2]), "unsupported dtype"),
        (proto(1, (1,) * 65, float_val=[1]), "dimension"),
        (proto(1, (0, 2**40, 2**40)), "too big"),
    ],
    ids=["unknown rank", "4 GiB from one value", "strings", "complex", "65 dimensions", "0 × 2^80"],
)
def test_what_is_refused_although_tensorflow_reads_it(message: TensorProto, complaint: str) -> None:
    with pytest.raises(tensors.TensorError, match=complaint):
        tensors.to_array(message)


@pytest.mark.parametrize("array", [np.array([1j]), np.array(["text"]), np.array([b"a"], object)])
def test_arrays_without_a_proto_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(tensors.TensorError):
        tensors.to_proto(array)
