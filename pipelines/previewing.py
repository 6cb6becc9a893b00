"""Previews of policies: example images as strips of frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.data.names import check_data_name
from fieldshift.errors import UserError
from fieldshift.experiment.policy_source import PolicySource, check_policy, missing_policy, policy_of_form
from fieldshift.forms import Form, check_form, check_length
from fieldshift.wording import printable
from pipelines.options import check_figure, check_pictures

if TYPE_CHECKING:
    from torch import Tensor

    from fieldshift.folding import AnyPolicy

NEIGHBOURS = (
    "frames: previous, reference, next; some channels move like the previous frame, some like the next one, others stay"
)


@dataclass(frozen=True)
class PreviewResult:
    """The path of the picture and its notes: the policy in words and, for files, the size after cropping."""

    path: Path
    words: list[str]


@dataclass(frozen=True)
class Examples:
    """Images (N, C, H, W) to draw, a label for each, and notes on their preparation."""

    pixels: Tensor
    labels: list[str]
    notes: list[str]


def preview(  # noqa: PLR0913 - the options of a command
    *,
    policy: PolicySource,
    data: str = "digit-pairs-left",
    task: str | None = None,
    frames: int | None = None,
    form: Form = "video",
    examples: int = 4,
    images: list[str] | None = None,
    out: str = "frames.png",
    loading: LoadingConfig = LoadingConfig(),
) -> PreviewResult:
    """Draws example images under a policy, one row per image and one column per frame, and prints the policy in words.

    With --out NAME.gif the frames follow each other in an animation.
    In the folded form it draws three frames: the neighbouring frames show how channels move. A policy of several motions is
    drawn on one image, one row per motion.

    Args:
        policy: policy file, or run folder of a search.
        data: data set that the examples are taken from.
        task: classification or segmentation; by default the data set's own.
        frames: frames of the video; by default the policy's own number.
        form: video (all frames) or folded (the reference frame and its neighbours).
        examples: number of training images to draw.
        images: image files to draw instead of a data set's images.
        out: the figure's file: .png, .svg or .pdf, or .gif for an animation of the frames.
        loading: settings of reading data.
    """
    path = check_figure(out, (".png", ".svg", ".pdf", ".gif"))
    if examples < 1:
        raise UserError(f"--examples is {examples}, but must be at least 1.")
    policy = policy_of_form(policy, form)
    check_motions(policy, frames, form)
    if images:
        check_pictures(images)
    else:
        check_data_name(data, loading, loading.root)

    from fieldshift.motions import Policy
    from fieldshift.motions.animation import write_animation
    from fieldshift.report import frame_strip
    from fieldshift.report.figures import frame_captions
    from fieldshift.training.frames import as_floats

    found = policy_in_form(policy, frames, form)
    chosen = pictures(images, loading) if images else training_examples(data, task, loading, examples)
    words = [*found.describe()] or ["the image itself in every frame"]
    words = [*([NEIGHBOURS] if form == "folded" else []), *words, *chosen.notes]
    pixels, labels = chosen.pixels, [printable(label) for label in chosen.labels]
    drawn = found if isinstance(found, Policy) else found.parts
    if not isinstance(found, Policy):
        labels = [line.partition(":")[0] for line in found.describe()]
        pixels = pixels[:1].expand(len(labels), -1, -1, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        moving = [drawn] if isinstance(drawn, Policy) else drawn
        neighbours = form == "folded"
        captions = frame_captions(moving, neighbours=neighbours)
        write_animation(moving, as_floats(pixels), path, captions, neighbours=neighbours)
    else:
        figure = frame_strip(drawn, as_floats(pixels), labels, notes=words, neighbours=form == "folded")
        figure.savefig(path, dpi=150, bbox_inches="tight")
    for line in words:
        say(line)
    say(str(path))
    return PreviewResult(path, words)


def check_motions(policy: PolicySource, frames: int | None, form: Form) -> None:
    """Raises UserError where there is no policy, or no such number of frames or form."""
    if policy is None:
        raise missing_policy("A preview")
    if frames is not None:
        check_length(frames, "--frames")
    check_form(form)
    if form == "folded" and frames is not None and frames < 3:
        raise UserError(
            f"--frames is {frames}, but --form folded needs a frame to either side of the reference; give 3 or more."
        )
    check_policy(policy)


def policy_in_form(policy: PolicySource, frames: int | None, form: Form) -> AnyPolicy:
    """The policy with that number of frames, None for its own. Raises UserError where it has no such form."""
    from fieldshift.experiment.policy_source import read_policy, video_policy
    from fieldshift.folding import check_folds

    found = read_policy(policy)
    assert found is not None
    found = found if frames is None else found.with_frames(frames)
    if form == "folded":
        check_folds(found)
        return found
    return video_policy(found, "A preview in the form video")


def pictures(images: list[str], loading: LoadingConfig) -> Examples:
    """Image files, scaled and cropped to one size."""
    import torch

    from fieldshift.data.files.pictures import picture_reader, read_picture

    height, width = loading.size or (224, 224)
    reader = picture_reader(3, (height, width), loading.pixel_limit)
    rows = [read_picture(name, reader) for name in images]
    note = f"the images were scaled and cropped to their centre, {height} x {width} px"
    return Examples(torch.stack(rows), [Path(name).name for name in images], [note])


def training_examples(data: str, task: str | None, loading: LoadingConfig, count: int) -> Examples:
    """The first training images of a data set, labelled by class or number."""
    import torch

    from fieldshift.experiment.dataset import load_data

    dataset = load_data(data, task, loading)
    chosen = torch.arange(min(count, len(dataset.train)))
    pixels, targets = dataset.train.gather(chosen)
    if dataset.task == "classification":
        return Examples(pixels, [f"class {dataset.classes[int(label)]}" for label in targets], [])
    return Examples(pixels, [f"image {int(i)}" for i in chosen], [])
