"""Pictures of the committed studies."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from tables import Study

from fieldshift.networks import video_network
from fieldshift.receptive_field import feature_extractor, theory

BUDGET = "equal compute"
OPPONENTS = (("best 2D arm", False, "o", "-"), ("best enlarged field", True, "s", "--"))


def field_of(network: str, side: int) -> int:
    """The side of the theoretical receptive field of the network's last feature map, in pixels."""
    plain = video_network(network, temporal="none", frames=1, num_classes=10)
    return int(max(feature_extractor(theory(plain, side), plain.feature_layer).size))


def draw_object_size(study: Study, file: Path) -> None:
    """Draws the gain of the best folded DAS against the side of the picture as a multiple of the field."""
    cells = [cell for cell in study.cells.values() if BUDGET in cell.budgets()]
    if not cells:
        return
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    sides = [int(cell.name) for cell in cells]
    ratios = [side / field_of("tiny-resnet", side) for side in sides]
    for (label, enlarged, marker, line), moved in zip(OPPONENTS, (-0.02, 0.02), strict=True):
        gaps = []
        for cell in cells:
            opponent = cell.opponents(BUDGET, enlarged=enlarged)[0]
            gaps.append(cell.gap(cell.best(BUDGET), opponent, BUDGET))
        middles = [100 * gap.mean for gap in gaps]
        bars = [[100 * (gap.mean - gap.low) for gap in gaps], [100 * (gap.high - gap.mean) for gap in gaps]]
        places = [ratio * (1 + moved) for ratio in ratios]
        axes.errorbar(places, middles, bars, marker=marker, linestyle=line, capsize=3, label=f"against the {label}")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ratios, [f"{ratio:.2g}\n{side} px" for ratio, side in zip(ratios, sides, strict=True)])
    axes.minorticks_off()
    axes.set_xlabel("side of the picture / theoretical field of tiny-resnet")
    axes.set_ylabel("gain of folded DAS, points of accuracy")
    axes.set_title(f"CIFAR-10 at growing size, {BUDGET}: mean and 95 % interval", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=130)
