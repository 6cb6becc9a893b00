"""Storage that all nodes of a cluster reach, apart from the run folder: a path, or a URI that pyarrow.fs accepts."""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fieldshift.errors import RunFailedError, UserError, reason_of
from fieldshift.paths import given_path
from fieldshift.whole_file import whole_file

NONCE = "nonce"
BLOCK = 4 * 2**20
WRITING = ".writing"
"""The suffix of files that are not written whole yet."""
ATTEMPTS = 10
"""Attempts of a request to S3 while a run uses it; pyarrow waits 25 ms, then twice as long each time, 25 s in all."""


class StorageLostError(RunFailedError):
    """A storage that was found in order at the start of a run failed while the run used it; it may be in order again."""


@dataclass(frozen=True)
class Storage:
    """The place of one run in the storage: the files below `root` of this machine lie at the same names below `uri`.

    Attributes:
        uri: Absolute path or URI of the run's place.
        root: Absolute folder of the run where the command was started; the workers' machines need not have it.
    """

    uri: str
    root: str

    @contextlib.contextmanager
    def working_copy(self, folder: Path, *, first: bool) -> Iterator[WorkingCopy]:
        """A copy of the run's `folder` on a worker's machine, removed when the block ends.

        Of the first worker it starts with the files in the storage, and ends with these replaced by its own, unless the block
        raises an error. Those of the others start empty, and nothing of them is kept.
        """
        name = hashlib.sha256(f"{self.uri} {folder} {first} {'' if first else os.getpid()}".encode()).hexdigest()[:16]
        local = Path(tempfile.gettempdir()) / f"fieldshift-{os.getuid()}-{name}"
        shutil.rmtree(local, ignore_errors=True)  # of a worker that was killed
        local.mkdir(mode=0o700, parents=True)
        copy = WorkingCopy(self, folder, local, first)
        try:
            copy.load()
            yield copy
            copy.store()
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def bring(self, folder: Path) -> None:
        """Copies the files of the run's `folder` from the storage to this machine."""
        with using(self.uri):
            download(*self._place(folder), folder)

    def remove(self, path: Path) -> None:
        """Removes a file of the run from the storage, if it is there."""
        with using(self.uri):
            files, place = self._place(path)
            if place in found_below(files, str(PurePosixPath(place).parent)):
                files.delete_file(place)

    def _place(self, path: Path) -> tuple[Any, str]:
        return patient_filesystem(joined(self.uri, *path.relative_to(self.root).parts))


@dataclass
class WorkingCopy:
    """A worker's copy of a folder of the run, at `local`."""

    storage: Storage
    folder: Path
    local: Path
    first: bool

    def __post_init__(self) -> None:
        self._stored: dict[str, tuple[int, int]] = {}

    def load(self) -> None:
        """Copies the files of the storage into the copy; only of the first worker."""
        if self.first:
            with using(self.storage.uri):
                download(*self.storage._place(self.folder), self.local)
            self._stored = self._present()

    def store(self) -> None:
        """Copies new and changed files to the storage, then removes those that are gone; only of the first worker."""
        if not self.first:
            return
        present = self._present()
        with using(self.storage.uri):
            files, place = self.storage._place(self.folder)
            for name in sorted(present):
                if self._stored.get(name) != present[name]:
                    upload(self.local / name, files, f"{place}/{name}")
            for name in self._stored.keys() - present.keys():
                files.delete_file(f"{place}/{name}")
        self._stored = present

    def _present(self) -> dict[str, tuple[int, int]]:
        """Size and time of every whole file, by its name below the folder."""
        paths = [path for path in self.local.rglob("*") if path.is_file() and not path.name.endswith(WRITING)]
        return {
            path.relative_to(self.local).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths
        }


def place_of_ray(folder: Path, storage: Storage | None) -> dict[str, Any]:
    """The place of the files of Ray Train and Ray Tune, as their `RunConfig` takes it: in the storage, or in the run folder."""
    if storage is None:
        return {"storage_path": str((folder / "ray").resolve())}
    with using(storage.uri):
        files, path = patient_filesystem(joined(storage.uri, "ray"))
    return {"storage_path": path, "storage_filesystem": files}


def bring_all(storage: Storage | None, folders: Iterable[str]) -> None:
    """Copies folders of a run from its storage, where it has one, to this machine."""
    if storage is not None:
        for folder in folders:
            storage.bring(Path(folder))


