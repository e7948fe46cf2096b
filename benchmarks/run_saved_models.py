"""Runs SavedModels as TensorFlow Serving loads them, on whatever TensorFlow this Python has.

    python run_saved_models.py models.json answers.npz

``models.json``: for each key the directory of a SavedModel, its signature, the name of its input, and an .npy file of
rows, which are run in batches of 1, 8 and the rest. The answers are stored as "<key>/<output>". It imports nothing of
the project, so that it runs in environments that hold TensorFlow alone.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf

BATCHES = (1, 8)


def main(models: Path, answers: Path) -> None:
    """Runs them all; prints the version of TensorFlow."""
    found = {}
    for key, (directory, signature, name, rows_file) in json.loads(models.read_text()).items():
        rows = np.load(rows_file)
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory)
            spec = loaded.signature_def[signature]
            fetches = {output: info.name for output, info in spec.outputs.items()}
            starts = [0, *BATCHES, len(rows)]
            parts = [
                session.run(fetches, {spec.inputs[name].name: rows[start:end]})
                for start, end in pairwise(starts)
                if start < end
            ]
        for output in fetches:
            found[f"{key}/{output}"] = np.concatenate([part[output] for part in parts])
    np.savez(answers, **found)  # type: ignore[arg-type] # numpy's stubs see allow_pickle
    print(tf.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
