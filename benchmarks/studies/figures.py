"""Pictures of the committed studies."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from tables import Study, paired

from fieldshift.networks import video_network
from fieldshift.receptive_field import feature_extractor, theory
from fieldshift.report.intervals import Difference

BUDGET = "equal compute"
OPPONENTS = (("best 2D arm", False), ("best enlarged field", True))


def field_of(network: str, side: int) -> int:
    """The side of the theoretical receptive field of the network's last feature map, in pixels."""
    plain = video_network(network, temporal="none", frames=1, num_classes=10)
    field = feature_extractor(theory(plain, side), plain.feature_layer).size
    assert field is not None, f"the last map of {network} has a field"
    return max(field)


def draw_object_size(study: Study, file: Path) -> None:
    """Draws the gains of `das-folded`, and of the video form, against the picture's side as a multiple of the field."""
    cells = [cell for cell in study.cells.values() if BUDGET in cell.budgets()]
    if not cells:
        return
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    ratios = {cell.name: int(cell.name) / field_of("tiny-resnet", int(cell.name)) for cell in cells}
    lines: dict[str, dict[str, Difference]] = {}
    for label, enlarged in OPPONENTS:
        for cell in cells:
            gap = cell.gap("das-folded", cell.opponents(BUDGET, enlarged=enlarged)[0], BUDGET)
            lines.setdefault(f"folded DAS against the {label}", {})[cell.name] = gap
    for name, video in study.video_cells():
        best = study.cells[name].opponents(BUDGET, enlarged=False)[0]
        gap = paired(video, "das", study.cells[name], best, BUDGET, at="equal epochs")
        lines.setdefault(f"video DAS against the {OPPONENTS[0][0]}", {})[name] = gap
    for number, (label, gaps) in enumerate(lines.items()):
        middles = [100 * gap.mean for gap in gaps.values()]
        bars = [
            [100 * (gap.mean - gap.low) for gap in gaps.values()],
            [100 * (gap.high - gap.mean) for gap in gaps.values()],
        ]
        places = [ratios[name] * (0.98 + 0.02 * number) for name in gaps]
        axes.errorbar(
            places, middles, bars, marker="os^"[number], linestyle=("-", "--", ":")[number], capsize=3, label=label
        )
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([*ratios.values()], [f"{ratio:.2g}\n{name} px" for name, ratio in ratios.items()])
    axes.minorticks_off()
    axes.set_xlabel("side of the picture / theoretical field of tiny-resnet")
    axes.set_ylabel("gain, points of accuracy")
    axes.set_title(f"CIFAR-10 at growing size, {BUDGET}: mean and 95 % interval", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)
