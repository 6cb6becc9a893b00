"""The question that search, training and comparison are asked: which data, which task, which network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.data.names import check_data_name
from fieldshift.errors import UserError
from fieldshift.forms import Form, check_form
from fieldshift.networks import NetworkConfig, is_foreign, known_networks, unknown_network
from fieldshift.networks.names import check_temporal_folds
from fieldshift.tasks import TASKS
from fieldshift.training import arm_named
from pipelines.alignment import check_alignment

if TYPE_CHECKING:
    from fieldshift.data import DataSet, Identity
    from fieldshift.folding import AnyPolicy
    from fieldshift.motions import Policy
    from fieldshift.search import Space
    from fieldshift.tasks import Task
    from fieldshift.training import NetworkCard

PolicySource = str | dict[str, Any] | None
"""A policy as commands take it: a file, a run folder that holds one, or what such a file holds (as in config.yaml)."""


STILL_ARMS: dict[Form, str] = {"video": "replicate", "folded": "identity-folded"}
"""In each form the arm whose motions move nothing: the network of a search, before the cell moves it."""


MOVED_ARMS: dict[Form, str] = {"video": "das", "folded": "das-folded"}
"""In each form the arm of a policy that was found."""


@dataclass(frozen=True)
class NormedBatch:
    """The images of one step that BatchNorm sees together: those of one worker or, `synchronised`, of all workers."""

    images: int
    synchronised: bool = False


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The plain options that every command shares. The seed of the data is the data's own: one data set a problem."""

    data: str
    task: str | None
    network: str
    temporal: str
    frames: int
    architecture: NetworkConfig
    loading: LoadingConfig
    form: Form = "video"

    def check_names(self) -> None:
        """Checks every name, number and path that tells a mistake without torch. Raises UserError."""
        if self.frames < 1:
            raise UserError(f"--frames is {self.frames}, but a video has at least 1 frame.")
        tasks = [self.task] if self.task else TASKS
        known = is_foreign(self.network, self.task) or any(self.network in known_networks(task) for task in tasks)
        if not known:
            raise unknown_network(self.network, self.task)
        self.architecture.check_names(self.network, self.temporal)
        check_form(self.form)
        if self.form == "folded":
            check_folded(self.temporal, self.frames)
        check_data_name(self.data, self.loading, self.loading.root)

    def check(self) -> DataSet:
        """Checks every name and number, then loads the data. Raises UserError before any long work."""
        self.check_names()
        dataset = self.load()
        say_reading(dataset)
        if self.network not in known_networks(dataset.task) and not is_foreign(self.network, dataset.task):
            raise UserError(
                f"The network {self.network} is not one for {dataset.task}; known for it: "
                f"{', '.join(known_networks(dataset.task))}."
            )
        return dataset

    def edges_to_decide(
        self, dataset: DataSet, space: Space, seed: int, *, step: NormedBatch, order: str = "first"
    ) -> int:
        """How many edges a search has to decide; UserError where the network has no search in this space and form."""
        from fieldshift.search import check_search

        card = self.checked_card(dataset, STILL_ARMS[self.form], None, None, seed, step=step)
        return check_search(card.build_without_memory(), space, self.frames, order)

    def without_auxiliary(self) -> Problem:
        """The same problem for a search, which learns from the reference frame's answer alone."""
        return replace(self, architecture=replace(self.architecture, auxiliary=False))

    def load(self, digest: str | None = None) -> DataSet:
        """The data set. Raises UserError where it has another digest than the one that is given, if any."""
        dataset = load_data(self.data, self.task, self.loading)
        if digest and dataset.digest != digest:
            raise UserError(
                f"{self.data} has changed since this run began (digest {digest}, now {dataset.digest}); restore it and "
                "--resume, or start anew."
            )
        return dataset

    def plain(self) -> dict[str, Any]:
        from dataclasses import asdict

        values = asdict(replace(self, architecture=self.architecture.anywhere()))
        if self.form == "video":  # as in the configurations of runs from before there was another form
            del values["form"]
        return values

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Problem:
        architecture = NetworkConfig(**values["architecture"])
        return Problem(**{**values, "architecture": architecture, "loading": loading_from_plain(values["loading"])})

    def card(
        self, dataset: DataSet, arm_name: str, policy: AnyPolicy | None, space: Space | None, seed: int
    ) -> NetworkCard:
        """The network that an arm trains, with the motions it reads, as a video of T frames or folded into one."""
        from fieldshift.search import units_of
        from fieldshift.training import network_card

        arm = arm_named(arm_name)
        if arm.form == "folded":
            check_folded(self.temporal, self.frames)
        units: list[tuple[str, ...]] = []
        if arm.frames == "random" and space is not None and space.is_placed:
            network = self.card(dataset, "identity-folded", None, None, seed).build_without_memory()
            units = units_of(space, [placement.path for placement in network.placements], network.stages)
        frames = arm_policy(arm_name, policy, space, self.frames, seed, units)
        return network_card(
            dataset, self.data, arm, network=self.network, temporal=self.temporal, policy=frames,
            architecture=self.architecture,
        )  # fmt: skip

    def checked_card(
        self,
        dataset: DataSet,
        arm_name: str,
        policy: AnyPolicy | None,
        space: Space | None,
        seed: int,
        *,
        step: NormedBatch,
        align: bool = True,
    ) -> NetworkCard:
        """The card, once it is known that its network can be built and learn from the images in a step.

        UserError also where a segmenter's maps cannot follow the motions, unless they are not aligned (`align`).
        """
        check_alignment(dataset.task, arm_name, policy, space, self.frames, align=align)
        card = self.card(dataset, arm_name, policy, space, seed)
        check_builds(card, step)
        return card


