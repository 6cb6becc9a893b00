"""The comparison: every arm on the same data, network and recipe, at equal epochs and at equal compute."""

from __future__ import annotations

from typing import Any

from fieldshift.experiment import Experiment
from fieldshift.experiment.budget import TUNED, check_tuning, readings_of, with_known_costs
from fieldshift.experiment.cards import note_short_search, search_step, training_step
from fieldshift.experiment.placement import check_trials_fit, placed, sharing_workers, workers_of_trials
from fieldshift.experiment.policy_source import PolicySource, check_policy, own_folded_policy, plain_policy
from fieldshift.experiment.search_trial import check_frames, note_frames, space_of_search
from fieldshift.experiment.session import open_session
from fieldshift.forms import Form
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe, arm_named
from pipelines.arms import arms_that_build, check_arms, check_forms, given_forms, needs, searched_forms, unknown_costs
from pipelines.comparison import Comparison, ComparisonPlan, run_comparison, shown_comparison
from pipelines.options import check_copies, check_space
from pipelines.policies import (
    FOLDER,
    SEARCHES,
    ArmPolicies,
    check_searches,
    given_policies,
    record_of,
    run_searches,
    settings_of,
)


def compare(  # noqa: PLR0913 - the options of a command
    *,
    policy: PolicySource = None,
    folded_policy: PolicySource = None,
    searches: str | None = None,
    space: str = "affine-one",
    arms: list[str] | None = None,
    budgets: list[str] | None = None,
    seeds: int = 3,
    tta_copies: int = 8,
    tune_randaugment: int = 0,
    search: SearchConfig = SearchConfig(),
    recipe: Recipe = Recipe(),
    **shared: Any,
) -> Comparison:
    """Compares DAS with 2D augmentation and controls over several seeds, at up to three budgets of epochs or compute.

    With the form folded, das stands for das-folded, and so on for the arms that have both forms.

    Args:
        policy: policy file, or run folder of a search, for the arms of both forms; by default the command searches for it.
        folded_policy: a separate policy for the arms of the folded form.
        searches: per-seed (default; a search for every seed) or one (the first seed's search for all); only without --policy.
        space: search space; random policies are drawn from it too.
        arms: arms to train; by default all of them. Any arm may be joined with a 2D augmentation, such as
            das-folded+affine.
        budgets: equal-epochs, equal-compute (arms of one frame train until they have spent a video arm's operations) and
            search-included (those and the operations of the most expensive search); by default all three.
        seeds: number of seeds for each arm.
        tta_copies: augmented copies for test-time augmentation (TTA) of arms with a 2D augmentation, which are then judged by
            the score with TTA: over copies + 1 single-frame passes, or as many T-frame views as fit into these (with one
            view the plain score counts); 0 turns TTA off.
        tune_randaugment: samples of an Optuna search for N and M of the arm randaugment on held-out training images, each
            trained for as many epochs as the arm; 0 uses torchvision's defaults, as arms joined with it (das+randaugment)
            always do.
        search: settings of the searches.
        recipe: training recipe.
        shared: the options of `fieldshift.experiment.Experiment`: data, task, network, temporal, frames, form, seed,
            architecture, loading, cluster, tracking, out, resume.
    """
    experiment = Experiment(**shared)
    chosen = check_arms(arms, experiment.form, experiment.temporal)
    wanted = readings_of(budgets)
    folded_policy = folded_policy or (
        own_folded_policy(policy) if any(needs(each, "folded") for each in chosen) else None
    )
    unknown = unknown_costs(chosen, policy, folded_policy)
    seed_list = experiment.seeds(seeds)
    check_copies(tta_copies)
    check_tuning(tune_randaugment, chosen)
    check_policy(policy)
    check_policy(folded_policy)
    forms = searched_forms(chosen, given_forms(policy, folded_policy))
    searching = check_searches(searches, search, forms)
    check_space(space)
    searched = any(arm_named(name).needs_policy for name in chosen) or (tune_randaugment > 0 and TUNED in chosen)
    wanted = with_known_costs(wanted, named=budgets is not None, unknown=unknown, searched=searched)
    experiment.check_names()
    if arms is not None:
        check_forms(chosen, experiment)
    workers = sharing_workers(experiment.cluster)
    if forms:
        check_frames(search, experiment.frames)
        search.check(workers, recipe)
    recipe.check(workers, here=experiment.cluster.address is None, recompute=experiment.architecture.recompute)
    settings = experiment.settings(
        space=space,
        readings=wanted,
        seeds=seeds,
        average_copies=tta_copies,
        tune_randaugment=tune_randaugment,
        recipe=recipe,
        **settings_of(searching, search),
    )
    check_folder(experiment.out, "compare", settings, experiment.resume)
    check_trials_fit(experiment.cluster)

    from fieldshift.search import load_space

    given = given_policies(policy, folded_policy)
    motion_space, dataset = load_space(space), experiment.checked_dataset(recipe, search if forms else None)
    note_frames(motion_space, experiment.frames)
    if forms:
        motion_space.check_kept(search.edges_per_node)
        note_short_search(dataset, search.like(recipe))
    motion_space = space_of_search(motion_space, search, list(given.values()))
    chosen, edges = arms_that_build(
        experiment,
        dataset,
        chosen,
        given,
        motion_space,
        named=arms is not None,
        step=training_step(dataset, recipe, workers),
        searched=search_step(dataset, search.like(recipe), workers),
    )
    read = {form: each for form, each in given.items() if any(needs(name, form) for name in chosen)}
    config = settings | {
        "policy": plain_policy(given.get("video")),
        "folded_policy": plain_policy(given.get("folded")),
        "arms": chosen,
    }
    plan = ComparisonPlan(
        arms=chosen,
        readings=wanted,
        seeds=seed_list,
        recipe=recipe,
        copies=tta_copies,
        tuning_samples=tune_randaugment,
    )
    tags = {"data": experiment.data, "network": experiment.network, "form": experiment.form}
    with open_session("compare", experiment, config=config, tags=tags, dataset=dataset) as session:
        finished = session.folder.finished_result()
        if finished is not None:
            return shown_comparison(session, finished)
        sources: dict[Form, PolicySource] = {"video": policy, "folded": folded_policy or policy}
        policies, found = ArmPolicies.given(read, sources, plan.seeds, experiment.frames), []
        # One connection to Ray for the searches and the trainings, which take one of their own where they are alone.
        with placed(experiment.cluster, on_ray=bool(edges) and workers_of_trials(experiment.cluster) > 0):
            if edges:
                results = run_searches(
                    session.stage(FOLDER, settings),
                    experiment,
                    motion_space,
                    search.like(recipe),
                    space_name=space,
                    edges=edges,
                    seeds=plan.seeds if searching == SEARCHES[0] else plan.seeds[:1],
                    digest=dataset.digest,
                )
                policies |= ArmPolicies.searched(results, plan.seeds)
                found = record_of(results)
            return run_comparison(session, experiment, dataset, plan, policies, motion_space, found)
