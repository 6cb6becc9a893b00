"""One network trained: any arm, with or without a policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldshift.cluster import ClusterConfig, check_fits, run_workers
from fieldshift.console import progress, say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe, arm_named
from pipelines.arms import arm_in_form
from pipelines.options import check_arms_policy, check_policy, check_space
from pipelines.placement import placed
from pipelines.problem import PolicySource, Problem, read_policy, say_other_length, smallest_step
from pipelines.session import open_session


@dataclass(frozen=True)
class TrainResult:
    """A trained network: its folder (weights.safetensors, network.json) and its row (score in [0, 1], seconds, ...)."""

    folder: Path
    row: dict[str, Any]


def train(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    form: Form = "video",
    policy: PolicySource = None,
    arm: str | None = None,
    space: str = "affine-one",
    seed: int = 0,
    average_copies: int = 0,
    align: bool = True,
    out: str | None = None,
    resume: bool = False,
    recipe: Recipe = Recipe(),
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> TrainResult:
    """Trains one network, on the video of a policy or as any other arm, and scores it on the test split.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, or your own as package.module:function.
        temporal: temporal module, where the arm has one.
        frames: frames of the video; in the folded form they decide the step between neighbouring frames.
        form: video (T moved frames) or folded (one frame, whose channels move).
        policy: policy file, or run folder of a search.
        arm: which arm to train; by default das (das-folded with --form folded) with a policy, none without. Any arm may be
            joined with a 2D augmentation, such as das-folded+affine.
        space: search space that the arm random-policy draws from.
        seed: decides weights, order and augmentation.
        average_copies: augmented copies for test-time averaging of an arm with a 2D augmentation; 0 leaves it out.
        align: fuse a segmenter's maps in the reference frame.
        out: run folder; by default runs/train.
        resume: go on with the run in that folder.
        recipe: training recipe.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    chosen = arm_in_form(arm or ("none" if policy is None else "das"), form, named=arm is not None)
    problem = Problem(
        data=data,
        task=task,
        network=network,
        temporal=temporal,
        frames=frames,
        architecture=architecture,
        loading=loading,
        form=arm_named(chosen).form,
    )
    check_policy(policy)
    check_arms_policy([chosen], policy)
    if policy is not None and not arm_named(chosen).needs_policy:
        raise UserError(f"The arm '{chosen}' reads no policy; leave out --policy, or --arm.")
    check_space(space)
    problem.check_names()
    recipe.check(cluster.workers, here=cluster.address is None)
    settings = {
        **problem.plain(), "arm": chosen, "space": space, "seed": seed, "average_copies": average_copies, "align": align,
        "recipe": recipe, "cluster": cluster, "tracking": tracking,
    }  # fmt: skip
    check_folder(out, "train", settings, resume)
    check_fits(cluster, cluster.min_workers or cluster.workers)

    from fieldshift.search import load_space
    from fieldshift.training.map_table import read_maps
    from pipelines.failure_cases import say_maps, write_failure_page
    from pipelines.running import epoch_metrics, final_metrics, record_history, training_trial
    from pipelines.trials import run_training_trial

    found, dataset = read_policy(policy), problem.check()
    say_other_length(found, frames)
    card = problem.checked_card(
        dataset, chosen, found, load_space(space), seed,
        step=smallest_step(len(dataset.train), recipe.batch, cluster.workers, recipe.sync_batch_norm), align=align,
    )  # fmt: skip
    config = settings | {"policy": None if found is None else json.loads(found.to_json())}
    tags = {
        "arm": chosen, "form": card.form, "seed": str(seed), "frames": str(card.frames), "data": data, "network": network,
    }  # fmt: skip
    with open_session(
        "train", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        finished = session.folder.finished_result()
        if finished is not None:
            say(outcome(finished["row"], data))
            return TrainResult(session.path, finished["row"])
        trial = training_trial(
            session, problem, card, recipe, reading="equal epochs", seed=seed, data=dataset.digest, copies=average_copies,
            align=align,
        )  # fmt: skip
        with placed(cluster, on_ray=cluster.workers > 0), progress(f"training {chosen}", recipe.epochs) as bar:

            def reported(metrics: dict[str, float]) -> None:
                epoch = int(metrics["epoch"])
                session.run.log_metrics(epoch_metrics(metrics), step=epoch)
                bar.show(epoch, f"epoch {epoch}/{recipe.epochs} loss {metrics['train/loss']:.3f}")

            row = run_workers(
                run_training_trial,
                {**trial.plain(), "folder": str(session.path)},
                cluster=cluster,
                name="train",
                storage=session.path / "ray",
                on_report=reported,
            )
        record_history(session.run, row["history"])
        session.run.log_metrics(final_metrics(row), step=0)
        session.folder.write_result({"row": row, "data": dataset.record(), "seconds": row["seconds"]})
        say(outcome(row, data))
        if "weights" in row:
            say(f"pretrained weights: {row['weights']}")
        maps = read_maps(session.path)
        say_maps(maps, write_failure_page(session.path, session.path, dataset, maps, score=row["score"], align=align))
        say(f"weights and result: {session.path}")
        return TrainResult(session.path, row)


def outcome(row: dict[str, Any], data: str) -> str:
    averaged = "" if row["score_tta"] is None else f" ({row['score_tta']:.2%} with test-time averaging)"
    return (
        f"{row['arm']}: test {row['score_name']} {row['score']:.2%}{averaged} on {row['tested']} images of {data}, "
        f"{row['parameters']:,} "
        f"parameters, {row['flops'] / 1e6:.1f} MFLOP per image, {row['seconds']:.0f} s of training"
    )
