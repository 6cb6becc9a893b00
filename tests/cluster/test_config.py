"""What may be asked of a cluster."""

import dataclasses
import re

import pytest

from fieldshift.cluster import ClusterConfig
from fieldshift.errors import UserError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", -1),
        ("cpus_per_worker", 0),
        ("gpus_per_worker", -0.5),
        ("gpus_per_worker", 2),
        ("trials_at_once", -1),
        ("trial_workers", -2),
        ("start_timeout_s", 0),
        ("address", "ray://head:10001"),
        ("address", "http://head:8265"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(field: str, value: object) -> None:
    with pytest.raises(UserError, match=re.escape(f"cluster.{field} is")) as caught:
        ClusterConfig(**{field: value})
    assert "\n" not in str(caught.value)
    assert str(value) in str(caught.value)


def test_every_field_has_its_line() -> None:
    for field in dataclasses.fields(ClusterConfig):
        assert re.search(rf"^ +{field.name}: \S", ClusterConfig.__doc__ or "", re.MULTILINE), field.name


def test_the_default_runs_in_this_process() -> None:
    assert ClusterConfig().workers == 0
    assert ClusterConfig().address is None


def test_an_elastic_run_needs_a_batch_that_every_number_of_workers_divides() -> None:
    from fieldshift.experiment.placement import check_elastic, check_trials_fit

    elastic = ClusterConfig(workers=4, min_workers=2)
    check_elastic(elastic, 48, "--recipe.batch")
    check_elastic(ClusterConfig(workers=4), 63, "--recipe.batch")
    with pytest.raises(UserError, match=r"--recipe.batch is 64, .* a multiple of 12, such as --recipe.batch 60"):
        check_elastic(elastic, 64, "--recipe.batch")
    check_elastic(elastic, 48, "--recipe.batch", 4)
    with pytest.raises(UserError, match=r"divide it into 2 micro-batches each; give a multiple of 24, .* 48\."):
        check_elastic(elastic, 60, "--recipe.batch", 2)
    with pytest.raises(UserError, match="min_workers is for search and train"):
        check_trials_fit(elastic)
    with pytest.raises(
        UserError, match="cluster.workers is for search and train; .* each trial are cluster.trial_workers"
    ):
        check_trials_fit(ClusterConfig(workers=2, trials_at_once=0))
    with pytest.raises(UserError, match="must be from 1 to cluster.workers, which is 2"):
        ClusterConfig(workers=2, min_workers=3)
