"""When a run is pictured."""

from typing import Final

from training.config import TrainingConfig

STEPS: Final = (1, 200, 300, 600, 700, 900, 1000)
"""The course deck's stages, in steps."""


def milestones(config: TrainingConfig) -> frozenset[int]:
    """The steps after which the same fixed noise is pictured.

    The deck's seven stages; after them the end of each epoch, thinned as the run grows long (every epoch up to the
    10th, every 5th up to the 50th, every 25th beyond); and the last step.
    """
    last_epoch = int(config.epochs_at(config.steps))
    epochs = [
        epoch
        for epoch in range(1, last_epoch + 1)
        if epoch <= 10 or (epoch <= 50 and epoch % 5 == 0) or epoch % 25 == 0
    ]
    epoch_ends = (config.step_of_epoch(epoch) for epoch in epochs)
    return frozenset(
        step
        for step in (*STEPS, *(step for step in epoch_ends if step > STEPS[-1]), config.steps)
        if step <= config.steps
    )
