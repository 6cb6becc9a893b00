from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fieldshift.data import LoadingConfig
from fieldshift.motions import Edge, Policy, Step
from fieldshift.report import (
    accuracy_bars,
    decision_chart,
    frame_curve,
    frame_strip,
    policy_graph,
    search_history,
    summarise,
)
from fieldshift.report.figures.look import NARROW, ROLE_COLOURS, SERIES, WIDTH
from fieldshift.report.figures.maps import MapExample, map_examples
from fieldshift.report.figures.policies import step_label
from fieldshift.report.figures.searching import MOST_PANELS
from fieldshift.report.figures.traces import choice, weights_by_edge
from pipelines.previewing import preview

BASELINES = ("none", "affine")
OPS = ("identity", "translate_x", "zoom")


def draw(figure: Figure) -> list[tuple[str, Any]]:
    """Draws the figure, fails if anything leaves the page, and returns every visible text with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(50)
    canvas.draw()
    renderer = canvas.get_renderer()
    drawn = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.02
    assert drawn.x1 <= width + 0.02
    assert drawn.y1 <= height + 0.02
    texts = [found for found in figure.findobj(Text) if found.get_visible() and found.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if _shown(text)]


def _shown(text: Text) -> bool:
    axes = text.axes
    return axes is None or axes.axison or text in axes.texts


def overlap(one: Any, other: Any) -> bool:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(wide > 1 and high > 1)


def bars(axes: Axes) -> list[Any]:
    return [patch for patch in axes.patches if type(patch).__name__ == "Rectangle"]


def many_arms() -> pd.DataFrame:
    names = [f"an-arm-with-a-rather-long-name-{number}" for number in range(13)]
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "reading": reading,
                "seed": seed,
                "score": 0.3 + 0.04 * place + 0.01 * seed,
                "score_tta": math.nan,
                **dict.fromkeys(("parameters", "flops", "epochs", "seconds", "search_seconds", "frames"), 1.0),
            }
            for reading in ("equal epochs", "equal compute")
            for place, arm in enumerate([*names, "das", "none"])
            for seed in range(3)
        ]
    )


@pytest.mark.parametrize("narrow", [False, True])
def test_every_edge_of_a_policy_is_drawn_and_labelled_without_overlap(policy: Policy, narrow: bool) -> None:
    figure = policy_graph(policy, narrow=narrow)
    assert figure.get_figwidth() == (NARROW if narrow else WIDTH)
    texts = draw(figure)
    arrows = [patch for patch in figure.axes[0].patches if patch.get_gid() == "edge"]
    assert len(arrows) == len(policy.edges)
    words = "\n".join(text for text, _ in texts)
    for edge in policy.edges:
        for step in edge.steps:
            assert step_label(step) in words
    assert words.count("image") == policy.inputs
    assert words.count("output") == 1

    for (one, box), (other, other_box) in combinations(texts, 2):
        assert not overlap(box, other_box), (one, other)


def test_labels_say_the_magnitude_in_the_motions_unit() -> None:
    labels = [
        step_label(Policy.single(op, magnitude, frames=3).edges[0].steps[0])
        for op, magnitude in (("identity", 0.0), ("rotate", -35.0), ("zoom", 1.5), ("translate_x", 0.43))
    ]
    assert labels == ["identity", "rotate -35°", "zoom \N{MULTIPLICATION SIGN}1.5", "translate_x +0.43"]


@pytest.mark.parametrize(("channels", "narrow"), [(1, False), (3, False), (1, True)])
def test_a_strip_shows_the_policys_video_with_number_and_distance_under_every_column(
    policy: Policy, channels: int, narrow: bool
) -> None:
    images = torch.randint(0, 256, (2, channels, 12, 16), dtype=torch.uint8)
    figure = frame_strip(policy, images, labels=["one", "another one with a long name"], narrow=narrow)
    assert figure.get_figwidth() == (NARROW if narrow else WIDTH)
    assert len(figure.axes) == 2 * policy.frames
    video = policy.video(images)
    for place, axes in enumerate(figure.axes):
        row, frame = divmod(place, policy.frames)
        shown = np.asarray(axes.images[0].get_array())
        expected = video[row, frame].clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    under = [axes.get_xlabel().removeprefix("frame ").replace("\n", ", ") for axes in figure.axes[policy.frames :]]
    assert all(under) or (narrow and under[policy.frames // 2])  # where frames are narrow, not every one has room
    for t, s in enumerate(policy.distances.tolist()):
        number, distance = under[t].split(", ")[:2] if under[t] else (t, s)
        assert (int(number), float(distance)) == (t, pytest.approx(s, abs=0.006))
    draw(figure)


def under_of(policy: Policy) -> list[str]:
    return [axes.get_xlabel() for axes in frame_strip(policy, torch.rand(1, 3, 8, 8)).axes]


def test_a_strip_of_a_single_motion_says_what_every_frame_gets() -> None:
    assert under_of(Policy.single("translate_x", 0.45, frames=3)) == [
        "frame 0, -1.0\ntranslate_x -0.45\nof the width",
        "frame 1, 0\nthe image itself",
        "frame 2, +1.0\ntranslate_x +0.45\nof the width",
    ]
    assert under_of(Policy.single("rotate", 30.0, frames=9))[:2] == ["0\n-1.0\n-30°", "1\n-0.75\n-22.5°"]
    mixed = (Edge(0, 2, (Step("rotate", 30.0),)), Edge(1, 2, (Step("identity", 0.0),)))
    assert under_of(Policy(inputs=2, nodes=1, edges=mixed, frames=3))[0] == "frame 0, -1.0"


def test_a_symmetric_strip_has_distances_without_a_sign() -> None:
    under = under_of(Policy.single("zoom", 0.5, frames=5, symmetric=True))
    assert [words.split("\n")[0] for words in under] == [
        f"frame {t}, {s}" for t, s in enumerate(("1.0", "0.5", "0", "0.5", "1.0"))
    ]
    assert under[1].endswith("zoom \N{MULTIPLICATION SIGN}0.707")


@pytest.mark.parametrize(("fill", "outside"), [("zeros", 0.0), ((0.5, 0.5, 0.5), 0.0), ("reflection", 0.35)])
def test_a_strip_hatches_what_lies_outside_of_the_moved_image(fill: Any, outside: float) -> None:
    steps = [("translate_x", 0.25), ("brightness", 0.9)]
    figure = frame_strip(Policy.chain(steps, frames=3, fill=fill), torch.zeros(1, 3, 6, 8), notes=["in words"])
    left, middle, right = (np.asarray(axes.images[0].get_alpha()) for axes in figure.axes)
    np.testing.assert_array_equal(left, [[1.0] * 6 + [outside] * 2] * 6)
    np.testing.assert_array_equal(middle, np.ones((6, 8)))
    np.testing.assert_array_equal(right, [[outside] * 2 + [1.0] * 6] * 6)
    assert all(axes.patch.get_hatch() for axes in figure.axes)
    words = "\n".join(text for text, _ in draw(figure))
    assert "hatched: outside of the moved image" in words
    assert words.endswith("in words")
    still = frame_strip(Policy.replicate(3), torch.zeros(1, 3, 6, 8))
    assert "hatched" not in "\n".join(text for text, _ in draw(still))


@pytest.mark.parametrize("size", [None, (20, 30)])
def test_a_preview_of_pictures_says_what_they_were_cropped_to(
    size: tuple[int, int] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    policy, out = Policy.single("zoom", 0.5, frames=3).save(tmp_path / "policy.json"), tmp_path / "frames.svg"
    loading = LoadingConfig(size=size)
    found = preview(policy=str(policy), images=[str(tmp_path / "red.png")], out=str(out), loading=loading)
    height, width = size or (224, 224)
    note = f"the images were scaled and cropped to their centre, {height} x {width} px"
    assert found.words == ["edge 0->1: zoom by a factor of 0.5 at the outer frames", note]
    assert note in capsys.readouterr().out
    drawn = out.read_text()
    assert all(f"<!-- {words} -->" in drawn for words in (note, "red.png", "frame 0, -1.0"))


def test_a_preview_names_classes(tmp_path: Path) -> None:
    policy, out = Policy.replicate(2).save(tmp_path / "policy.json"), tmp_path / "frames.svg"
    assert preview(policy=str(policy), examples=2, out=str(out)).words == ["the image itself in every frame"]
    assert out.read_text().count("<!-- class ") == 2


def test_bars_have_the_means_the_intervals_and_a_dot_for_every_seed(rows: pd.DataFrame) -> None:
    summary = summarise(rows, baseline_arms=BASELINES)
    figure = accuracy_bars(summary)
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == ["Equal epochs", "Equal compute"]
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    compute = summary[summary["reading"] == "equal compute"].set_index("arm")
    assert names == list(compute.index)
    for panel, reading in zip(panels, ("equal epochs", "equal compute"), strict=True):
        part = summary[summary["reading"] == reading].set_index("arm")
        assert len(bars(panel)) == len(part)
        for bar, arm in zip(bars(panel), names, strict=True):
            assert bar.get_width() == pytest.approx(100 * part.loc[arm, "mean"])
            assert bar.get_facecolor()[:3] == pytest.approx(to_rgb(ROLE_COLOURS[str(part.loc[arm, "role"])]))
        dots = [line for line in panel.lines if line.get_marker() == "o"]
        assert [len(line.get_xdata()) for line in dots] == [int(part.loc[arm, "n"]) for arm in names]
        assert panel.get_xlim()[0] == 0


def test_the_legend_names_only_what_is_drawn(make_trial: Any) -> None:
    def names(**tta: float) -> list[str]:
        summary = summarise(
            pd.DataFrame([make_trial("das", 0, 0.5, **tta), make_trial("none", 0, 0.4)]), baseline_arms=()
        )
        return [text.get_text() for text in accuracy_bars(summary).legends[0].get_texts()]

    assert names() == names(score_tta=0.5) == ["das", "control", "one seed"]
    assert names(score_tta=0.6)[-1] == "mean with test-time averaging (judged)"


def test_an_interval_over_100_percent_is_cut_there(make_trial: Any) -> None:
    scores = {"das": (0.99, 1.0, 0.93), "none": (0.5, 0.5, 0.5)}  # so far apart that bars start at zero
    trials = [make_trial(arm, seed, score) for arm, each in scores.items() for seed, score in enumerate(each)]
    panel = accuracy_bars(summarise(pd.DataFrame(trials), baseline_arms=())).axes[0]
    assert panel.get_xlim()[0] == 0
    assert max(np.asarray(line.get_xdata()).max() for line in panel.lines) == 100.0
    assert max(panel.get_xticks()) <= 100


def test_close_scores_get_markers_on_an_axis_that_says_it_does_not_start_at_zero(rows: pd.DataFrame) -> None:
    close = rows.assign(score=0.93 + 0.05 * rows["score"])
    figure = accuracy_bars(summarise(close, baseline_arms=BASELINES))
    assert not any(bars(panel) for panel in figure.axes)
    assert all("not from 0" in panel.get_xlabel() for panel in figure.axes)


def test_fifteen_long_names_fit_and_an_arm_that_was_not_run_is_said() -> None:
    frame = many_arms()
    frame = frame[~((frame["arm"] == "none") & (frame["reading"] == "equal compute"))]
    figure = accuracy_bars(summarise(frame, baseline_arms=("none",)))
    texts = draw(figure)
    assert [text.strip() for text, _ in texts].count("not run") == 1
    labels = [(text, box) for text, box in texts if text.startswith("an-arm")]
    assert len(labels) == 13

    for (one, box), (other, other_box) in combinations(labels, 2):
        assert not overlap(box, other_box), (one, other)


@pytest.mark.parametrize("frames", [(1, 2, 3, 5, 8, 16), (1,)])
@pytest.mark.parametrize("arms", [("das",), ("das", "das-gsf")])
def test_the_curve_has_the_means_and_a_tick_for_every_number_of_frames(
    frames: tuple[int, ...], arms: tuple[str, ...]
) -> None:
    runs = pd.DataFrame(
        [
            {"arm": arm, "frames": count, "score": 0.5 + 0.02 * count + 0.01 * seed, "seconds": 10.0 * count}
            for arm in arms
            for count in frames
            for seed in range(3)
        ]
    )
    figure = frame_curve(runs)
    top, bottom = figure.axes
    assert [label.get_text() for label in bottom.get_xticklabels()] == [str(count) for count in frames]
    means = [line for line in top.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == len(frames)]
    expected = [100 * (0.51 + 0.02 * count) for count in frames]
    assert sum(np.allclose(line.get_ydata(), expected) for line in means) == len(arms)
    assert len(bottom.lines) == len(arms)
    assert bottom.get_ylim() == (0, pytest.approx(12.0 * frames[-1]))  # no marker is cut
    assert len(figure.legends) == (len(arms) > 1)
    draw(figure)


def history(edges: int, passes: int = 4) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for number in range(1, passes + 1):
        row: dict[str, float] = {"pass": number, "train/loss": 1 / number, "train/accuracy": 0.5, "seconds": 1.0}
        for edge in range(edges):
            row |= {f"alpha/{edge}-{edge + 1}/{op}": 0.1 * place * number for place, op in enumerate(OPS)}
        if number > 1:
            row["val/loss"] = 1.2 / number
        if number < passes:
            row |= {"search/entropy": 1 - 0.1 * number, "search/identity_share": 0.2}
        rows.append(row)
    return rows


@pytest.mark.parametrize(("edges", "passes"), [(14, 4), (1, 4), (3, 1)])
def test_a_history_has_a_panel_for_every_edge_with_the_softmax_of_alpha(edges: int, passes: int) -> None:
    rows = history(edges, passes)
    figure = search_history(rows)
    texts = draw(figure)
    assert sum(text.startswith("edge ") for text, _ in texts) == edges
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "edge 0->1")
    powers = [math.exp(0.1 * place * passes) for place in range(3)]
    last = [float(np.asarray(line.get_ydata())[-1]) for line in panel.lines[:3]]
    assert last == pytest.approx([power / sum(powers) for power in powers])

    named = [text for text, _ in texts]
    assert {"identity", "translate_x", "zoom", "loss on the half that trains the network"} <= set(named)


def test_candidates_are_told_apart_and_no_legend_lies_on_a_curve() -> None:
    names = [f"translate_x {across} then translate_y {down}" for across in (0.2, 0.4) for down in (0.2, 0.4)]
    rows = [{"pass": n, **{f"alpha/0-1/{name}": 0.1 * n for name in names}, "train/loss": n % 2} for n in range(6)]
    figure = search_history(rows)
    shown = [text for text, _ in draw(figure)]
    assert {name.replace("then", "+") for name in names} <= set(shown)
    for axes in figure.axes:
        if axes.get_legend() is not None:
            box = axes.get_legend().get_window_extent()
            assert box.y0 >= axes.get_window_extent().y1 - 1


def test_figures_of_a_search_over_hundreds_of_edges_have_the_first_of_them() -> None:
    texts = [text for text, _ in draw(search_history(history(100, 2)))]
    assert sum(text.startswith("edge ") for text in texts) == MOST_PANELS
    assert f"mixture weight; the first {MOST_PANELS} of 100 edges" in texts
    decisions = [
        {"kind": "option", "at": f"edge 0->{n}", "harm": {"zoom": 0.1}, "chosen": ("zoom",)} for n in range(60)
    ]
    texts = [text for text, _ in draw(decision_chart(decisions))]
    assert sum("edge " in text for text in texts) == MOST_PANELS
    assert any(f"the first {MOST_PANELS} of 60 decisions" in text for text in texts)


def test_a_history_groups_candidates_beyond_the_colours() -> None:
    names = [f"rotate + translate_x at {number}" for number in range(17)]
    alphas = {f"alpha/0-1/{name.replace('+', 'then')}": math.log(place + 1) for place, name in enumerate(names)}
    rows = [{"pass": number, **alphas} for number in range(3)]
    assert weights_by_edge(rows)["0->1"][names[16]] == pytest.approx([17 / 153] * 3)
    figure = search_history(rows)
    assert "10 others" in [text for text, _ in draw(figure)]
    assert search_history([{"pass": 1, "train/loss": 0.5}]).axes


def test_a_decision_chart_has_a_bar_for_every_candidate_and_marks_the_kept() -> None:
    decisions = [
        {
            "kind": "option",
            "at": f"edge 0->{n}",
            "harm": dict(zip(OPS, (0.01, 0.2, -0.05), strict=True)),
            "chosen": (OPS[1],),
        }
        for n in range(2, 16)
    ]
    decisions.append(
        {"kind": "edges", "at": "node 5", "harm": {"0->5 zoom": 0.1, "1->5 zoom": 0.3}, "chosen": ("1->5 zoom",)}
    )
    figure = decision_chart(decisions)
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 15
    for panel, decision in zip(panels, decisions, strict=True):
        read = choice(decision)
        labels = [label.get_text() for label in panel.get_yticklabels()]
        widths = dict(zip(labels, (bar.get_width() for bar in bars(panel)), strict=True))
        assert widths == pytest.approx(read.harm)
        kept = [
            label
            for label, bar in zip(labels, bars(panel), strict=True)
            if bar.get_facecolor()[:3] == pytest.approx(to_rgb(SERIES[1]))
        ]
        assert set(kept) == read.kept
    texts = draw(figure)

    foot = next(box for text, box in texts if text.startswith("lost when"))
    assert not any(overlap(foot, box) for text, box in texts if not text.startswith("lost when"))


def test_scenes_far_higher_than_wide_stay_on_a_page() -> None:
    blank = np.zeros((400, 20), dtype=np.uint8)
    words = [f"scene {i}" for i in range(4)]
    figure = map_examples(
        [MapExample(image=blank, truth=blank, predicted=blank, words=each) for each in words], ["sky"]
    )
    assert figure.get_figheight() < 3 * figure.get_figwidth()
    box = {text: box for text, box in draw(figure) if text in words}
    for i, axes in enumerate(figure.axes[::4]):  # every line of words is below its own image and above the next
        assert box[words[i]].y1 < axes.get_window_extent().y0
        assert i == 3 or box[words[i]].y0 > figure.axes[4 * i + 4].get_window_extent().y1
