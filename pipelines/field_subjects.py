"""The networks whose receptive fields are measured: by run folder or MLflow run id, under given motions, before or
after training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError
from fieldshift.experiment.policy_source import read_policy, say_other_use, video_policy
from fieldshift.folding import AnyPolicy, motions_of, move_by
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedPolicy
from fieldshift.run_folder import CONFIG, read_config, read_result
from fieldshift.tracking import TrackingConfig
from fieldshift.training import NetworkCard, load_network

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from fieldshift.networks import VideoNetwork

OWN, PLAIN = "own", "plain"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SWEEPS = {"sweep-frames", "frames"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network whose field is measured.

    Attributes:
        name: its name in table and figures.
        card: how the network is built, and which motions it was trained under.
        folder: where its trained weights are; None for the weights that training starts from.
        policy: the motions that replace its own.
        seed: decides the weights that training starts from.
        frames: its number of frames in a frame sweep; None outside of one.
    """

    name: str
    card: NetworkCard
    folder: Path | None
    policy: Policy | None = None
    seed: int = 0
    frames: int | None = None

    @property
    def trained(self) -> bool:
        """Returns whether its weights are trained, here or as pretrained weights."""
        return self.folder is not None or self.card.architecture.weights is not None

    @property
    def motions(self) -> AnyPolicy | None:
        """The policy whose video the network reads, or that moves its channels; None where it reads plain images."""
        if self.card.form == "folded":
            return self.policy or self.card.motions
        plan = self.card.plan()
        return self.policy or (None if plan.as_images else plan.policy)

    def network(self, device: torch.device | str = "cpu") -> VideoNetwork:
        """The network in evaluation mode."""
        import torch

        if self.folder is not None:
            network = load_network(self.folder, device)[0]
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                network = self.card.build().to(device).eval()
        if self.card.form == "folded" and self.policy is not None:
            move_by(network, motions_of(self.policy))
        return network


def subjects_of(
    runs: Sequence[str], tracking: TrackingConfig, *, motions: Sequence[str] | None, before: bool
) -> list[Subject]:
    """The networks that `receptive-field` compares. Raises UserError, before any work, for what cannot be compared.

    runs: folders, MLflow run ids, or the folder of one frame sweep, whose networks are taken with their first seed.
    motions: each network is measured under each of these instead of its own (`motions_named`). before: each is
    preceded by itself before training.
    """
    if motions and len(set(motions)) < len(motions):
        raise UserError(f"--motions names a motion twice: {', '.join(motions)}; give each once.")
    folders = {run: trained_folder(run, tracking) for run in runs}
    names = [name_of(folder) for folder in folders.values()]
    found: list[Subject] = []
    for run, folder in folders.items():
        lengths = sweep_folders(folder)
        if lengths and len(runs) > 1:
            raise UserError(f"{run} is a frame sweep; give it alone, or single trials of it.")
        for frames, trial in lengths.items():
            found.append(Subject(name=f"T = {frames}", card=load_network(trial)[1], folder=trial, frames=frames))
        if not lengths:
            name = name_of(folder) if names.count(name_of(folder)) == 1 else run
            found.append(Subject(name=name, card=load_network(folder)[1], folder=folder))
    check_alike(found)
    if motions:
        if len(motions) > 1 and found[0].frames is not None:
            raise UserError(
                f"--motions names {len(motions)} motions, but {runs[0]} is a frame sweep, whose fields are drawn against "
                "T under one; give one motion, or single trials of it."
            )
        words, alone = names_of(motions), len(found) == 1
        found = [
            replace(subject, name=word if alone else f"{subject.name}, {word}", policy=motions_named(text, subject))
            for subject in found
            for text, word in zip(motions, words, strict=True)
        ]
    if before:
        found = [each for subject in found for each in (before_training(subject), subject)]
    return found


def before_training(subject: Subject) -> Subject:
    """The same network with the weights that its training started from, if its run records the seed."""
    assert subject.folder is not None
    return replace(subject, name=f"{subject.name}, before training", folder=None, seed=seed_of(subject.folder))


def seed_of(folder: Path) -> int:
    """The seed in the configuration of a run folder, or at the end of a trial's name; 0 where neither is there."""
    file = folder / CONFIG
    if file.is_file():
        seed = read_config(file)[1].get("seed") or 0
        if not isinstance(seed, int):
            raise UserError(f"{file} has the seed {seed!r}, which is not a whole number; restore it, or delete it.")
        return seed
    ending = re.search(r"-seed(\d+)$", name_of(folder))
    return int(ending[1]) if ending else 0


def name_of(path: Path) -> str:
    """The last part of a path, also where it is written as '.' or '..'."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def names_of(motions: Sequence[str]) -> list[str]:
    """The names of motions: a policy file's name alone, or its path where another file has that name."""
    short = [name_of(Path(text)) if is_file(text) else text for text in motions]
    return [name if short.count(name) == 1 else text for text, name in zip(motions, short, strict=True)]


def is_file(motions: str) -> bool:
    """Returns whether a word of --motions is a policy file or a folder with one, whose path may contain '='."""
    if "=" not in motions:
        return motions not in (OWN, PLAIN)
    try:
        return Path(motions).exists()
    except OSError:  # a chain longer than the name of a file can be
        return False


