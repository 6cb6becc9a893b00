from __future__ import annotations

import base64
import datetime
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.report import (
    Code,
    Definitions,
    FigureBlock,
    Heading,
    KeyNumber,
    KeyNumbers,
    Paragraph,
    Points,
    Section,
    TableBlock,
    accuracy_bars,
    caveats,
    claims,
    comparison_sheets,
    conditions_section,
    headline,
    policy_graph,
    render_report,
    summarise,
    verdict,
    write_report,
)
from fieldshift.run_folder import versions

BASELINES = ("none", "affine")
VOID = {"meta", "link", "img", "br", "hr", "input"}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Reads a page strictly: tags close in order; keeps the elements, their attributes and the table cells."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def page(trial_rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    tmp_path = tmp_path_factory.mktemp("page")
    summary = summarise(trial_rows, baseline_arms=BASELINES)
    foreign = Figure(figsize=(3, 2))
    foreign.subplots().imshow([[0.0, 1.0]])
    picture = tmp_path / "field.png"
    picture.write_bytes(PNG)
    sections = [
        Section("Result & verdict", [Paragraph(verdict(summary, claims(summary)), lead=True), headline(summary)]),
        Section(
            "Comparison",
            [
                *(TableBlock(sheet, strong=("das",)) for sheet in comparison_sheets(summary)),
                TableBlock(pd.DataFrame({"a<b": ["<x>"], "value": [-0.25]}), caption="A frame with `code`"),
                FigureBlock(accuracy_bars(summary), "Conditions of the bars.", "Bars of six arms"),
                FigureBlock(accuracy_bars(summary), "Once more.", 'The same "bars" again'),
                FigureBlock(policy_graph(Policy.single("rotate", 30.0, frames=3)), "A graph.", "One edge"),
                FigureBlock(foreign, "A foreign figure.", "Two pixels"),
                FigureBlock(picture, "A picture.", "One pixel"),
                Heading("More"),
                Points(["first", "second"]),
                Definitions([("Task", "classification")]),
                KeyNumbers([KeyNumber("7", "things")]),
                Code("fieldshift study --out a && echo <b>"),
            ],
        ),
        conditions_section(
            conditions={"Data": "made up", "Seeds": "0 to 3"},
            commands=["fieldshift study --seed 0"],
            cautions=caveats(summary, claims(summary)),
        ),
    ]
    path = write_report(
        tmp_path / "new" / "report.html", title='A "study" <1>', subtitle="of six arms", sections=sections
    )
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_reaches_nothing_outside(page: str) -> None:
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert not reader.having("script")
    assert not reader.having("link")
    for tag, attributes in reader.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert re.findall(r"url\((?!#|data:)", page) == []
    assert set(re.findall(r"https?://[\w./]+", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_every_link_leads_to_one(page: str) -> None:
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [value for _, a in reader.elements for name in ("href", "xlink:href") if (value := a.get(name))]
    for link in [value for value in links if value.startswith("#")] + re.findall(r"url\((#[^)]+)\)", page):
        assert link[1:] in ids
    for _, attributes in reader.elements:
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids


def test_every_figure_has_an_alternative_text_a_number_and_a_caption(page: str) -> None:
    reader = Reader(page)
    images = [a.get("alt") for a in reader.having("img")]
    drawings = [a.get("aria-label") for a in reader.having("svg") if a.get("role") == "img"]
    assert images == ["One pixel"]
    assert drawings == ["Bars of six arms", 'The same "bars" again', "One edge", "Two pixels"]
    assert len(reader.having("figcaption")) == 5
    words = "".join(reader.words)
    assert all(f"Figure {number}." in words for number in range(1, 6))
    assert all(f"Table {number}." in words for number in range(1, 4))


def test_tables_hold_the_numbers_with_numerals_to_the_right(page: str, rows: pd.DataFrame) -> None:
    reader = Reader(page)
    cells = [cell.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-") for cell in reader.cells]
    for sheet in comparison_sheets(summarise(rows, baseline_arms=BASELINES)):
        flat = [cell for row in sheet.rows for cell in row]
        starts = [place for place in range(len(cells)) if cells[place : place + len(flat)] == flat]
        assert starts, sheet.title
    rights = [a for tag, a in reader.elements if tag == "td" and a.get("class") == "r"]
    assert len(rights) == 2 * 6 * 8 + 1
    assert "<x>" in cells
    assert "-0.25" in cells


def test_a_figure_has_its_narrow_version_beside_it(rows: pd.DataFrame) -> None:
    summary = summarise(rows, baseline_arms=BASELINES)
    block = FigureBlock(accuracy_bars(summary), "Bars.", "Six arms", narrow=accuracy_bars(summary, narrow=True))
    reader = Reader(render_report(title="t", sections=[Section("s", [block])]))
    wide, narrow = reader.having("svg")
    widths = [float((svg["viewbox"] or "").split()[2]) / 72 for svg in (wide, narrow)]
    assert widths == [pytest.approx(7.6), pytest.approx(3.75)]
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_the_contents_list_the_sections_and_the_page_suits_readers(page: str) -> None:
    reader = Reader(page)
    assert reader.having("html")[0]["lang"] == "en"
    assert [a["href"] for a in reader.having("a") if a.get("href") != "#report"] == [f"#section-{n}" for n in (1, 2, 3)]
    assert len(reader.having("h1")) == 1
    for words in ("prefers-color-scheme:dark", "@media print", "var(--ink)"):
        assert words in page
    text = "".join(reader.words)
    for words in (
        'A "study" <1>',
        "Result & verdict",
        "wins against the best 2D arm",
        "fieldshift study --seed 0",
    ):
        assert words in text
    assert versions("torch")["torch"] in text
    assert "not corrected for multiple comparisons" in text
    assert datetime.date.today().isoformat() in text


def test_inks_follow_the_page_in_our_figures_and_stay_in_others(page: str) -> None:
    drawings = re.findall(r'<svg[^>]*class="(drawing[^"]*)".*?</svg>', page, flags=re.DOTALL)
    assert drawings == ["drawing", "drawing", "drawing", "drawing plate"]
    ours, foreign = page.split('aria-label="Two pixels"')
    assert "#1c2024" not in ours.split("</style>")[1]
    assert "fill: #ffffff" in foreign


def test_the_same_report_is_the_same_text(rows: pd.DataFrame) -> None:
    def text() -> str:
        summary = summarise(rows, baseline_arms=BASELINES)
        sections = [Section("s", [headline(summary), FigureBlock(accuracy_bars(summary), "c", "a")])]
        return render_report(title="t", sections=sections)

    assert text() == text()


def test_headline_numbers_are_those_of_equal_compute(rows: pd.DataFrame) -> None:
    values = [item.value for item in headline(summarise(rows, baseline_arms=BASELINES)).items]
    assert values == ["90.5 %", "72.0 %", "+18.5", "70 s"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("field.pdf", b"%PDF", "png or .svg"),
        ("gone.png", None, "no figure file"),
        ("bad.svg", b'<svg viewBox="0 0 1 1"><script>1</script></svg>', "scripts"),
        ("far.svg", b'<svg viewBox="0 0 1 1"><image href="//example/a.png"/></svg>', "outside"),
        ("load.svg", b'<svg onload="x()"></svg>', "scripts"),
    ],
)
def test_a_figure_file_that_does_not_belong_is_refused(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sections = [Section("s", [FigureBlock(tmp_path / name, "caption", "alt")])]
    with pytest.raises(UserError, match=words):
        write_report(tmp_path / "report.html", title="t", sections=sections)
    assert not (tmp_path / "report.html").exists()


def test_numbers_in_sentences_have_minus_signs_and_names_and_code_keep_hyphens() -> None:
    sentence = "das-folded: -10.3 to +8.8 (-0.5), 2026-11-28, T-3, --seed=-1, runs/-1, `--magnitude -9`."
    text = render_report(title="t", sections=[Section("s", [Paragraph(sentence)])])
    shown = sentence.replace(" -10.3", " \N{MINUS SIGN}10.3").replace("(-0.5", "(\N{MINUS SIGN}0.5")
    assert shown.replace("`--magnitude -9`", "<code>--magnitude -9</code>") in text


def test_an_svg_file_is_set_inline(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    figure.savefig(tmp_path / "a.svg", metadata={"Date": None})
    text = render_report(title="t", sections=[Section("s", [FigureBlock(tmp_path / "a.svg", "c", "A line")])])
    assert Reader(text).having("svg")[0]["aria-label"] == "A line"


def test_an_empty_alternative_text_is_refused() -> None:
    with pytest.raises(UserError, match="alternative text"):
        render_report(title="t", sections=[Section("s", [FigureBlock(Figure(), "caption", " ")])])
