"""The question that search, training and comparison are asked: which data, which task, which network."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.data.names import check_data_name
from fieldshift.errors import UserError
from fieldshift.networks import NetworkConfig, is_foreign, known_networks, unknown_network
from fieldshift.networks.names import TASKS
from fieldshift.training import arm_named

if TYPE_CHECKING:
    from fieldshift.data import DataSet, Identity
    from fieldshift.data.split import Task
    from fieldshift.motions import Policy
    from fieldshift.search import Space
    from fieldshift.training import NetworkCard

PolicySource = str | dict[str, Any] | None
"""A policy as commands take it: a file, a run folder that holds one, or what such a file holds (as in config.yaml)."""


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

    def check_names(self) -> None:
        """Checks every name, number and path that tells a mistake without torch. Raises UserError."""
        if self.frames < 1:
            raise UserError(f"--frames is {self.frames}, but a video has at least 1 frame.")
        tasks = [self.task] if self.task else TASKS
        known = is_foreign(self.network, self.task) or any(self.network in known_networks(task) for task in tasks)
        if not known:
            raise unknown_network(self.network, self.task)
        self.architecture.check_names(self.network, self.temporal)
        check_data_name(self.data, self.loading, self.loading.root)

    def check(self) -> DataSet:
        """Checks every name and number, then loads the data. Raises UserError before any long work."""
        self.check_names()
        dataset = self.load()
        if dataset.skipped:
            say(f"{dataset.skipped} file(s) or sample(s) of {self.data} cannot be used and are left out; "
                f"`fieldshift check --data {self.data}` names them.")  # fmt: skip
        if dataset.leaked:
            say(f"{dataset.leaked} test image(s) of {self.data} are in train too, so scores will be too good; "
                f"`fieldshift check --data {self.data}` names them.")  # fmt: skip
        if self.network not in known_networks(dataset.task) and not is_foreign(self.network, dataset.task):
            raise UserError(
                f"The network {self.network} is not one for {dataset.task}; known for it: "
                f"{', '.join(known_networks(dataset.task))}."
            )
        return dataset

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

        return asdict(replace(self, architecture=self.architecture.anywhere()))

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Problem:
        architecture = NetworkConfig(**values["architecture"])
        return Problem(**{**values, "architecture": architecture, "loading": loading_from_plain(values["loading"])})

    def card(
        self, dataset: DataSet, arm_name: str, policy: Policy | None, space: Space | None, seed: int
    ) -> NetworkCard:
        """The network that an arm trains, with the video it reads: T frames, or 1 where it reads plain images."""
        from fieldshift.training import network_card

        arm = arm_named(arm_name)
        frames = arm_policy(arm_name, policy, space, self.frames, seed)
        return network_card(
            dataset, self.data, arm, network=self.network, temporal=self.temporal, policy=frames,
            architecture=self.architecture,
        )  # fmt: skip

    def checked_card(
        self, dataset: DataSet, arm_name: str, policy: Policy | None, space: Space | None, seed: int
    ) -> NetworkCard:
        """The card, once it is known that its network can be built: for the checks before any work."""
        card = self.card(dataset, arm_name, policy, space, seed)
        check_builds(card)
        return card


def check_builds(card: NetworkCard) -> None:
    """Raises UserError where a network has no such option or place; built without memory, so it takes no time."""
    from fieldshift.networks import check_answer, flops_per_image

    network = card.build(pretrained=False) if is_foreign(card.network) else card.build_without_memory()
    if is_foreign(card.network):
        rows = (2 * card.frames, card.channels, *card.size)
        check_answer(network.network, card.network, rows, len(card.classes), maps=card.task == "segmentation")
    if card.architecture.places is not None:
        flops_per_image(network, card.size)  # shapes alone pass every place, which says so where they do not fit
    if card.architecture.weights is not None and Path(card.architecture.weights).is_file():
        card.build()  # a file's tensors have to fit


def loading_from_plain(values: dict[str, Any]) -> LoadingConfig:
    """The settings that JSON or YAML made plain, or none of them."""
    size = values.get("size")
    return LoadingConfig(**{**values, "size": None if size is None else tuple(size)})


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


def arm_policy(arm_name: str, policy: Policy | None, space: Space | None, frames: int, seed: int) -> Policy | None:
    """The policy whose frames an arm reads, None for plain images. Raises UserError when the arm needs one."""
    from fieldshift.motions import Policy
    from fieldshift.search import load_space, random_policy

    arm = arm_named(arm_name)
    if arm.frames == "replicated":
        return Policy.replicate(frames)
    if arm.frames == "random":
        return random_policy(space or load_space("affine-one"), frames=frames, seed=seed)
    if not arm.needs_policy:
        return None
    if policy is None:
        raise UserError(f"The arm '{arm_name}' needs a policy; give --policy FILE (fieldshift search makes one).")
    return policy.with_frames(frames)


def say_other_length(policy: Policy | None, frames: int) -> None:
    """Says where a policy is used with another number of frames than it was found with."""
    if policy is not None and policy.frames != frames:
        say(
            f"The policy was made with {policy.frames} frames and is used with {frames}: the farthest frame moves as far, the "
            f"ones between differ; --frames {policy.frames} uses it as it is."
        )


def read_policy(source: PolicySource | Path | Policy) -> Policy | None:
    """The policy of a file, of a run folder that holds one, or of such a file's content."""
    from fieldshift.motions import Policy

    if source is None or isinstance(source, Policy):
        return source
    if isinstance(source, dict):
        return Policy.from_json(json.dumps(source), "--policy")
    return Policy.load(policy_file(source))


def policy_file(source: str | Path) -> Path:
    """The policy file, also where its run folder is named."""
    file = Path(source)
    return file / "policy.json" if file.is_dir() else file
