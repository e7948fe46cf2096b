"""How long does a training step take, beside the same step written down plainly?

    python -m benchmarks.training_step

Both train the same networks with the same losses and optimisers on the same images, in turn, so that whatever else the
machine does slows both. The plain step uses Keras's own layers, shows the discriminator real and generated images one
after the other, and goes back through it once for each network.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from serving.quiet import quiet_tensorflow_import

MNIST_IMAGES = 60_000


def plain_step(recipe: Any, mixed_precision: bool) -> Callable[[Any], Any]:
    """Returns the step as one would write it down; images float32 [batch_size, 28, 28, 1] -> losses float32 [2]."""
    import keras
    import tensorflow as tf

    from serving.contract import NOISE_DIM
    from training.losses import LOSSES, slope_penalty
    from training.networks import build_discriminator, build_generator

    keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed_precision else "float32")
    generator = build_generator(keras.layers)
    discriminator = build_discriminator(recipe.dropout, keras.layers)
    optimizers = [
        keras.optimizers.Adam(rate, beta_1=recipe.beta_1, beta_2=recipe.beta_2)
        for rate in (recipe.generator_learning_rate, recipe.discriminator_learning_rate)
    ]
    loss = LOSSES[recipe.loss]

    def penalty(images: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = discriminator(images, training=True)
        return recipe.gradient_penalty * tf.reduce_mean(slope_penalty(tape.gradient(logits, images)))

    def step(reals: Any) -> Any:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fakes = generator(tf.random.normal([recipe.batch_size, NOISE_DIM]), training=True)
            real_logits = discriminator(reals, training=True)[:, 0]
            fake_logits = discriminator(fakes, training=True)[:, 0]
            g_loss = tf.reduce_mean(loss.generator(real_logits, fake_logits))
            d_loss = objective = tf.reduce_mean(loss.discriminator(real_logits, fake_logits))
            if recipe.gradient_penalty:
                objective += penalty(reals) + penalty(tf.stop_gradient(fakes))
        both = (generator_tape, g_loss, generator), (discriminator_tape, objective, discriminator)
        for optimizer, (tape, value, network) in zip(optimizers, both, strict=True):
            optimizer.apply(tape.gradient(value, network.trainable_variables), network.trainable_variables)
        return tf.stack([g_loss, d_loss])

    for optimizer, network in zip(optimizers, (generator, discriminator), strict=True):
        optimizer.build(network.trainable_variables)
    compiled: Callable[[Any], Any] = tf.function(step)
    return compiled


def our_step(preset: str, recipe: Any, mixed_precision: bool) -> Callable[[Any], Any]:
    """Returns the training job's step."""
    import tensorflow as tf

    from training.config import TrainingConfig
    from training.step import Trainer

    config = TrainingConfig(
        preset,
        recipe,
        seed=0,
        steps=1,
        images=MNIST_IMAGES,
        data="keras",
        data_sha256="",
        mixed_precision=mixed_precision,
    )
    trainer = Trainer(config, tf.distribute.get_strategy())
    return lambda images: trainer.train_step(images)


def main(
    presets: Annotated[str, typer.Option(help="Presets to time, separated by commas.")] = "deck,best",
    rounds: Annotated[int, typer.Option(help="Timed steps of each kind.", min=3)] = 20,
    batch_size: Annotated[int | None, typer.Option(help="Images a step. Default: the preset's.")] = None,
) -> None:
    """Times the training step beside a plainly written one, in float32 and in bfloat16."""
    console = Console()
    with quiet_tensorflow_import():
        import tensorflow as tf
    from training.config import PRESETS

    table = Table(
        "preset", "precision", "plain, s a step", "ours, s a step", "plain / ours", "ours, s an epoch of 60,000"
    )
    for preset in presets.split(","):
        # The plain step has no critics of features, so ours goes without them too.
        recipe = replace(PRESETS[preset], feature_critics=0.0)
        recipe = recipe if batch_size is None else replace(recipe, batch_size=batch_size)
        images = tf.random.uniform([recipe.batch_size, 28, 28, 1], -1, 1)
        for mixed_precision in (False, True):
            name = "bfloat16" if mixed_precision else "float32"
            steps = {"plain": plain_step(recipe, mixed_precision), "ours": our_step(preset, recipe, mixed_precision)}
            seconds: dict[str, list[float]] = {kind: [] for kind in steps}
            for turn in track(range(-3, rounds), f"{preset}, {name}", console=console):
                for kind, step in steps.items():
                    start = time.perf_counter()
                    step(images).numpy()
                    if turn >= 0:  # the first ones trace and warm up
                        seconds[kind].append(time.perf_counter() - start)
            plain, ours = (statistics.median(seconds[kind]) for kind in ("plain", "ours"))
            ratios = [a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
            epoch = ours * MNIST_IMAGES / recipe.batch_size
            plain_epoch = plain * MNIST_IMAGES / recipe.batch_size
            table.add_row(
                preset, name, f"{plain:.3f}", f"{ours:.3f}", spread, f"{epoch:.0f} (plain: {plain_epoch:.0f})"
            )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
