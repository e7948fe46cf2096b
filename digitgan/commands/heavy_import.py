"""The import that the commands around training wait for."""

from serving.quiet import quiet_tensorflow_import


def import_tensorflow() -> None:
    """Imports TensorFlow without its announcements, and prepares it to compute."""
    from training.bar import announce

    announce("Loading TensorFlow")
    with quiet_tensorflow_import():
        from training.devices import prepare_tensorflow

        prepare_tensorflow()  # It lists the GPUs, and TensorFlow reports on stderr what it finds.
