"""The options that every command shares: data, network, form, seed, and where the run executes and is recorded."""

# No `from __future__ import annotations`: to evaluate text, the parser would import what is under TYPE_CHECKING, so torch.
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.data.names import check_data_name, task_of
from fieldshift.errors import UserError
from fieldshift.experiment.dataset import load_data, loading_from_plain, say_reading
from fieldshift.forms import Form, check_form, check_length
from fieldshift.networks import NetworkConfig, is_foreign, known_networks, unknown_network
from fieldshift.networks.names import check_temporal_folds
from fieldshift.search.config import SearchConfig
from fieldshift.settings import LARGEST_SEED
from fieldshift.tasks import TASKS
from fieldshift.tracking import TrackingConfig
from fieldshift.tracking.store import check_store
from fieldshift.training.recipe import Recipe, check_crop

if TYPE_CHECKING:
    from fieldshift.data import DataSet

PROBLEM = ("data", "task", "network", "temporal", "frames", "architecture", "loading", "form")
"""The options that decide what a worker computes, beside its seed: those that `Experiment.plain` passes to it."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The options that every command shares.

    Attributes:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, or your own as package.module:function; a search trains it, and all arms share it.
        temporal: temporal module, where an arm has one: none, tsm, tsm-inplace, tsm-causal, gsm, gsf or conv3d; in the folded
            form tsm, tsm-inplace, gsm or gsf.
        frames: frames of the video; in the folded form they decide the step between neighbouring frames.
        form: video (T moved frames) or folded (one frame, whose channels move).
        seed: seed of weights, order, augmentation and search; with several seeds, the first one;
            from 0 to 2 ** 63 - 1.
        architecture: further settings of the network.
        loading: settings of reading data.
        cluster: processes and machines of the run.
        tracking: where the run is recorded.
        out: run folder; by default runs/COMMAND.
        resume: resume the run in that folder; finished parts are kept.
    """

    data: str = "digit-pairs-left"
    task: str | None = None
    network: str = "tiny-resnet"
    temporal: str = "tsm"
    frames: int = 3
    form: Form = "video"
    seed: int = 0
    architecture: NetworkConfig = NetworkConfig()
    loading: LoadingConfig = LoadingConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    out: str | None = None
    resume: bool = False

    def check_names(self) -> None:
        """Checks every name, number and path that can be checked without importing torch. Raises UserError."""
        self.check_values()
        check_data_name(self.data, self.loading, self.loading.root)

    def check_values(self) -> None:
        """As `check_names`, without the paths and names of data on this machine. Raises UserError."""
        self.seeds(1)
        check_length(self.frames, "--frames")
        self.check_network(self.task or task_of(self.data))
        self.architecture.check_names(self.network, self.temporal)
        check_form(self.form)
        if self.form == "folded":
            check_folded(self.temporal, self.frames)

    def check_network(self, task: str | None) -> None:
        """Raises UserError where the network's name is not one for the task, or for None not for any."""
        known = (name for each in ([task] if task else TASKS) for name in known_networks(each))
        if not is_foreign(self.network, task) and self.network not in known:
            raise unknown_network(self.network, task)

    def checked_dataset(self, recipe: Recipe | None = None, search: SearchConfig | None = None) -> "DataSet":
        """Checks every name and number and the store, then loads the data and prints how they were read.

        Raises UserError, also where the images are too small for the crop of the recipe or of the search.
        """
        self.check_names()
        check_store(self.tracking)
        dataset = self.load()
        say_reading(dataset)
        self.check_network(dataset.task)
        for section, settings in (("recipe", recipe), ("search", search)):
            if settings is not None:
                check_crop(section, settings.crop or 0, dataset.size)
        return dataset

    def load(self, digest: str | None = None) -> "DataSet":
        """The data set. Raises UserError where its digest differs from the given one, if any."""
        dataset = load_data(self.data, self.task, self.loading)
        if digest and dataset.digest != digest:
            raise UserError(
                f"{self.data} has changed since this run began (digest {digest}, now {dataset.digest}); restore it and "
                "--resume, or start again."
            )
        return dataset

    def with_seed(self, seed: int) -> "Experiment":
        """The same experiment with another seed."""
        return replace(self, seed=seed)

    def seeds(self, count: int) -> list[int]:
        """`count` seeds from the first one on. Raises UserError for fewer than one, and for one out of range."""
        if count < 1:
            raise UserError(f"--seeds is {count}, but must be at least 1.")
        if not 0 <= self.seed <= LARGEST_SEED - count + 1:
            of = f" and {count} seeds begin with it" if count > 1 else ""
            raise UserError(
                f"--seed is {self.seed}{of}, but a seed must be from 0 to {LARGEST_SEED}; give one in that range."
            )
        return list(range(self.seed, self.seed + count))

    def plain(self) -> dict[str, Any]:
        """The options of PROBLEM as plain values, for workers and configuration files."""
        values = asdict(replace(self, architecture=self.architecture.anywhere()))
        kept = {name: values[name] for name in PROBLEM}
        if self.form == "video":  # configurations of versions that had no other form do not name it
            del kept["form"]
        return kept

    @staticmethod
    def from_plain(values: dict[str, Any]) -> "Experiment":
        """The experiment that `plain` describes, in a worker: without seed, cluster, tracking and folder."""
        architecture = NetworkConfig(**values["architecture"])
        loading = loading_from_plain(values["loading"])
        return Experiment(**{**values, "architecture": architecture, "loading": loading})

    def settings(self, **own: Any) -> dict[str, Any]:
        """The configuration that a run folder keeps: the shared options and the command's `own`."""
        shared = {"seed": self.seed, "cluster": self.cluster, "tracking": self.tracking}
        return {**self.plain(), **shared, **own}


def check_folded(temporal: str, frames: int) -> None:
    """Raises UserError for a temporal module or a number of frames that the folded form does not have."""
    check_temporal_folds(temporal)
    if frames < 3:
        raise UserError(
            f"--frames is {frames}, but --form folded needs a frame to either side of the reference; give 3 or more."
        )
