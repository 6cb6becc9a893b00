"""The frame sweep: the same policy, network and recipe with videos of different length."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from pipelines.comparing import card_cost, check_seeds
from pipelines.options import check_policy
from pipelines.placement import check_trials_fit
from pipelines.problem import PolicySource, Problem, images_in_step, read_policy, video_policy
from pipelines.session import Session, open_session
from search_spaces.frame_sweep import FRAME_COUNTS

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.motions import Policy


@dataclass(frozen=True)
class FrameSweep:
    """What a frame sweep found: one row a trial (frames, seed, score in [0, 1], parameters, FLOPs an image, seconds)."""

    folder: Path
    rows: pd.DataFrame


def sweep_frames(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    policy: PolicySource = None,
    frame_counts: list[int] | None = None,
    seed: int = 0,
    seeds: int = 3,
    out: str | None = None,
    resume: bool = False,
    recipe: Recipe = Recipe(),
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> FrameSweep:
    """Trains one policy with videos of different length; a magnitude is what the farthest frame gets, at every length.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name.
        temporal: temporal module.
        policy: policy file, or run folder of a search.
        frame_counts: numbers of frames; by default 1 2 3 5 8 16.
        seed: the first seed.
        seeds: how many seeds each number of frames is trained with.
        out: run folder; by default runs/sweep-frames.
        resume: go on with the run in that folder.
        recipe: training recipe.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    counts = check_counts(list(FRAME_COUNTS) if frame_counts is None else frame_counts)
    if policy is None:
        raise UserError("A frame sweep needs a policy; give --policy FILE (fieldshift search makes one).")
    check_policy(policy)
    check_seeds(seeds)
    problem = Problem(
        data=data,
        task=task,
        network=network,
        temporal=temporal,
        frames=max(counts),
        architecture=architecture,
        loading=loading,
    )
    problem.check_names()
    recipe.check(cluster.trial_workers, here=cluster.address is None)
    settings = {name: value for name, value in problem.plain().items() if name != "frames"}
    settings |= {
        "frame_counts": counts, "seed": seed, "seeds": seeds, "recipe": recipe, "cluster": cluster, "tracking": tracking,
    }  # fmt: skip
    check_folder(out, "sweep-frames", settings, resume)
    check_trials_fit(cluster)
    found, dataset = read_policy(policy), problem.check()
    assert found is not None
    found = video_policy(found, "A frame sweep")
    images = images_in_step(len(dataset.train), recipe.batch, cluster.trial_workers)
    for count in counts:
        replace(problem, frames=count).checked_card(dataset, "das", found, None, seed, images=images)
    config = settings | {"policy": json.loads(found.to_json())}
    tags = {"data": data, "network": network}
    with open_session(
        "sweep-frames", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        return run_sweep(
            session, problem, dataset, found, counts=counts, seeds=list(range(seed, seed + seeds)), recipe=recipe,
            cluster=cluster,
        )  # fmt: skip


def run_sweep(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policy: Policy,
    *,
    counts: list[int],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    known: list[dict[str, Any]] | None = None,
) -> FrameSweep:
    """Trains every (frames, seed) that is not already among the `known` rows of a comparison with the same recipe."""
    import pandas as pd

    from fieldshift.report import show, sweep_sheet

    finished = session.folder.finished_result()
    if finished is None:
        rows = [row for row in known or [] if row["frames"] in counts and row["seed"] in seeds]
        rows += train_lengths(session, problem, dataset, policy, counts, seeds, recipe, cluster, have=rows)
        rows.sort(key=lambda row: (row["frames"], row["seed"]))
        data = dataset.record()
        finished = session.folder.write_result({"rows": rows, "data": data})
    frame = pd.DataFrame(finished["rows"]).drop(columns=["history"], errors="ignore")
    say()
    show(sweep_sheet(frame, str(frame["score_name"].iloc[0])))
    say(f"  {session.path / 'result.json'}")
    return FrameSweep(session.path, frame)


def train_lengths(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policy: Policy,
    counts: list[int],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    *,
    have: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """One row for every (frames, seed) that is not among those that there are already."""
    from pipelines.running import run_training_trials, training_trial

    known = {(row["frames"], row["seed"]) for row in have}
    trials, weights = [], []
    for frames in counts:
        card = replace(problem, frames=frames).card(dataset, "das", policy, None, 0)
        cost = card_cost(card)
        for seed in seeds:
            if (frames, seed) not in known:
                trial = training_trial(
                    session, problem, card, recipe, reading="equal epochs", seed=seed, data=dataset.digest
                )
                trials.append(trial)
                weights.append(float(cost.flops))
    return run_training_trials(session, trials, weights, cluster, "frame sweep") if trials else []


def check_counts(counts: list[int]) -> list[int]:
    for count in counts:
        if not isinstance(count, int) or count < 1:
            raise UserError(f"--frame_counts holds {count}, but a video has at least 1 frame (a whole number).")
    if not counts:
        raise UserError("--frame_counts is empty; give numbers of frames, such as 1 3 5.")
    return sorted(set(counts))
