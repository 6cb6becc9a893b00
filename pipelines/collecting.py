"""The runs of an MLflow store as one table: one row per run, the same columns for every store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "folder"
RUN = ("name", "run_id", "parent_id", "status")
LABELS = (
    "stage", "arm", "form", "T", "frames", "seed", "reading", "epochs", "equal_epochs", "equal_compute", "search_included",
    "network", "temporal", "data", "task", "space", "policy", "motions",
)  # fmt: skip
METRICS = (
    *(f"accuracy/{kind}_percent" for kind in ("judged", "plain", "averaged", "mean", "interval_low", "interval_high")),
    *(f"accuracy/{kind}_mIoU_percent" for kind in ("judged", "plain", "averaged", "mean", "interval_low", "interval_high")),
    "loss/test", "cost/MFLOP_per_image", "cost/parameters", "cost/epochs", "cost/training_s", "cost/device_s", "cost/search_s",
    "field/sigma_along_px", "field/sigma_across_px", "field/anisotropy", "field/angle_deg",
    "field/share_through_other_frames", "field/theory_side_px",
)  # fmt: skip
COLUMNS = (*RUN, *LABELS, *METRICS)
WHOLE = ("T", "frames", "seed", "epochs")
FLAGS = ("equal_epochs", "equal_compute", "search_included")


def results(run: str = "runs/study", *, csv: bool = False, tracking: TrackingConfig = TrackingConfig()) -> pd.DataFrame:
    """Prints one row per run of a run folder or of an experiment on a tracking server, and returns them as a data frame.

    Args:
        run: run folder; a folder of run folders, such as runs (each row then starts with its run folder); or the name of an
            experiment in the store of --tracking.uri (or of MLFLOW_TRACKING_URI).
        csv: print comma-separated values with every column.
        tracking: where the experiment is.
    """
    import pandas as pd

    rows = []
    for source in _sources(run, tracking):
        with _found(source, run, tracking) as (uri, experiment):
            rows += [{FOLDER: source.name if source else None, **_row(each)} for each in _runs(uri, experiment, run)]
    several = [FOLDER] if len({row[FOLDER] for row in rows}) > 1 else []
    order = [*several, "stage", "name", "run_id"]
    table = typed(pd.DataFrame(rows, columns=[*several, *COLUMNS])).sort_values(order, ignore_index=True)
    if csv:
        table.to_csv(sys.stdout, index=False)
    else:
        scores = [name for name in METRICS if name.endswith("percent") and ("/judged" in name or "/mean" in name)]
        shown = pd.DataFrame(
            {
                **{name: table[name] for name in several},
                "stage": table["stage"].fillna("-"),
                "name": table["name"],
                "score %": table[scores].astype(float).bfill(axis=1).iloc[:, 0],
                "MFLOP": table["cost/MFLOP_per_image"].astype(float),
                "status": table["status"],
            }
        )
        if (shown["status"] == "FINISHED").all():
            shown = shown.drop(columns="status")
        say(shown.to_string(index=False, na_rep="-", float_format="%.2f"), whole=True)
    return table


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers and truth values in place of MLflow's texts; missing ones are NA, of metrics NaN."""
    import pandas as pd

    whole = {name: pd.to_numeric(table[name], errors="coerce").astype("Int64") for name in WHOLE}
    flags = {name: table[name].map({"true": True, "false": False}).astype("boolean") for name in FLAGS}
    return table.assign(**whole, **flags, **{name: table[name].astype("float64") for name in METRICS})


def _sources(run: str, tracking: TrackingConfig) -> list[Path | None]:
    """The run folders with a store: the one that is named, or all those in it; None for an experiment of a server."""
    from fieldshift.tracking.server import find_stores

    is_folder = Path(run).is_dir()
    if tracking.uri or (tracking.address and not is_folder):
        return [None]
    if not is_folder:
        raise UserError(f"--run {run} is not a folder; give a run folder, or an experiment's name with --tracking.uri.")
    return [*find_stores(run)]


@contextlib.contextmanager
def _found(source: Path | None, run: str, tracking: TrackingConfig) -> Iterator[tuple[str, str | None]]:
    """The store to read, and the experiment in it; None for the only one with runs.

    In a run folder's store, runs of killed processes are closed first.
    """
    from fieldshift.tracking.abandoned import close_abandoned
    from fieldshift.tracking.moved import readable
    from fieldshift.tracking.store import client_for, reach

    if source is None:
        uri = str(tracking.address)
        reach(uri)
        yield uri, run
        return
    with readable(source) as address:
        close_abandoned(client_for(address))
        yield address, None


def _runs(uri: str, experiment: str | None, asked: str) -> Iterator[Any]:
    from fieldshift.tracking.store import client_for

    client = client_for(uri)
    found = client.search_experiments() if experiment is None else [client.get_experiment_by_name(experiment)]
    if found == [None]:
        raise UserError(f"There is no experiment '{asked}' in {uri}; give a name that its pages list.")
    token = None
    while True:
        page = client.search_runs([each.experiment_id for each in found], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _row(run: Any) -> dict[str, Any]:
    data, info = run.data, run.info
    # MLflow keeps values as text, also the one of an option that was left out.
    labels = {
        name: None if (value := data.tags.get(name, data.params.get(name))) == "None" else value for name in LABELS
    }
    own = {
        "name": info.run_name,
        "run_id": info.run_id,
        "parent_id": data.tags.get("mlflow.parentRunId"),
        "status": info.status,
    }
    return {**own, **labels, **{name: data.metrics.get(name) for name in METRICS}}
