"""The folder of one run: its configuration, its result, and whether the run can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform as host
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.folder_lock import LOCK, check_free, locked
from fieldshift.paths import given_path, obstacle
from fieldshift.result_table import result_table
from fieldshift.whole_file import write_whole

CONFIG = "config.yaml"
SCHEMA = "fieldshift.result"
VERSION = 1
SEMANTICS = 2
"""Raised where a version computes other numbers from the same options: what another one left unfinished is not continued."""

IN_JOB = "FIELDSHIFT_JOB"
"""The environment variable that is set where a command was submitted as a job: it then names its run folder once."""

JOB_COMMIT = "FIELDSHIFT_COMMIT"
"""The environment variable with the commit of the code that was submitted as a job, which has no checkout there."""

NAMED = "run folder:"
"""The text before the absolute path of the run folder in a job's output."""

IMPLIED = {"accumulate": 1, "resized_crop": 1.0, "precision": "float32"}
"""Options that earlier versions did not have, with the values that they ran with."""

# Options that may change on resume: where a run executes and is recorded, and how many samples a tuning tries.
NOT_HASHED = frozenset({"out", "resume", "cluster", "tracking", "samples"})


@dataclass(frozen=True)
class RunFolder:
    """A run folder with `config.yaml` (the configuration) and, once finished, `result.json` (the result).

    resumed: the run is to be resumed, and has left something to resume.
    """

    path: Path
    command: str
    config: dict[str, Any]
    resumed: bool

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    def finished_result(self) -> dict[str, Any] | None:
        """The result of an earlier, finished run of the same configuration, or None; a run with failed trials is unfinished."""
        return result_without_failures(self.path) if self.resumed else None

    def write_result(self, values: dict[str, Any]) -> dict[str, Any]:
        """Writes result.json: `values` with command, configuration, time, versions and hardware. Returns all of it.

        A result with a table (`result_table`) is also written as result.csv.
        """
        own = plain(values)
        result = {
            "schema": SCHEMA,
            "version": VERSION,
            "command": self.command,
            "run_folder": str(self.path.absolute()),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config,
            "environment": environment(),
            **own,
        }
        table = result_table(own)
        if table is not None:
            write_whole(self.path / "result.csv", table)
        write_whole(self.result_path, json.dumps(result, indent=2) + "\n")
        return result


def is_finished(folder: Path) -> bool:
    """Whether a run folder contains a result without failed trials."""
    return result_without_failures(folder) is not None


def result_without_failures(folder: Path) -> dict[str, Any] | None:
    """The result that a run folder contains, or None where there is none, or trials failed in it."""
    result = read_result(folder) if (folder / "result.json").exists() else None
    return None if result is None or result.get("failed") else result


@contextlib.contextmanager
def held_run_folder(out: str | Path | None, command: str, config: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
    """The folder that this run writes to, created if needed, and locked for the block before anything is written.

    Without `out` it is runs/COMMAND, or the first free runs/COMMAND-N; with `resume` the latest one. Raises
    UserError when another process has the folder in use, or it holds another configuration, or the same one without `resume`.
    """
    path = (default_folder(command, resume) if out is None else given_path(out)).absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path} is a file; give a folder.")
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        yield open_run_folder(path, command, config, resume)


def open_run_folder(path: Path, command: str, config: dict[str, Any], resume: bool) -> RunFolder:
    """Opens a run, or a part of one, in a folder that this process holds.

    Raises UserError when the folder holds another configuration, or the same one without `resume`.
    """
    config = plain(config)
    config_path = path / CONFIG
    begun = path.exists() and any(each.name not in (LOCK, config_path.name) for each in path.iterdir())
    if os.environ.pop(IN_JOB, None):
        say(f"{NAMED} {path}", whole=True)
    if config_path.exists():
        check_same_run(config_path, command, config, resume)
        check_semantics(path, path)
    else:
        with writing_to(path):
            write_whole(config_path, config_text(command, config))
    return RunFolder(path, command, config, resumed=resume and begun)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Raises UserError in one line where a run folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {path} cannot be written ({error.strerror}); give a writable folder.") from None


