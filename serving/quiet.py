"""Imports TensorFlow without its announcements."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOG_LEVEL: Final = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def quiet_tensorflow_import() -> Iterator[None]:
    """Keeps TensorFlow silent, unless the user has set TF_CPP_MIN_LOG_LEVEL. Its errors arrive as exceptions anyway.

    The import announces the CPU's abilities and missing GPU drivers on file descriptor 2, before the level counts. So
    the block's output there is held back, and shown only if the block fails.
    """
    if LOG_LEVEL in os.environ:
        yield
        return
    os.environ[LOG_LEVEL] = "3"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            with open(stderr, "wb", closefd=False) as target:
                shutil.copyfileobj(held_back, target)
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
