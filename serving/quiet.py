"""TensorFlow's start without its chatter."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow and looks for GPUs, with what its C++ side writes to stderr meanwhile kept back.

    TensorFlow reports there, on every start, what it was built with and that it found no GPU, before any log level
    can take effect. If the import fails, all of it is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept_back:
        stderr = os.dup(2)
        os.dup2(kept_back.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")
        except BaseException:
            kept_back.seek(0)
            os.write(stderr, kept_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