def check_folder(out: str | Path | None, command: str, settings: dict[str, Any], resume: bool) -> None:
    """Raises UserError where a run cannot be opened in the folder `out`; writes nothing.

    `settings` is the part of the configuration that is known before the policy and the data are read.
    """
    if out is None:
        return
    path = given_path(out).absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path} is a file; give a folder.")
    config_path = path / CONFIG
    if config_path.exists():
        check_free(path)
        held_command, held = read_config(config_path)
        settings = plain(settings)
        part = {name: held.get(name) for name in settings}
        refuse_another(path, (held_command, part), (command, settings), resume)
        check_semantics(path, path)
    check_writable(path, "a writable folder")


def check_writable(path: Path, allowed: str) -> None:
    """Raises UserError where the nearest existing part of `path` is not a folder, or is not writable."""
    if found := obstacle(path):
        raise UserError(f"--out {path} cannot be written ({found}); give {allowed}.")


def check_same_run(config_path: Path, command: str, config: dict[str, Any], resume: bool) -> None:
    held_command, held = read_config(config_path)
    if config_digest(held) == config_digest(config):
        held = config
    refuse_another(config_path.parent, (held_command, held), (command, config), resume)


def refuse_another(
    folder: Path, held: tuple[str, dict[str, Any]], asked: tuple[str, dict[str, Any]], resume: bool
) -> None:
    """Raises UserError where a folder holds a run that differs from the request, or the same one without `resume`."""
    what = first_difference(held[1], asked[1]) if held[0] == asked[0] else f"the command {held[0]}"
    if what:
        raise UserError(
            f"--out {folder} holds a run of another configuration ({what}); give another --out, or the same options."
        )
    there, here = (stored_in(config) for config in (held[1], asked[1]))
    if resume and there != here:
        raise UserError(
            f"--out {folder} has its checkpoints in {there or 'the folder itself'}, but cluster.storage is "
            f"{here or 'left out'}; {f'give --cluster.storage {there}' if there else 'leave it out'} to continue the run."
        )
    if not resume:
        raise UserError(f"--out {folder} already holds this run; add --resume to continue it, or give another --out.")


def stored_in(config: dict[str, Any]) -> str | None:
    """The cluster's storage of a configuration."""
    cluster = config.get("cluster")
    return cluster.get("storage") if isinstance(cluster, dict) else None


def check_semantics(run: Path, part: Path) -> None:
    """Raises UserError where `part` of a run, or the whole, is unfinished and another version began the run."""
    if is_finished(part):
        return
    first = (run / CONFIG).read_text(encoding="utf-8").partition("\n")[0]
    named = re.search(r"; semantics (\d+)$", first)
    held = int(named[1]) if named else 1  # which versions before the second did not write
    if held != SEMANTICS:
        which = "an earlier" if held < SEMANTICS else "a later"
        raise UserError(
            f"--out {run} was made by {which} version of FieldShift, which computes other numbers, and is not finished"
            f"{'' if part == run else f' ({part.name} is missing)'}; give another --out."
        )


def read_config(config_path: Path) -> tuple[str, dict[str, Any]]:
    """The command and the configuration in a run folder's config.yaml. Raises UserError where it is not valid."""
    import yaml

    try:
        lines = config_path.read_text(encoding="utf-8").splitlines()
        held = yaml.safe_load("\n".join(lines)) or {}
        command = lines[0].removeprefix("# fieldshift ").split()[0]
    except (yaml.YAMLError, OSError, IndexError, UnicodeDecodeError):
        raise UserError(f"{config_path} cannot be read; restore it, or give another folder.") from None
    if not isinstance(held, dict):
        raise UserError(f"{config_path} contains no configuration; restore it, or give another folder.")
    if command == "receptive-field" and "runs" in held:  # one command with compare-fields in earlier versions
        command = "compare-fields"
    return command, held


def default_folder(command: str, resume: bool) -> Path:
    """The folder of a run without --out: a new one, made here so that no other process has it, or with `resume` the latest."""
    runs = Path("runs")
    with writing_to(runs.absolute()):
        runs.mkdir(exist_ok=True)
    number, latest = 0, None
    while True:
        number += 1
        path = runs / (command if number == 1 else f"{command}-{number}")
        if resume and latest is not None and not path.exists():
            return latest
        with writing_to(path.absolute()), contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
        latest = path


