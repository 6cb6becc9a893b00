"""Networks of both forms in one comparison of effective fields, and the motions that folded ones can be looked at under."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import arm_card
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.receptive_field import check_comparable
from fieldshift.receptive_field.figures import comparison_figure
from fieldshift.receptive_field.passages import motions_at_places, policy_in
from fieldshift.tracking import TrackingConfig
from fieldshift.training import save_network
from pipelines.field_maps import FieldSettings, measured
from pipelines.field_subjects import subjects_of

POLICY = Policy.single("translate_x", 0.4, frames=3)
UNTRACKED = TrackingConfig(enabled=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A plain network, a video network and a folded one on disk as training leaves them, with drawn weights."""
    experiment = Experiment(
        data="digit-pairs-left",
        task=None,
        network="tiny-resnet",
        temporal="tsm",
        frames=3,
        architecture=NetworkConfig(),
        loading=LoadingConfig(train_limit=40, test_limit=20),
    )
    dataset, folders = experiment.load(), []
    for arm in ("none", "das", "das-folded"):
        folder = tmp_path_factory.mktemp("runs") / arm
        card = arm_card(experiment, dataset, arm, POLICY, None)
        torch.manual_seed(7)
        save_network(folder, card.build(), card)
        folders.append(str(folder))
    return folders


def test_both_forms_in_one_comparison(runs: list[str]) -> None:
    pictures = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    subjects = subjects_of(runs, UNTRACKED, motions=None, before=False)
    found = {subject.name: measured(subject, pictures, "noise", FieldSettings()) for subject in subjects}
    maps = {name: each.field for name, each in found.items()}
    check_comparable(list(maps.values()))
    assert [(each.conditions.form, each.conditions.frames) for each in maps.values()] == [
        ("video", 1),
        ("video", 3),
        ("folded", 1),
    ]
    assert maps["das"].conditions.policy_digest == maps["das-folded"].conditions.policy_digest == POLICY.digest()
    lines = " ".join(text.get_text() for part in comparison_figure(maps).subfigs for text in part.texts)
    assert "das-folded: tiny-resnet, folded, tsm, trained" in " ".join(lines.split())
    plain, folded = found["none"].regions, found["das-folded"].regions
    assert plain is not None
    assert folded is not None
    assert plain.fused.area == folded.plain.area < folded.fused.area == found["das-folded"].field.theoretical_area


def test_folded_runs_under_their_own_motions_and_plain(runs: list[str]) -> None:
    own, plain = subjects_of(runs[2:], UNTRACKED, motions=["own", "plain"], before=False)
    pictures = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    moved, still = (measured(subject, pictures, "noise", FieldSettings()) for subject in (own, plain))
    assert moved.field.conditions.policy == tuple(POLICY.describe())
    assert still.field.conditions.policy == ()
    assert still.regions is not None
    assert torch.equal(still.regions.fused.mask, still.regions.plain.mask)
    assert bool((moved.field.values > 0).sum() > (still.field.values > 0).sum())
    for words in ("rotate=30", str(Path(runs[2]))):
        with pytest.raises(UserError, match="is a folded network, whose motions are inside it; give own, or plain"):
            subjects_of(runs[2:], UNTRACKED, motions=[words], before=False)


def test_a_folded_network_before_training(runs: list[str]) -> None:
    before, after = subjects_of(runs[2:], UNTRACKED, motions=["plain"], before=True)
    assert (before.folder, after.folder) == (None, Path(runs[2]))
    for subject in (before, after):
        assert policy_in(motions_at_places(subject.network())) == Policy.replicate(3)
