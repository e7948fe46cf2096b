"""The sections of a report. One without data says what is missing, and which command makes it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element

from serving.contract import CLASSES
from training import plots
from training.report.criteria import CRITERIA, outcomes, score_outcomes
from training.report.elements import (
    Child,
    digits,
    element,
    image,
    mark,
    missing,
    paragraph,
    plot,
    table,
)
from training.report.pictures import COMPARED, NEIGHBOURS, NO_SEED, WALK_STEPS, Pictures
from training.stability import Stability, Trend
from training.story import COLUMNS, Story, describe, main_milestones

EVALUATE: Final = "digitgan evaluate RUN"
EXPORT: Final = "digitgan export RUN"
TRAIN: Final = "digitgan train"


def figures(evaluation: Mapping[str, Any] | None) -> list[Element]:
    """The table of the figures beside floor and deck, and the share of each digit."""
    if evaluation is None:
        return [missing("The figures are missing: nothing has been evaluated yet.", EVALUATE)]
    own, floor, deck = evaluation["figures"], evaluation.get("floor"), evaluation.get("deck")
    met = {outcome.criterion.key: outcome.met for outcome in outcomes(own, floor)}
    rows: list[Sequence[Child]] = [
        [
            criterion.name,
            element("strong", criterion.show(own)),
            mark(met.get(criterion.key)),
            *(criterion.show(other) if other and criterion.key in other else "–" for other in (floor, deck)),
            criterion.target or "–",
        ]
        for criterion in CRITERIA
        if criterion.key in own
    ]
    deck_name = f"Deck, {deck['steps']:,} steps" if deck else "Deck"
    head = ["Figure", "Here", "Target met", "Floor", deck_name, "Target"]
    shares: list[Sequence[Child]] = [
        [name, *(f"{100 * share:.1f}" for share in each["class_shares"])]
        for name, each in (("Here", own), ("Floor", floor), ("Deck", deck))
        if each and "class_shares" in each
    ]
    return [
        paragraph(
            f"{evaluation['images']:,} images, of the seeds 0 to {evaluation['images'] - 1:,}, against MNIST's "
            f"{evaluation['reference']} images, in the features of a digit classifier. The floor is the same measured "
            "on as many training images in the place of generated ones: what chance alone leaves between two sets of "
            "real digits. The deck is the course deck's recipe, trained for as many steps or the nearest number below."
        ),
        table("Figures of the evaluation", head, rows, class_="figures"),
        table("Share of each digit, in per cent", ["Digit", *map(str, range(CLASSES))], shares, class_="shares"),
    ]


def story(told: Story | None, floor_note: str) -> list[Element]:
    """Time-lapse, milestones, losses, stability, and the figures over the steps; ``floor_note`` tells which floor."""
    if told is None:
        return [
            missing(
                "There is no story here: this is a report of models, and the story is a run's.", "digitgan report RUN"
            )
        ]
    return [
        *_pictured(told),
        element("h3", "Losses"),
        *_losses(told),
        element("h3", "Figures over the steps"),
        *_on_the_way(told, floor_note),
    ]


def _pictured(told: Story) -> list[Element]:
    if not told.milestones or told.time_lapse is None:
        return [missing("The pictures are missing: the run has reached no milestone yet.", TRAIN)]
    first, last = told.milestones[0], told.milestones[-1]
    named = any(each.legible is not None for each in told.milestones)
    rows: list[Sequence[Child]] = [
        [
            f"{each.step:,}",
            describe(each) or "–",
            digits(each.digits[:COLUMNS], COLUMNS, f"The seeds 0 to {COLUMNS - 1} after step {each.step:,}"),
        ]
        for each in main_milestones(told.milestones)
    ]
    alt = (
        f"Time-lapse: the digits of 64 fixed seeds at {len(told.milestones)} milestones from step {first.step:,} to "
        f"step {last.step:,}"
    )
    return [
        element(
            "figure",
            image(told.time_lapse, alt, class_="pixels"),
            element("figcaption", "The same 64 seeds at each milestone. The last one is held."),
            class_="lapse",
        ),
        table("The first ten seeds", ["Step", "Stage", "Digits"], rows, class_="milestones"),
        paragraph(
            "The stages are the course deck's, named by what is measured on these 64 digits and not by the step: noise "
            "while less than half of the pixels are background, then first shapes, patterns from 20 % legible digits "
            "on, sharper from 50 %, mature from 80 %. With 64 digits such a share is known to about six points."
            if named
            else "The stages after the noise have no names here, for no classifier looked at the digits.",
            class_="note",
        ),
    ]


def _losses(told: Story) -> list[Element]:
    stability = told.stability
    if told.losses is None:
        return [missing("The losses are missing: the log of the run is empty.", TRAIN)]
    return [
        plot(
            told.losses,
            "Both losses and the discriminator's accuracy on real and on generated images over the steps",
            "Faint: each line of the log. Strong: their moving mean. Dotted: where each would be if the discriminator "
            "could only guess.",
        ),
        paragraph(element("strong", "Was it stable? "), stability.words),
        *_trends(stability),
    ]


def _trends(stability: Stability) -> list[Element]:
    if stability.generator is None or stability.discriminator is None:
        return []
    rows = [_trend("Generator", stability.generator), _trend("Discriminator", stability.discriminator)]
    head = ["Loss, in nats", "Mean", "If guessing", "Change", "95 % interval", "Spread", "Course"]
    return [
        table(f"Last third of the run, from step {stability.first_step:,}", head, rows),
        paragraph(
            "Change: the slope of a straight line through the means of ten blocks of the log, times the length of the "
            "part; block means, because neighbouring lines of a log are alike and would make the interval too narrow. "
            "Spread: the standard deviation about that line.",
            class_="note",
        ),
    ]


def _trend(name: str, trend: Trend) -> list[Child]:
    return [
        name,
        f"{trend.mean:.3f}",
        f"{trend.guess:.3f}",
        f"{trend.change:+.3f}",
        f"{trend.change_low:+.3f} to {trend.change_high:+.3f}",
        f"{trend.spread:.3f}",
        trend.direction,
    ]


def _on_the_way(told: Story, floor_note: str) -> list[Element]:
    if told.metrics is None:
        return [missing("The run was not evaluated on the way.", "digitgan train --evaluate-every STEPS")]
    first, last = told.evaluations[0], told.evaluations[-1]
    since = told.stability.first_step
    before = max((each for each in told.evaluations if since and each["step"] <= since), key=_step, default=first)
    words = (
        f"The Fréchet distance went from {first['frechet_distance']:.1f} at step {first['step']:,} to "
        f"{last['frechet_distance']:.2f} at step {last['step']:,}."
    )
    if before is not first and before is not last:
        words += (
            f" While the losses did what is told above, from step {before['step']:,} on, it still went from "
            f"{before['frechet_distance']:.2f} to {last['frechet_distance']:.2f}: the losses alone don't tell that."
        )
    best = min(told.evaluations, key=lambda row: float(row["frechet_distance"]))
    words += (
        f" It was smallest at step {_step(best):,}, {best['frechet_distance']:.2f}: that generator is the one served."
    )
    caption = f"The averaged generator against the validation images, which nothing is trained on. {floor_note}"
    return [
        plot(told.metrics, "Figures of the evaluations during the run over its steps, a panel each", caption.rstrip()),
        paragraph(words),
    ]


def _step(row: Mapping[str, Any]) -> int:
    return int(row["step"])


def by_digit(pictures: Pictures | None) -> list[Element]:
    """A column a digit."""
    if pictures is None:
        return [_no_pictures()]
    rows = pictures.by_digit.transpose(1, 0, 2, 3).reshape(-1, *pictures.by_digit.shape[2:])
    absent = [str(digit) for digit, seeds in enumerate(pictures.by_digit_seeds) if (seeds == NO_SEED).all()]
    head = element(
        "div", *(element("span", str(digit)) for digit in range(CLASSES)), class_="digits", aria_hidden="true"
    )
    alt = "Generated digits in ten columns by the digit that they read as, 0 to 9"
    note = "The first seeds that read as each digit, not chosen for their looks."
    if absent:
        note += f" Nothing reads as {', '.join(absent)}."
    return [
        element("figure", head, digits(rows, CLASSES, alt, class_="pixels"), element("figcaption", note), class_="grid")
    ]


def walks(pictures: Pictures | None) -> list[Element]:
    """From one seed's noise to another's."""
    if pictures is None:
        return [_no_pictures()]
    if not len(pictures.walks):
        return [paragraph("There is no walk: nothing could be made from noise between two seeds.", class_="missing")]
    made = [
        element(
            "figure",
            digits(
                images, WALK_STEPS, f"{WALK_STEPS} digits on the way from seed {start} to seed {end}", class_="pixels"
            ),
            element("figcaption", f"seed {start} to seed {end}"),
            class_="walk",
        )
        for images, (start, end) in zip(pictures.walks, pictures.walk_seeds.tolist(), strict=True)
    ]
    return [
        paragraph(
            "On an arc between the noise of two seeds (spherical interpolation, White 2016), each row changes from one "
            "digit into another. Where the steps between are digits too, the generator has learnt shapes; jumps from "
            "one training image to the next would mean that it had learnt those by heart."
        ),
        *made,
    ]


def nearest(pictures: Pictures | None) -> list[Element]:
    """Samples beside their nearest training images."""
    if pictures is None:
        return [_no_pictures()]
    cards = [
        element(
            "figure",
            element(
                "div",
                digits(sample[None], 1, f"Generated, seed {seed}", class_="pixels one"),
                digits(neighbours, len(neighbours), "Its nearest training images", class_="pixels three"),
                class_="pair",
            ),
            element(
                "figcaption", f"seed {seed}", element("br"), ", ".join(f"{distance:.2f}" for distance in distances)
            ),
            class_="card",
        )
        for sample, seed, neighbours, distances in zip(
            pictures.nearest,
            pictures.nearest_seeds.tolist(),
            pictures.neighbours,
            pictures.neighbour_distances.tolist(),
            strict=True,
        )
    ]
    return [
        paragraph(
            f"A generated digit, and right of it the {NEIGHBOURS} training images nearest to it with their distances "
            "(Euclidean, on pixels from 0 to 1; 0 would be a copy)."
        ),
        element("h3", "The nearest of each digit"),
        element("div", *cards[:COMPARED], class_="cards"),
        element("h3", f"{len(cards[COMPARED:])} at random"),
        element("div", *cards[COMPARED:], class_="cards"),
    ]


def least_legible(pictures: Pictures | None) -> list[Element]:
    """The worst of it."""
    if pictures is None:
        return [_no_pictures()]
    cards = [
        element(
            "figure",
            digits(sample[None], 1, f"Generated, seed {seed}", class_="pixels"),
            element("figcaption", f"seed {seed}", element("br"), f"{digit} at {100 * confidence:.0f} %"),
            class_="small",
        )
        for sample, seed, digit, confidence in zip(
            pictures.least_legible,
            pictures.least_legible_seeds.tolist(),
            pictures.least_legible_digits.tolist(),
            pictures.least_legible_confidences.tolist(),
            strict=True,
        )
    ]
    return [
        paragraph("Of all samples, those that the classifier is least sure of, with its best guess."),
        element("div", *cards, class_="cards smalls"),
    ]


def score(found: Mapping[str, Any] | None) -> list[Element]:
    """The discriminator as a detector."""
    if found is None:
        return [missing("The score is missing: no discriminator was evaluated.", f"{EXPORT} && {EVALUATE}")]
    rows: list[Sequence[Child]] = [
        [name, element("strong", f"{value:.3f}"), mark(met), target or "–"]
        for name, value, target, met in score_outcomes(found)
    ]
    return [
        paragraph(
            "The discriminator's probability that an image is real, on test images against fresh generated ones, half "
            "and half. The area under the curve is the chance that a real image gets the higher logit of the two "
            "(Fawcett 2006); the calibration error is the mean gap between the probability told and the share that was "
            "real, over 15 bins (Naeini et al. 2015)."
        ),
        table("Figures of the score", ["Figure", "Here", "Target met", "Target"], rows),
        element(
            "div",
            plot(
                plots.reliability(found["reliability"]),
                "Share of images that were real over the probability told, with the diagonal",
                "Reliability: on the diagonal a probability can be believed. Larger points stand for more images.",
            ),
            plot(
                plots.logits(found["logits"]),
                "Histograms of the logits of real and of generated images",
                "Raw logits. The less the two overlap, the better real and generated are told apart.",
            ),
            class_="plots",
        ),
    ]


def explanations() -> list[Element]:
    """How each figure is computed."""
    terms = [each for criterion in CRITERIA for each in (element("dt", criterion.name), element("dd", criterion.how))]
    return [element("dl", *terms)]


def provenance(evaluation: Mapping[str, Any] | None, config: Mapping[str, Any] | None) -> list[Element]:
    """Whose digits these are: what the evaluation and the run's configuration say about themselves."""
    facts: dict[str, Any] = {}
    for prefix, mapping in (
        ("", _flat(config)),
        ("source: ", _flat(evaluation and evaluation.get("source"))),
        ("classifier: ", _flat(evaluation and evaluation.get("classifier"))),
    ):
        facts |= {prefix + name: value for name, value in mapping.items()}
    if not facts:
        return [missing("Nothing is known about where these digits come from.", EVALUATE)]
    rows: list[Sequence[Child]] = [[name.replace("_", " "), str(value)] for name, value in facts.items()]
    return [table("As the run and the evaluation tell it", ["Setting", "Value"], rows, class_="provenance")]


def _flat(mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    """One level of a mapping; of mappings in it, their own entries. What isn't known is left out."""
    facts: dict[str, Any] = {}
    for name, value in (mapping or {}).items():
        if isinstance(value, Mapping):
            facts |= _flat(value)
        elif value is not None:
            facts[name] = value
    return facts


def _no_pictures() -> Element:
    return missing(
        "The pictures are missing: the evaluation that chooses them was not run, or not into this folder.", EVALUATE
    )
