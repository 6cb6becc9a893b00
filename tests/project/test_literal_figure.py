"""Names are drawn as they are written, in every figure there is, and numbers of log scales as powers of ten."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import fieldshift
from fieldshift.literal_figure import LiteralFigure
from fieldshift.motions import Edge, Policy, Step
from fieldshift.networks import video_network
from fieldshift.receptive_field import effective, theory
from fieldshift.receptive_field.figures import comparison_figure, effective_figure
from fieldshift.receptive_field.sweep_figure import sweep_figure
from fieldshift.receptive_field.theory_figure import theory_figure
from fieldshift.report import accuracy_bars, decision_chart, frame_curve, search_history, summarise
from fieldshift.report.figures.maps import MapExample, map_examples

NAMES = ("$x_1$", "a$b", "[red]", "%", r"\frac{$1}{$", "$^$", "<b>&")


def bars(names: tuple[str, ...]) -> Figure:
    costs = dict.fromkeys(("parameters", "flops", "epochs", "seconds", "search_seconds", "frames"), 1.0)
    rows = [
        {"arm": arm, "reading": "equal compute", "seed": seed, "score": 0.5 + 0.1 * seed, "score_tta": np.nan, **costs}
        for arm in (*names, "none")
        for seed in (0, 1)
    ]
    return accuracy_bars(summarise(pd.DataFrame(rows), baseline_arms=("none",)))


def sweep(names: tuple[str, ...]) -> Figure:
    rows = [{"arm": arm, "frames": t, "seed": 0, "score": 0.5, "seconds": 1.0} for arm in names for t in (1, 3)]
    return frame_curve(pd.DataFrame(rows))


def examples(names: tuple[str, ...]) -> Figure:
    numbers = np.arange(len(names)).reshape(1, -1)
    rows = [MapExample(image=numbers.astype(np.uint8), truth=numbers, predicted=numbers, words=name) for name in names]
    return map_examples(rows, names)


def history(names: tuple[str, ...]) -> Figure:
    rows = [{"pass": number, **{f"alpha/0->1/{name}": 0.1 for name in names}} for number in (1, 2)]
    return search_history(rows)


def decisions(names: tuple[str, ...]) -> Figure:
    return decision_chart([{"at": "edge 0->1", "harm": dict.fromkeys(names, 0.1), "chosen": names[0]}])


def field(name: str = "network", frames: int = 1) -> Any:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=4, in_channels=1)
    found = effective(network, torch.rand(1, 1, 16, 16), trained=False, images_kind=name)
    return replace(found, conditions=replace(found.conditions, frames=frames))


def maps(names: tuple[str, ...]) -> Figure:
    return comparison_figure(dict.fromkeys(names, field()))


def one_map(names: tuple[str, ...]) -> Figure:
    return effective_figure(field("; ".join(names)))


def against_frames(names: tuple[str, ...]) -> Figure:
    words = "; ".join(names)
    return sweep_figure({1: field(words), 3: field(words, 3)})


def layers(names: tuple[str, ...]) -> Figure:
    known = theory(video_network("tiny-resnet", temporal="none", frames=1, num_classes=4), 40)
    (shown,) = [each for each in known if each.name == "network.blocks.1"]
    return theory_figure(known, shown, (40, 40), name="; ".join(names))


FIGURES: dict[str, Callable[[tuple[str, ...]], Figure]] = {
    each.__name__: each for each in (bars, sweep, examples, history, decisions, maps, one_map, against_frames, layers)
}


def texts_of(figure: Figure) -> list[Text]:
    FigureCanvasAgg(figure).draw()
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_drawn_as_they_are_written(name: str) -> None:
    texts = texts_of(FIGURES[name](NAMES))
    read = [text._preprocess_math(text.get_text()) for text in texts]
    drawn = " ".join(" ".join(words.split()) for words, formula in read if not formula)
    for each in NAMES:
        assert each in drawn
    assert all(words.startswith(r"$\mathdefault{") for words, formula in read if formula)


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_saved_as_where_it_is_drawn_twice(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib lays a figure out by a drawing that nobody sees; here nothing is drawn then."""
    drawn = []
    draw = Figure.draw

    def counted(figure: Figure, renderer: Any) -> None:
        drawn.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    monkeypatch.setitem(mpl.rcParams, "svg.hashsalt", "fixed")
    saved = []
    for drawings, is_saving in ((1, FigureCanvasBase.is_saving), (2, lambda _canvas: False)):
        drawn.clear()
        monkeypatch.setattr(FigureCanvasBase, "is_saving", is_saving)
        stream = io.BytesIO()
        FIGURES[name](NAMES[:2]).savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
        assert len(drawn) == drawings
        saved.append(stream.getvalue())
    assert saved[0] == saved[1]


def test_numbers_of_a_log_scale_are_powers_of_ten() -> None:
    read = [text._preprocess_math(text.get_text()) for text in texts_of(effective_figure(field()))]
    assert any(formula and words == r"$\mathdefault{10^{-4}}$" for words, formula in read)
    assert not any("$" in words for words, formula in read if not formula)


def test_only_literal_figures_are_made() -> None:
    """Whoever needs a figure of matplotlib makes one of these: no other call of Figure or pyplot in the platform."""
    makers = []
    for path in Path(fieldshift.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Figure"):
                makers.append((path.name, node.func.id))
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert not any("pyplot" in alias.name for alias in node.names), path
    assert sorted(makers) == [("figure_frame.py", "LiteralFigure"), ("look.py", "LiteralFigure")]
    assert issubclass(LiteralFigure, Figure)


def test_policies_say_their_own_words() -> None:
    from fieldshift.report import policy_graph

    policy = Policy(inputs=1, nodes=1, edges=(Edge(0, 1, (Step("rotate", 10.0),)),), frames=3)
    assert isinstance(policy_graph(policy), LiteralFigure)


def test_a_notebook_shows_a_figure_that_ends_a_cell() -> None:
    from IPython.core.formatters import DisplayFormatter

    figure = LiteralFigure(figsize=(2.0, 1.0))
    figure.subplots().plot([0, 1])
    shown, _ = DisplayFormatter().format(figure)
    assert shown["image/png"].startswith(b"\x89PNG")
