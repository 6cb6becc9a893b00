"""The page of a segmentation run's worst and best images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.experiment.placement import best_device
from fieldshift.training import MapQuality
from fieldshift.training.map_table import map_means
from fieldshift.wording import printable

if TYPE_CHECKING:
    import torch

    from fieldshift.data import DataSet
    from fieldshift.report.figures.maps import MapExample

SHOWN = 4
PAGE = "failures.html"


def write_failure_page(
    folder: Path, run: Path, dataset: DataSet, maps: Sequence[MapQuality], *, score: float, align: bool
) -> Path | None:
    """Writes `failures.html` into `folder` for the network of `run`: numbers, the worst and the best test images.

    Returns its path, or None where no map was judged. `score` is the mIoU over the whole test split, in [0, 1].
    """

    from fieldshift.report import FigureBlock, KeyNumber, KeyNumbers, Paragraph, Section, TableBlock, write_report
    from fieldshift.report.figures.maps import map_examples
    from fieldshift.training import load_network

    if not maps:
        return None
    device = best_device()
    network, card = load_network(run, device)
    ranked = sorted(maps, key=lambda each: (each.overlap, each.boundary))
    shown = min(SHOWN, -(-len(ranked) // 2))
    parts = {"worst": ranked[:shown], "best": ranked[::-1][:shown]}
    means = map_means(maps)
    numbers = KeyNumbers(
        [
            KeyNumber(f"{score:.1%}", "mIoU", "over all pixels of the split"),
            KeyNumber(f"{means['boundary_f']:.1%}", "boundary F-score", "mean over images"),
            KeyNumber(f"{means['extra_components']:.1f}", "extra regions per image", "mean over images"),
        ]
    )
    folded = "motions folded into one frame" if card.form == "folded" else "no motions"
    fused = folded if card.frames == 1 else f"{card.frames} frames, fused {'aligned' if align else 'unaligned'}"
    sections = [
        Section(
            "Numbers",
            [
                numbers,
                Paragraph(
                    "Overlap is an image's own intersection over union, averaged over its classes. The boundary F-score "
                    "asks how much of the predicted boundary lies within 0.75 % of the diagonal of the network's input from a "
                    "true boundary of the same class, and vice versa. Extra regions are 4-connected regions in excess of "
                    "the ground truth's number, summed over classes (over-segmentation)."
                ),
                TableBlock(spread(maps), f"Distribution of the measures over the {len(maps)} test images."),
            ],
        )
    ]
    for name, chosen in parts.items():
        examples = predicted_examples(network, card.plan(), dataset, chosen, align=align, device=device)
        listed = ", ".join(sample_name(dataset, each.index) for each in chosen)
        sections.append(
            Section(
                f"The {name} images",
                [
                    FigureBlock(
                        map_examples(examples, [printable(name) for name in card.classes]),
                        f"The {len(chosen)} test images with the {'lowest' if name == 'worst' else 'highest'} overlap.",
                        f"Image, ground truth, prediction and wrong pixels of {listed}.",
                    )
                ],
            )
        )
    title = f"Failure cases: {card.network}, {card.temporal}"
    return write_report(folder / PAGE, title=title, subtitle=f"{dataset.name}, {fused}", sections=sections)


def predicted_examples(
    network: Any, plan: Any, dataset: DataSet, chosen: Sequence[MapQuality], *, align: bool, device: torch.device
) -> list[MapExample]:
    """The chosen test images with the network's maps, as evaluation computes them."""
    import torch

    from fieldshift.report.figures.maps import MapExample
    from fieldshift.training.step import forward

    network.eval()
    examples = []
    for each in chosen:
        images, targets = dataset.test.gather(torch.tensor([each.index]))
        with torch.no_grad():
            logits, _ = forward(network, network, plan.evaluation_video(images.to(device)), plan if align else None)
        picture = images[0].cpu().permute(1, 2, 0).numpy()
        words = (
            f"{sample_name(dataset, each.index)}: overlap {each.overlap:.1%}, boundary F {each.boundary:.1%}, "
            f"{each.extra_components} extra regions"
        )
        examples.append(
            MapExample(
                image=picture[..., 0] if picture.shape[-1] == 1 else picture,
                truth=targets[0].cpu().numpy(),
                predicted=logits.argmax(1)[0].cpu().numpy(),
                words=words,
            )
        )
    return examples


def sample_name(dataset: DataSet, index: int) -> str:
    """The file's name of a test sample, or its number where it has no file."""
    files = getattr(dataset.test, "files", None)
    return f"image {index}" if files is None else printable(Path(files(index)[0]).stem)


def spread(maps: Sequence[MapQuality]) -> Any:
    """Quartiles of every measure over the images."""
    import numpy as np
    import pandas as pd

    columns = {
        "overlap, %": [100 * each.overlap for each in maps],
        "boundary F, %": [100 * each.boundary for each in maps],
        "extra regions": [float(each.extra_components) for each in maps],
    }
    names = ("lowest", "lower quarter", "median", "upper quarter", "highest")
    return pd.DataFrame(
        [
            {"measure": name} | dict(zip(names, np.percentile(values, [0, 25, 50, 75, 100]).round(1), strict=True))
            for name, values in columns.items()
        ]
    )


def say_maps(maps: Sequence[MapQuality], page: Path | None) -> None:
    """Prints the means beside the mIoU, and where the page is."""
    if maps and page is not None:
        means = map_means(maps)
        say(
            f"boundary F-score {means['boundary_f']:.2%}, {means['extra_components']:.1f} extra regions per image; "
            f"failure cases: {page}"
        )
