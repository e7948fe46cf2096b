"""Convolutions whose kernels are known: their spectra are computed once, when a version is loaded."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.convolution import four_product_transforms


class KernelSpectra(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
    """A kernel's spectra, float32 [frequencies, 2, channels, filters].

    They are three to seven times as large as the kernel, so a SavedModel holds the kernel, and what computes the
    spectra belongs to what a model server runs when it loads a version.
    """

    def __init__(self, kernel: NDArray[np.float32], of_kernel: NDArray[np.float32]) -> None:
        self._kernel, self._of_kernel = kernel, of_kernel
        self._shape = [len(of_kernel) // 2, 2, *kernel.shape[2:]]
        super().__init__(device="")
        self._initialize()

    def value(self) -> Any:
        """The spectra, for use in a graph."""
        return tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)

    def _create_resource(self) -> Any:
        if tf.executing_eagerly():  # In this process nobody asks for it by its name, and it goes with its handle.
            self._here = tf.Variable(tf.zeros(self._shape))
            return self._here.handle
        # Versions that are loaded into one process share it if they have the same kernel.
        name = "kernel_spectra_" + hashlib.sha256(self._kernel.tobytes()).hexdigest()[:16]
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=self._shape, shared_name=name)

    def _initialize(self) -> None:
        spectra = tf.matmul(self._of_kernel, self._kernel.reshape(self._of_kernel.shape[1], -1))
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.reshape(spectra, self._shape))


class SpectralConvolution:
    """A stride-1 convolution with "same" padding in the frequency domain, on maps whose positions come first.

    With positions first, each transform is one matrix product with everything else in the columns, and no transpose is
    needed anywhere between two convolutions.
    """

    def __init__(self, kernel: NDArray[np.float64], side: int, *, transposed: bool) -> None:
        """Takes a kernel [k, k, channels, filters], or [k, k, filters, channels] where ``transposed``; k is odd."""
        self._of_map, of_kernel, self._back = (
            matrix.astype(np.float32) for matrix in four_product_transforms(side, len(kernel), transposed)
        )
        if transposed:
            kernel = kernel.swapaxes(2, 3)
        self.spectra = KernelSpectra(np.ascontiguousarray(kernel, np.float32), of_kernel)

    def __call__(self, maps: Any) -> Any:
        """float32 [side², N, channels] -> float32 [side², N, filters]."""
        spectra = self.spectra.value()
        frequencies, _, channels, filters = spectra.shape
        positions = len(self._back)
        x = tf.matmul(self._of_map, tf.reshape(maps, [positions, -1]))
        # Real and imaginary parts of the maps are rows of one product, those of the kernel two products.
        x = tf.matmul(tf.reshape(x, [frequencies, 1, -1, channels]), spectra)
        x = tf.matmul(self._back, tf.reshape(x, [4 * frequencies, -1]))
        return tf.reshape(x, [positions, -1, filters])
