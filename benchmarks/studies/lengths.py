"""What a shorter search costs in score, on held-out training images, beside one of 12 epochs."""

from __future__ import annotations

from collections.abc import Mapping

from tables import Study, markdown, paired, points

BUDGET = "equal epochs"
USUAL = 12
SEARCHES = (  # what is searched in, the study, the cell of 12 epochs, and those of fewer
    ("digit-pairs-left", "ablations", "default", ("epochs-6", "epochs-3")),
    ("digit-pairs-top", "search-length", "top-12", ("top-6", "top-3")),
    ("CamVid 96 x 128, a motion per stage, GSF", "camvid-settings", "stage-gsf", ("stage-gsf-search-6", "stage-gsf-search-3")),
    ("digit-pairs-left, video", "search-length", "left-video-12", ("left-video-6",)),
    ("digit-pairs-top, video", "search-length", "top-video-12", ("top-video-6",)),
)  # fmt: skip


def lengths_table(studies: Mapping[str, Study]) -> str:
    """One row per search: the score of the arm that reads its motions, and the paired difference to that of 12 epochs."""
    rows = []
    for where, study, usual, shorter in SEARCHES:
        cells = studies[study].cells
        for name in (usual, *shorter):
            if name not in cells or usual not in cells:
                continue
            cell = cells[name]
            arm, form = ("das", "video") if cell.has("das", BUDGET) else ("das-folded", "folded")
            epochs = cell.numbers["config"]["search"]["epochs"]
            assert (epochs == USUAL) == (name == usual), f"{study}, {name} has searches of {epochs} epochs"
            change = "" if name == usual else points(paired(cell, arm, cells[usual], arm, BUDGET))
            found = cell.motions(form)
            rows.append([where, str(epochs), str(cell.seeds()), cell.score(arm, BUDGET), change, found])
    return markdown(["data", "epochs", "seeds", "score", "minus 12 epochs", "found (searches)"], rows)


def right_directions(study: Study) -> str:
    """How many searches on digit pairs ended in a motion along the line of the digits, such as "15 of 16"."""
    found = [
        search["policy"]["edges"][0]["steps"][0]["op"] == operation
        for cell, operation in (("digits-left", "translate_x"), ("digits-top", "translate_y"))
        if cell in study.cells
        for search in study.cells[cell].numbers["searches"]
    ]
    return f"{sum(found)} of {len(found)}"
