"""Names, paths and files that a command was given, checked before anything slow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldshift.data.loading import LoadingConfig, LoadingOverrides
from fieldshift.data.names import check_data_name
from fieldshift.errors import UserError
from fieldshift.forms import check_form
from fieldshift.networks.names import is_foreign, known_detectors, known_networks, unknown_network
from fieldshift.run_folder import check_writable
from fieldshift.tasks import TASKS
from fieldshift.training.card_file import read_card
from search_spaces import motion_spaces


def check_network_name(name: str) -> None:
    """Raises UserError where `name` is no network that a theoretical field can be asked for."""
    if (
        not is_foreign(name)
        and name not in known_detectors()
        and not any(name in known_networks(task) for task in TASKS)
    ):
        raise unknown_network(name)


def check_space(space: str) -> None:
    """Raises UserError for an unknown search space."""
    motion_spaces.found(space)


def check_figure(out: str, endings: Sequence[str]) -> Path:
    """The file that a figure is written to. Raises UserError for an unsuitable path."""
    path = Path(out)
    if path.suffix not in endings:
        raise UserError(f"--out is '{out}', but a figure is written as {', '.join(endings[:-1])} or {endings[-1]}.")
    if path.is_dir():
        raise UserError(f"--out {out} is a folder; give a file in it.")
    check_writable(path.absolute().parent, "a file elsewhere")
    return path


def check_run(run: str, form: str | None = None) -> dict[str, Any]:
    """The description of the network in a run folder. Raises UserError where there is none, or it has another form."""
    card = read_card(Path(run))
    if form is not None:
        check_form(form)
        own = card.get("form", "video")
        if form != own:
            raise UserError(
                f"--form is {form}, but the network in {run} has the form {own}; leave out --form, or name another run."
            )
    return card


def check_copies(copies: int) -> None:
    """Raises UserError for a negative number of augmented copies."""
    if copies < 0:
        raise UserError(f"--tta_copies is {copies}, but must be 0 or more.")


def check_pictures(images: Sequence[str]) -> None:
    """Raises UserError where one of the picture files is missing, or is a folder."""
    for name in images:
        path = Path(name)
        if path.is_dir():
            raise UserError(f"{name} is a folder; name the images in it, such as {path / '*.png'}.")
        if not path.exists():
            raise UserError(f"{name} does not exist; check the path.")


def only_one(words: Sequence[str] | None, singular: str, plural: str, advice: str) -> str:
    """The one word that was given. Raises UserError for none or several, with the advice."""
    if not words or len(words) > 1:
        given = f"{len(words)} {plural} are given: {', '.join(words)}" if words else f"No {singular} is given"
        raise UserError(f"{given}; {advice}.")
    return words[0]


def check_data_of(run: str, trained_on: str, data: str | None, loading: LoadingOverrides) -> None:
    """Raises UserError where the data of a run, or others in their place, are not there."""
    try:
        check_data_name(data or trained_on, loading.over(LoadingConfig()), loading.root)
    except UserError as error:
        kind, colon, path = trained_on.partition(":")
        if data is not None or not colon or Path(path).expanduser().exists():
            raise
        raise UserError(f"{error} {run} was trained on it: if it is elsewhere now, add --data {kind}:PATH.") from None