def motions_named(text: str, subject: Subject) -> Policy | None:
    """The policy that a word of --motions stands for, with the frames that the network reads.

    'own': the network's own. 'plain': equal frames. A folded network, whose motions are inside it, has these two alone.
    'rotate=30' or 'translate_x=0.3,zoom=1.2': a motion, or a chain of motions, with what lies outside as in its own
    policy. Anything else, or what exists: a policy file or a search's folder.
    """
    if text == OWN:
        return None
    if subject.card.form == "folded":
        if text != PLAIN:
            raise UserError(
                f"--motions has '{text}', but {subject.name} is a folded network, whose motions are inside it; give own, or "
                "plain for channels that do not move."
            )
        return Policy.replicate(3)
    own = subject.motions
    assert not isinstance(own, PlacedPolicy), "motions at places have no video"
    if own is None:
        raise UserError(
            f"The network of {subject.name} reads single images, so it cannot be measured under motions; give runs that were "
            "trained on videos (fieldshift train --policy FILE)."
        )
    settings: dict[str, Any] = {"fill": own.fill, "reference": own.reference, "symmetric": own.symmetric}
    if text == PLAIN:
        return Policy.replicate(own.frames, **settings)
    if is_file(text):
        policy = read_policy(text)
        assert policy is not None
        say_other_use(policy, own.frames)
        return video_policy(policy, "--motions").with_frames(own.frames)
    steps = []
    for step in text.split(","):
        name, _, magnitude = step.partition("=")
        try:
            steps.append((name.strip(), float(magnitude)))
        except ValueError:
            raise UserError(f"--motions has '{step}', but a motion is NAME=NUMBER, such as rotate=30.") from None
    return Policy.chain(steps, frames=own.frames, **settings)


def check_alike(subjects: Sequence[Subject]) -> None:
    """Raises UserError, naming what differs, unless the maps of all networks will be of the same conditions."""
    first = subjects[0]
    asked: dict[str, Callable[[NetworkCard], object]] = {
        "data set": lambda card: card.data,
        "task": lambda card: card.task,
        "input size": lambda card: f"{card.size[0]} x {card.size[1]} px",
        "channels": lambda card: card.channels,
    }
    for other in subjects[1:]:
        for words, value in asked.items():
            if value(first.card) != value(other.card):
                raise UserError(
                    f"These runs cannot be compared: the {words} is {value(first.card)} for {first.name} and "
                    f"{value(other.card)} for {other.name}; effective fields are comparable under the same conditions only."
                )


def trained_folder(run: str, tracking: TrackingConfig) -> Path:
    """The folder of a run, itself given as a folder or as an MLflow run id."""
    if Path(run).exists() or not _RUN_ID.fullmatch(run):
        return Path(run)
    from fieldshift.tracking.addresses import is_sqlite, sqlite_address, sqlite_file
    from fieldshift.tracking.store import FOLDER_TAG, KEY_TAG, client_for, reach

    given = tracking.address
    if given:
        reach(given)
    stores = {given: Path.cwd()} if given else {sqlite_address(file): file.parent for file in local_stores()}
    for uri, home in stores.items():
        try:
            tags = client_for(uri).get_run(run).data.tags
        except Exception:  # not in this store, or a store of something else
            continue
        if is_sqlite(uri):  # what its own folder holds is named from there
            home = sqlite_file(uri).parent
        folder = home / tags[FOLDER_TAG] if FOLDER_TAG in tags else folder_of_key(tags.get(KEY_TAG, ""))
        if folder is None or not folder.is_dir():
            raise UserError(
                f"MLflow run {run} lies in {folder or 'no folder'}, which is not here; give its run folder."
            )
        return folder
    where = given or "the stores of the folders below runs/"
    raise UserError(f"There is no MLflow run {run} in {where}; give --tracking.uri of its store, or its run folder.")


def folder_of_key(key: str) -> Path | None:
    """The folder of a run of an earlier version, whose key is its folder, for a trial with a colon and its name."""
    place, _, trial = (key, "", "") if Path(key).is_dir() else key.rpartition(":")
    if not place:
        return Path(key) if key else None
    return Path(place) / "trials" / trial if trial else Path(place)


def local_stores() -> list[Path]:
    """The MLflow stores of the run folders below here, the latest first."""
    return sorted(Path("runs").glob("*/mlflow.db"), key=lambda file: file.stat().st_mtime, reverse=True)


def sweep_folders(folder: Path) -> dict[int, Path]:
    """T -> the trained network of a frame sweep's first seed; empty where the folder is no frame sweep."""
    import pandas as pd

    if (folder / "network.json").exists() or not (folder / "result.json").exists():
        return {}
    result = read_result(folder)
    if result.get("command") not in _SWEEPS:
        return {}
    try:
        return lengths_of(pd.DataFrame(result["rows"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / 'result.json'} does not list the networks of a frame sweep; restore it, or give single trials."
        ) from None


def lengths_of(rows: pd.DataFrame) -> dict[int, Path]:
    """T -> the folder of the network that was trained with the first seed, of a frame sweep's rows."""
    first = rows.sort_values(["frames", "seed"]).drop_duplicates("frames")
    return {int(frames): Path(folder) for frames, folder in zip(first["frames"], first["folder"], strict=True)}
