"""A study's saved views in a real browser: each opens by its printed link and shows the report's numbers, without a click."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fieldshift.report import summarise
from fieldshift.run_folder import read_result
from fieldshift.tracking.server import Pages, serving, welcome
from pipelines.pages import PAGES
from tests.browser import Seen, browsing, kept

ON_SCREEN = """each => {
    const box = each.getBoundingClientRect();
    return each.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
}"""

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def moved_study(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder as it is after it was copied elsewhere and what was written first is gone from the copy's sight."""
    folder = tmp_path_factory.mktemp("else where") / "study"
    shutil.copytree(small_study, folder)
    return folder


@pytest.fixture(scope="module")
def pages(moved_study: Path) -> Iterator[Pages]:
    with serving(moved_study, port=0) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def printed(pages: Pages, moved_study: Path) -> dict[str, str]:
    """The links that `fieldshift ui` prints, by the first word of what they lead to."""
    lines = [line.strip() for line in welcome(moved_study, pages)[1:]]
    return {line.split("   ")[1].split(":")[0]: line.split("   ")[0] for line in lines}


@pytest.fixture
def look(browser: Any, printed: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens a page by its printed link; when the test is over nothing on it may have failed."""
    opened: list[Seen] = []

    def open_page(name: str) -> Seen:
        opened.append(Seen(browser, printed[name]))
        return opened[-1]

    yield open_page
    for number, seen in enumerate(opened):
        seen.check(kept(tmp_path, f"{request.node.name.removeprefix('test_')}-{number}.png"))
        seen.close()


@pytest.fixture(scope="module")
def summary(small_study: Path) -> pd.DataFrame:
    result = read_result(small_study / "compare")
    return summarise(pd.DataFrame(result["rows"]), baseline_arms=result["baselines"])


def shown(number: float) -> str:
    """A number as MLflow writes it on a bar."""
    return str(Decimal(number).quantize(Decimal("0.01"), ROUND_HALF_UP))


@pytest.mark.parametrize("width", [1100, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_the_screen_and_its_letters_can_be_read(
    width: int, scheme: Any, browser: Any, small_study: Path, tmp_path: Path
) -> None:
    page = browser.browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((small_study / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    seen = "[...document.querySelectorAll('figure')].map(each => [...each.querySelectorAll('svg.drawing,img')].filter(one =>"
    seen += " one.checkVisibility()).length)"
    counts = page.evaluate(seen)
    assert counts == [1] * len(counts)
    assert len(counts) >= 10
    assert page.locator(".on-narrow").first.is_visible() == (width < 500)
    assert page.locator(".on-wide").first.is_visible() == (width > 500)
    for block in page.locator(".caption, figcaption, pre").all():
        box = block.bounding_box()
        assert box["x"] + box["width"] <= width
        assert block.evaluate("each => each.scrollWidth <= each.clientWidth")
    # A figure has the letters of its points at its natural size: an image of 200 dots per inch, a drawing of 72.
    sizes = """[...document.querySelectorAll("figure img, figure svg.drawing")].filter(one => one.checkVisibility()).map(
        one => [one.getBoundingClientRect().width / 96,
                one.tagName === "IMG" ? one.naturalWidth / 200 : one.viewBox.baseVal.width / 72])"""
    for shown, natural in page.evaluate(sizes):
        assert shown >= 0.9 * natural
    page.screenshot(path=str(kept(tmp_path, f"report-{width}-{scheme}.png")), full_page=True)
    page.close()


def test_the_reports_commands_and_origin_can_be_pasted(small_study: Path) -> None:
    text = html.unescape((small_study / "report.html").read_text())
    assert f"fieldshift study --config {small_study / 'config.yaml'}" in text
    folders = re.findall(r"^ {2}(/\S+/compare/trials/\S+?)(?: \\|</code>)", text, re.MULTILINE)
    assert folders
    assert all((Path(folder) / "weights.safetensors").exists() for folder in folders)
    commit = read_result(small_study)["environment"]["commit"]
    assert commit is None or commit in text
    assert "px^2" not in text
    sweep = text[text.index("How many frames?</h2>") : text.index("What does the network see?</h2>")]
    assert "T = 3" not in sweep


def test_the_arms_page_is_the_first_and_there_is_one_for_each_question(printed: dict[str, str]) -> None:
    assert list(printed) == [*PAGES, "all runs"]


def test_accuracy_by_arm_is_there_without_a_click_best_first(look: Any, summary: pd.DataFrame) -> None:
    arms = summary[summary["reading"] == "equal compute"]
    page = look("arms")
    assert page.clicks == 0
    assert page.bars(len(arms)) == [shown(100 * score) for score in sorted(arms["judged_mean"], reverse=True)]
    for arm in arms["arm"]:
        assert f"{arm} T" in page.text
    assert "das T3" in page.text


def test_six_runs_are_compared_in_seven_clicks(look: Any, small_study: Path) -> None:
    rows = {f"{row['arm']} T{row['policy_frames']} s{row['seed']} {row['reading'].replace(' ', '-')}": row
            for row in read_result(small_study / "compare")["rows"] if row["reading"] == "equal epochs"}  # fmt: skip
    chosen = sorted(rows)[:6]
    page = look("all runs")
    page.wait_for(chosen[-1])
    for name in chosen:
        row = page.page.locator("[role=row]").filter(has=page.page.get_by_text(name, exact=True))
        page.click(row.get_by_role("checkbox").first)
    page.click(page.page.get_by_role("button", name="Compare"))
    page.wait_for("Run details")
    page.page.set_viewport_size({"width": 2600, "height": 2400})  # cells outside of the window are not on the page
    assert page.clicks == 7
    assert page.row("Run Name:", 6) == chosen
    assert page.row("arm", 6) == [rows[name]["arm"] for name in chosen]
    assert page.row("seed", 6) == [str(rows[name]["seed"]) for name in chosen]
    judged = [rows[name]["score"] if rows[name]["score_tta"] is None else rows[name]["score_tta"] for name in chosen]
    assert [float(cell) for cell in page.row("accuracy/judged_percent", 6)] == pytest.approx(
        [100 * score for score in judged]
    )


def test_the_table_of_trials_has_what_differs_and_the_score_without_a_click(look: Any, small_study: Path) -> None:
    rows = read_result(small_study / "compare")["rows"]
    page = look("trials")
    for row in (rows[0], rows[-1]):
        name = f"{row['arm']} T{row['policy_frames']} s{row['seed']} {row['reading'].replace(' ', '-')}"
        page.wait_for(name)
    for title in ("accuracy/judged_percent", "arm", "form", "T", "seed"):
        header = page.page.get_by_role("columnheader", name=title, exact=True).first
        assert header.evaluate(ON_SCREEN), title
    assert page.clicks == 0


def test_frames_are_told_apart_by_score_and_cost(look: Any, small_study: Path) -> None:
    rows = pd.DataFrame(read_result(small_study / "frames")["rows"])
    page = look("frames")
    means = rows.groupby(["arm", "frames", "reading"])["score"].mean()
    assert sorted(page.bars(len(means))) == sorted(shown(100 * score) for score in means)
    for arm, count, reading in means.index:
        assert f"{arm} T{count} {reading.replace(' ', '-')} mean" in page.text


def test_fields_lie_side_by_side_with_their_numbers(look: Any, small_study: Path, tmp_path: Path) -> None:
    result = read_result(small_study / "receptive-field")
    names = [*result["sheet"], *result["lengths"]]
    page = look("fields")
    sizes = page.pictures(len(names))
    assert page.clicks == 0
    for width in (1440, 1100):
        page.page.set_viewport_size({"width": width, "height": 900})
        page.wait_until_whole("img[src*='get-artifact']", len(names))
        page.page.screenshot(path=str(kept(tmp_path, f"fields_without_scrolling-{width}.png")))
    page.page.set_viewport_size({"width": 1700, "height": 2400})
    assert len(set(sizes)) == 1
    assert min(sizes[0]) >= 40
    along = [
        numbers["effective, reference frame: sigma along, px"]
        for numbers in (*result["sheet"].values(), *result["lengths"].values())
    ]
    assert sorted(page.bars(len(names))) == sorted(map(shown, along))
    for name in names:
        assert f"{name} field" in page.text


def test_searches_show_alpha_entropy_and_harms(look: Any, small_study: Path) -> None:
    page = look("search")
    for each in read_result(small_study / "searches")["searches"]:
        page.wait_for(f"search {each['form']} T3 s{each['seed']}")
    for metric in ("search/entropy", "alpha/0-1/identity", "margin/0-1", "Parallel Coord"):
        page.wait_for(metric)