def given_storage(text: str) -> str:
    """The storage as an absolute path or a URI. Raises UserError for a URI that pyarrow.fs does not accept."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) is None:
        return str(given_path(text).absolute())
    with reaching(text):
        if re.match(r"[^/]+://[^?#]*[^?#/]", text) is None:
            raise ValueError("a URI has to name a bucket or an absolute path after ://")
        filesystem(text)
    return text


def filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a path or URI and the path in it. Raises UserError for one that pyarrow.fs does not accept."""
    with reaching(uri):
        return _opened(uri)


def _opened(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    files, path = fs.FileSystem.from_uri(uri)
    return files, path.rstrip("/")


def patient_filesystem(uri: str) -> tuple[Any, str]:
    """As `filesystem`, for a run in progress: its errors are those of pyarrow, and S3 is asked again for half a minute.

    So are its copies in other processes, such as those of Ray's own files. GCS is asked again by itself.
    """
    from pyarrow import fs

    files, path = _opened(uri)
    return (_patient_s3(_settings(files)) if isinstance(files, fs.S3FileSystem) else files), path


def _patient_s3(settings: dict[str, Any]) -> Any:
    """S3 with these settings, in this process and, since pyarrow's own copies leave the attempts out, wherever it is sent."""
    from pyarrow import fs

    copyreg.pickle(fs.S3FileSystem, lambda files: (_patient_s3, (_settings(files),)))
    return fs.S3FileSystem(**settings, retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS))


def _settings(files: Any) -> dict[str, Any]:
    _, (settings,) = files.__reduce__()
    return dict(settings)


def joined(uri: str, *names: str) -> str:
    """The URI (or path) of a place below another; parameters behind "?" are kept."""
    if "://" not in uri:
        return str(Path(uri, *names))
    address, mark, parameters = uri.partition("?")
    return "/".join([address.removesuffix("/"), *names]) + mark + parameters


def try_storage(uri: str) -> None:
    """Writes, reads and removes a file. Raises UserError where that fails."""
    with reaching(uri), nonce(uri) as (place, text):
        read = read_text(joined(place, NONCE))
    if read != text:
        raise UserError(f"cluster.storage {uri} does not return what was written there; give another.")


@contextlib.contextmanager
def nonce(uri: str) -> Iterator[tuple[str, str]]:
    """A folder below `uri` with a file NONCE, removed after the block: its place, and the text of the file."""
    text = os.urandom(16).hex()
    folder = joined(uri, f".shared-{text[:12]}")
    files, path = filesystem(folder)
    write_text(joined(folder, NONCE), text)
    try:
        yield folder, text
    finally:
        files.delete_dir(path)


def write_text(place: str, text: str) -> None:
    files, path = filesystem(place)
    files.create_dir(str(PurePosixPath(path).parent), recursive=True)
    with files.open_output_stream(path) as stream:
        stream.write(text.encode())


def read_text(place: str) -> str:
    files, path = filesystem(place)
    with files.open_input_stream(path) as stream:
        return bytes(stream.read()).decode()


def upload(source: Path, files: Any, path: str) -> None:
    """Copies a file to the storage, where it appears whole or not at all."""
    files.create_dir(str(PurePosixPath(path).parent), recursive=True)
    arriving = f"{path}{WRITING}"
    with source.open("rb") as read, files.open_output_stream(arriving) as written:
        shutil.copyfileobj(read, written, BLOCK)
    files.move(arriving, path)


def download(files: Any, place: str, folder: Path) -> None:
    """Copies every file below a place of the storage into the folder, each whole or not at all."""
    for path in found_below(files, place):
        if path.endswith(WRITING):
            continue
        with (
            whole_file(folder / PurePosixPath(path).relative_to(place)) as temporary,
            files.open_input_stream(path) as read,
            temporary.open("wb") as written,
        ):
            shutil.copyfileobj(read, written, BLOCK)


def found_below(files: Any, place: str) -> list[str]:
    """The paths of all files below a place of the storage; none where it does not exist."""
    from pyarrow import fs

    found = files.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
    return sorted(info.path for info in found if info.type == fs.FileType.File)


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Raises UserError in one line in place of the errors of the storage."""
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise UserError(
            f"cluster.storage {shown(uri)} cannot be used ({reason_of(error)}); give a path or URI that all nodes can write "
            "to, such as /shared/runs, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER."
        ) from error


@contextlib.contextmanager
def using(uri: str) -> Iterator[None]:
    """Raises StorageLostError in one line in place of the errors of a storage that a run uses."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StorageLostError(
            f"cluster.storage {shown(uri)} failed ({reason_of(error)}); once it works again, the same command with "
            "--resume continues."
        ) from error


def shown(uri: str) -> str:
    """A URI without its parameters."""
    return uri.partition("?")[0]