def config_digest(config: dict[str, Any]) -> str:
    """A short hash of all options that affect the results."""
    kept = {name: value for name, value in plain(config).items() if name not in NOT_HASHED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def config_text(command: str, config: dict[str, Any]) -> str:
    import yaml

    head = f"# fieldshift {command} --config THIS_FILE runs this again; digest {config_digest(config)}; semantics {SEMANTICS}\n"
    return head + str(yaml.safe_dump(config, sort_keys=False))


def first_difference(held: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> str:
    """Describes the first option in which two configurations differ."""
    for name in [*asked, *(key for key in held if key not in asked)]:
        if not prefix and name in NOT_HASHED:
            continue
        old, new = held.get(name), asked.get(name)
        if name not in held and is_implied(name, new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            inner = first_difference(old, new, f"{prefix}{name}.")
            if inner:
                return inner
        elif old != new:
            return f"{prefix}{name} is {old} there, {new} here"
    return ""


def is_implied(name: str, value: object) -> bool:
    """Whether runs of versions without an option ran as with this value of it: a flag that is off, or one of IMPLIED."""
    return value is False or (name in IMPLIED and IMPLIED[name] == value)


def read_result(folder: Path) -> dict[str, Any]:
    """The result.json of a run folder, with its folders where they are now.

    Raises UserError where the file is missing, newer than this version, or invalid.
    """
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no finished run (no result.json); finish it with --resume.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; run it again.") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not isinstance(result.get("version"), int):
        raise UserError(f"{path} is not the result of a FieldShift run; give the folder of one.")
    if result["version"] > VERSION:
        raise UserError(f"{path} has version {result['version']}, this FieldShift reads up to {VERSION}: update it.")
    before, now = moved_between(Path(str(result.get("run_folder", folder.absolute()))), folder.absolute())
    return result if before == now else {**relocated(result, before, now), "config": result.get("config")}


def moved_between(before: Path, now: Path) -> tuple[Path, Path]:
    """The highest folders that differ between the former and the present path of a folder, such as those of its study."""
    while before.name == now.name and before != now:
        before, now = before.parent, now.parent
    return before, now


def moved_path(value: Any, before: Path, now: Path) -> Any:
    """The path below `now` of a path below `before`; any other value as it is."""
    is_inside = isinstance(value, str) and Path(value).is_relative_to(before)
    return str(now / Path(value).relative_to(before)) if is_inside else value


def relocated(value: Any, before: Path, now: Path) -> Any:
    """A value of result.json with the paths below `before` as those below `now`, where these exist."""
    if isinstance(value, dict):
        return {name: relocated(each, before, now) for name, each in value.items()}
    if isinstance(value, list):
        return [relocated(each, before, now) for each in value]
    place = moved_path(value, before, now)
    return place if isinstance(place, str) and os.path.exists(place) else value  # noqa: PTH110 - a message may be too long for a path


def plain(value: Any) -> Any:
    """`value` as JSON holds it: dataclasses as objects, paths as strings, tuples as lists, non-finite numbers null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        return plain(value.item())
    return value


def environment() -> dict[str, Any]:
    """Versions and hardware of this run."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": host.python_version(),
        "system": f"{host.system()} {host.machine()}",
        "cpu_cores": os.cpu_count(),
        "gpus": gpus,
        "versions": versions("fieldshift", "torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "numpy"),
        "commit": code_commit(),
    }


@cache
def code_commit() -> str | None:
    """The commit of the checkout that this code is in, with -dirty after it where files were changed since.

    Code that was sent to a cluster is that of the command that sent it, which names its commit in JOB_COMMIT. None where the
    code is installed, or git cannot be run.
    """
    if os.environ.get(JOB_COMMIT):
        return os.environ[JOB_COMMIT]
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    words = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def versions(*packages: str) -> dict[str, str]:
    """The versions of packages; 'not installed' for missing ones."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
