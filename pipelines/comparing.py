"""The comparison: every arm on the same data, network and recipe, at equal epochs and at equal compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe, arm_named
from pipelines.arms import (
    arms_that_build,
    check_arms,
    check_forms,
    given_forms,
    needs,
    searched_forms,
    unknown_costs,
)
from pipelines.builtin_data import notes_on
from pipelines.comparison import Comparison, run_comparison, shown_comparison
from pipelines.options import check_policy, check_space
from pipelines.placement import check_trials_fit, sharing_workers
from pipelines.policies import (
    FOLDER,
    SEARCHES,
    ArmPolicies,
    check_searches,
    given_policies,
    policies_given,
    policies_searched,
    record_of,
    run_searches,
    settings_of,
)
from pipelines.problem import PolicySource, Problem, smallest_step
from pipelines.readings import TUNED, check_copies, check_readings, check_tuning, with_known_costs
from pipelines.searching import check_edges, check_frames, space_of_search
from pipelines.session import open_session

if TYPE_CHECKING:
    from fieldshift.folding import AnyPolicy


def compare(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    form: Form = "video",
    policy: PolicySource = None,
    folded_policy: PolicySource = None,
    searches: str | None = None,
    space: str = "affine-one",
    arms: list[str] | None = None,
    readings: list[str] | None = None,
    seed: int = 0,
    seeds: int = 3,
    average_copies: int = 8,
    tune_randaugment: int = 0,
    out: str | None = None,
    resume: bool = False,
    search: SearchConfig = SearchConfig(),
    recipe: Recipe = Recipe(),
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> Comparison:
    """Compares DAS with 2D augmentation and controls, over several seeds, at equal epochs and equal compute (search too).

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, the same in every arm.
        temporal: temporal module of the video arms.
        frames: frames of the videos; in the folded form they decide the step between neighbouring frames.
        form: video, or folded: das then means das-folded, and so on for the arms that have both forms.
        policy: policy file, or run folder of a search, for the arms of both forms; by default the comparison searches.
        folded_policy: a policy of their own for the arms of the folded form.
        searches: where no policy is given: per-seed (default), a search for every seed, or one, that of the first seed for all.
        space: search space; random policies are drawn from it too.
        arms: arms to train; by default all of them. Any arm may be joined with a 2D augmentation, such as
            das-folded+affine.
        readings: "equal epochs", "equal compute" (arms of one frame train until they have spent a video arm's operations)
            and "equal compute, search included" (those and the dearest search's); by default all three.
        seed: the first seed.
        seeds: how many seeds each arm is trained with.
        average_copies: augmented copies for test-time averaging of arms with a 2D augmentation, which are then judged by it:
            copies + 1 single-frame passes, so a video of T frames has as many views as fit into them, and is judged plain
            where that is one; 0 judges all arms plain.
        tune_randaugment: samples of an Optuna search for N and M of the arm randaugment on held-out training images, each
            trained for as many epochs as the arm; 0 for torchvision's defaults, which arms joined with it (das+randaugment)
            always have.
        out: run folder; by default runs/compare.
        resume: go on with the run in that folder.
        search: how the searches are run.
        recipe: training recipe.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    problem = Problem(
        data=data,
        task=task,
        network=network,
        temporal=temporal,
        frames=frames,
        architecture=architecture,
        loading=loading,
        form=form,
    )
    chosen = check_arms(arms, form, temporal)
    wanted = check_readings(readings)
    unknown = unknown_costs(chosen, policy, folded_policy)
    check_seeds(seeds)
    check_copies(average_copies)
    check_tuning(tune_randaugment, chosen)
    check_policy(policy)
    check_policy(folded_policy)
    forms = searched_forms(chosen, given_forms(policy, folded_policy))
    searching = check_searches(searches, search, forms)
    check_space(space)
    wanted = with_known_costs(
        wanted, named=readings is not None, unknown=unknown,
        searched=any(arm_named(name).needs_policy for name in chosen) or (tune_randaugment > 0 and TUNED in chosen),
    )  # fmt: skip
    problem.check_names()
    if arms is not None:
        check_forms(chosen, problem)
    if forms:
        check_frames(search, frames)
        search.check(sharing_workers(cluster))
    recipe.check(sharing_workers(cluster), here=cluster.address is None)
    settings = {
        **problem.plain(), "space": space, "readings": wanted, "seed": seed, "seeds": seeds,
        "average_copies": average_copies, "tune_randaugment": tune_randaugment, "recipe": recipe, "cluster": cluster,
        "tracking": tracking, **settings_of(searching, search),
    }  # fmt: skip
    check_folder(out, "compare", settings, resume)
    check_trials_fit(cluster)

    from fieldshift.search import load_space

    given, motion_space, dataset = given_policies(policy, folded_policy), load_space(space), problem.check()
    if forms:
        check_edges(search, motion_space)
    motion_space = space_of_search(motion_space, search, list(given.values()))
    chosen, edges = arms_that_build(
        problem, dataset, chosen, given, motion_space, seed=seed, named=arms is not None,
        step=smallest_step(len(dataset.train), recipe.batch, sharing_workers(cluster), recipe.sync_batch_norm),
        searched=smallest_step(
            len(dataset.train) // 2, search.batch, sharing_workers(cluster), search.like(recipe).sync_batch_norm
        ),
    )  # fmt: skip
    read = {form: each for form, each in given.items() if any(needs(name, form) for name in chosen)}
    config = settings | {
        "policy": plain_policy(given.get("video")), "folded_policy": plain_policy(given.get("folded")), "arms": chosen
    }  # fmt: skip
    tags = {"data": data, "network": network, "form": form}
    seed_list = list(range(seed, seed + seeds))
    with open_session(
        "compare", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        finished = session.folder.finished_result()
        if finished is not None:
            return shown_comparison(session, finished, notes_on(data))
        policies, found = policies_given(read, seed_list, frames), []
        if edges:
            stage = session.stage(FOLDER, settings)
            results = run_searches(
                stage, problem, motion_space, space, search.like(recipe), edges=edges, cluster=cluster, digest=dataset.digest,
                seeds=seed_list if searching == SEARCHES[0] else seed_list[:1],
            )  # fmt: skip
            policies |= policies_searched(results, seed_list)
            found = record_of(results)
        return run_comparison(
            session, problem, dataset, ArmPolicies(policies), motion_space, arms=chosen, readings=wanted, seeds=seed_list,
            recipe=recipe, cluster=cluster, copies=average_copies, tune_randaugment=tune_randaugment, searches=found,
        )  # fmt: skip


def plain_policy(policy: AnyPolicy | None) -> dict[str, Any] | None:
    return None if policy is None else json.loads(policy.to_json())


def check_seeds(seeds: int) -> None:
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but must be at least 1.")