def smallest_step(samples: int, batch: int, workers: int, synchronised: bool | None = False) -> NormedBatch:
    """The smallest step of an epoch over `samples` images; `synchronised`: over all workers together."""
    shared_by = 1 if synchronised else max(workers, 1)
    return NormedBatch(max(1, min(batch, samples) // shared_by), bool(synchronised))


def check_builds(card: NetworkCard, step: NormedBatch) -> None:
    """Raises UserError where a network has no such option or place, or cannot read the images or learn from so few in a step.

    Built without memory, so it takes no time.
    """
    from fieldshift.networks import check_answer, flops_per_image
    from fieldshift.networks.smallest import check_batch_and_size
    from fieldshift.training.batch_statistics import norms_to_synchronise

    network = card.build(pretrained=False) if is_foreign(card.network) else card.build_without_memory()
    if is_foreign(card.network):
        rows = (2 * card.frames, card.channels, *card.size)
        check_answer(network.network, card.network, rows, len(card.classes), maps=card.task == "segmentation")
    if step.synchronised:
        norms_to_synchronise(network)
    check_batch_and_size(
        network.network,
        card.network,
        images=step.images,
        per_worker=not step.synchronised,
        rows=card.frames,
        channels=card.channels,
        size=card.size,
        training=True,
    )
    if card.architecture.places is not None:
        flops_per_image(network, card.size)  # shapes alone pass every place, which says so where they do not fit
    if card.architecture.weights is not None and Path(card.architecture.weights).is_file():
        card.build()  # a file's tensors have to fit


def loading_from_plain(values: dict[str, Any]) -> LoadingConfig:
    """The settings that JSON or YAML made plain, or none of them."""
    size = values.get("size")
    return LoadingConfig(**{**values, "size": None if size is None else tuple(size)})


def say_reading(dataset: DataSet) -> None:
    """How the data were read, in one line, and a line for each kind of thing that a person should know of them."""
    say(dataset.reading())
    for finding in dataset.findings:
        say(f"  note: {finding}")
    if dataset.skipped:
        say(f"{dataset.skipped} file(s) or sample(s) of {dataset.name} cannot be used and are left out; "
            f"`fieldshift check --data {dataset.name}` names them.")  # fmt: skip
    if dataset.leaked:
        say(f"{dataset.leaked} test image(s) of {dataset.name} are in train too, so scores will be too good; "
            f"`fieldshift check --data {dataset.name}` names them.")  # fmt: skip


def load_data(data: str, task: str | None, loading: LoadingConfig, like: Identity | None = None) -> DataSet:
    """The data set of this name, read as `loading` says; where parts are drawn, with those of `like`."""
    from fieldshift.data import load_dataset

    return load_dataset(
        data,
        task=cast("Task | None", task),
        root=loading.root,
        train_limit=loading.train_limit,
        test_limit=loading.test_limit,
        loading=loading,
        like=like,
    )


def check_folded(temporal: str, frames: int) -> None:
    """Raises UserError for a temporal module or a number of frames that the folded form does not have."""
    check_temporal_folds(temporal)
    if frames < 3:
        raise UserError(
            f"--frames is {frames}, but --form folded needs a frame to either side of the reference; give 3 or more."
        )


def arm_policy(
    arm_name: str,
    policy: AnyPolicy | None,
    space: Space | None,
    frames: int,
    seed: int,
    units: Sequence[tuple[str, ...]] = (),
) -> AnyPolicy | None:
    """The policy whose motions an arm reads, None for plain images.

    `units` are the places that share a motion, for a random policy of a space with several. Raises UserError when the
    arm needs a policy, or a policy of another form.
    """
    from fieldshift import folding
    from fieldshift.motions import Policy
    from fieldshift.search import load_space, random_policy

    arm = arm_named(arm_name)
    if arm.frames == "replicated":
        return Policy.replicate(frames)
    if arm.frames == "random":
        drawn_from = space or load_space("affine-one")
        if arm.form == "folded" and drawn_from.colours:
            raise UserError(
                f"The arm '{arm_name}' moves features, which have no colours, but the space {drawn_from.name} has colour "
                f"operations ({', '.join(drawn_from.colours)}); choose another space."
            )
        if drawn_from.is_placed and arm.form != "folded":
            raise UserError(
                f"The arm '{arm_name}' draws a video's motion, but the space {drawn_from.name} has several motions; use "
                "the arm random-policy-folded, or another space."
            )
        return random_policy(drawn_from, frames=frames, seed=seed, units=units)
    if not arm.needs_policy:
        return None
    if policy is None:
        raise UserError(f"The arm '{arm_name}' needs a policy; give --policy FILE (fieldshift search makes one).")
    if arm.form == "folded":
        folding.check_folds(policy.with_frames(frames))
        return policy.with_frames(frames)
    return video_policy(policy, f"The arm '{arm_name}'").with_frames(frames)


def say_other_length(policy: AnyPolicy | None, frames: int) -> None:
    """Says where a policy is used with another number of frames than it was found with."""
    if policy is not None and policy.frames != frames:
        say(
            f"The policy was made with {policy.frames} frames and is used with {frames}: the farthest frame moves as far, the "
            f"ones between differ; --frames {policy.frames} uses it as it is."
        )


def read_policy(source: PolicySource | Path | AnyPolicy) -> AnyPolicy | None:
    """The policy of a file, of a run folder that holds one, or of such a file's content."""
    from fieldshift.motions.placed import load_policy, policy_from_json

    if source is None:
        return None
    if isinstance(source, dict):
        return policy_from_json(json.dumps(source), "--policy")
    return load_policy(policy_file(source)) if isinstance(source, str | Path) else source


def video_policy(policy: AnyPolicy, what: str) -> Policy:
    """The policy, if it makes a video; else UserError, where `what` needs one."""
    from fieldshift.motions import Policy

    if not isinstance(policy, Policy):
        raise UserError(
            f"{what} needs a video, but the policy has a motion for each of several places (version 2); give a policy with "
            "one motion for all places, or use the form folded."
        )
    return policy


def policy_file(source: str | Path) -> Path:
    """The policy file, also where its run folder is named."""
    file = Path(source)
    return file / "policy.json" if file.is_dir() else file
