"""Draws overview.png: an image, its frames, and the effective field of one unit before and after, from runs of the tutorial.

python docs/pictures/overview.py FOLDER    # FOLDER has the tutorial's runs/
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from fieldshift import Policy
from fieldshift.data import load_dataset
from fieldshift.receptive_field import EffectiveField

INK, PAPER, ACCENT = "#1c2024", "#fefefe", "#d55e00"
GLOW = LinearSegmentedColormap.from_list("glow", [(0.84, 0.37, 0.0, 0.0), (0.84, 0.37, 0.0, 0.9)])


def main(folder: Path) -> None:
    data = load_dataset("digit-pairs-left", train_limit=200, test_limit=200)
    images = data.test.gather(torch.arange(200))[0].float() / 255
    rows = (images > 0.5).float().sum((1, 3))
    heights = (rows * torch.arange(rows.shape[1])).sum(1) / rows.sum(1)
    image = images[(heights - rows.shape[1] / 2).abs().argmin()]  # the digits are as high as the unit
    policy = Policy.load(folder / "runs" / "search" / "policy.json")
    frames = policy.video(image[None])[0]
    fields = [EffectiveField.load(folder / "runs" / "fields" / f"{name}.npz") for name in ("plain", "folded")]
    figure = Figure(figsize=(10.2, 2.15), facecolor=PAPER)
    panels = figure.subplots(
        1, 6, gridspec_kw={"left": 0.005, "right": 0.995, "top": 0.86, "bottom": 0.02, "wspace": 0.06}
    )
    titles = ["an image", "frame 0", "frame 1, the image", "frame 2", "one unit sees: before", "and with the motions"]
    for panel, title, shown in zip(panels, titles, [image, *frames, image, image], strict=True):
        panel.imshow(shown[0], cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=10, color=INK)
        panel.set_xticks([])
        panel.set_yticks([])
    highest = max(float((field.values / field.mass).max()) for field in fields)
    for panel, field in zip(panels[4:], fields, strict=True):
        share = (field.values / field.mass).numpy()
        panel.imshow(np.maximum(share, highest / 1e3), cmap=GLOW, norm=LogNorm(highest / 300, highest))
        for spine in panel.spines.values():
            spine.set_color(ACCENT)
    figure.savefig(Path(__file__).with_name("overview.png"), dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
