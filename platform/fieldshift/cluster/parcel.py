"""A run folder as text, by which it leaves a cluster through the output of a job, and nothing but the dashboard has to be open.

    python -m fieldshift.cluster.parcel FOLDER

prints a line with the archive's size and SHA-256, the archive (tar, gzip) in base64, and a last line. Ray's own files and
checkpoints stay: they are for going on, not for reading.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

from fieldshift.errors import RunFailedError, UserError
from fieldshift.folder_lock import LOCK

BEGIN, END, REFUSED = "fieldshift-parcel-begin", "fieldshift-parcel-end", "fieldshift-parcel-refused"
LARGEST = 512 * 2**20
LEFT = frozenset({"ray", "checkpoint.pt", "search.pt", "tracking-spool", LOCK})
WIDTH = 1024


def pack(folder: Path) -> str:
    """The folder's files as a parcel. Raises UserError where there is no such folder, or it is too large for one."""
    if not folder.is_dir():
        raise UserError(f"The cluster has no run folder {folder}; it was moved or deleted, or lies on another node.")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not LEFT & set(path.relative_to(folder).parts)
    ]
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise UserError(
            f"{folder} holds {size / 2**20:.0f} MiB, but a job's output carries at most {LARGEST / 2**20:.0f} MiB; copy the"
            " folder from the cluster's storage."
        )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=6) as tar:
        for path in files:
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    packed = archive.getvalue()
    text = base64.b64encode(packed).decode()
    lines = [text[start : start + WIDTH] for start in range(0, len(text), WIDTH)]
    return "\n".join([f"{BEGIN} {len(packed)} {hashlib.sha256(packed).hexdigest()}", *lines, END])


def unpack(output: str, folder: Path) -> None:
    """Writes the files of the parcel in a job's output into `folder`, which does not exist yet, wholly or not at all.

    Raises:
        UserError: The sender refused, with its reason, or the folder cannot be written.
        RunFailedError: The parcel is incomplete or damaged.
    """
    lines = output.splitlines()
    for line in lines:
        if line.startswith(REFUSED):
            raise UserError(line.removeprefix(REFUSED).strip())
    first = next((number for number, line in enumerate(lines) if line.startswith(BEGIN)), None)
    if first is None or END not in lines[first:]:
        raise RunFailedError("The run folder did not arrive whole; fetch it again.")
    _, size, digest = lines[first].split()
    try:
        packed = base64.b64decode("".join(lines[first + 1 : lines.index(END, first)]), validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != int(size) or hashlib.sha256(packed).hexdigest() != digest:
        raise RunFailedError("The run folder arrived damaged; fetch it again.")
    arriving = folder.with_name(f".{folder.name}.arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    try:
        arriving.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            tar.extractall(arriving, filter="data")
        arriving.replace(folder)
    except BaseException as error:
        shutil.rmtree(arriving, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); free space, or name another folder."
            ) from error
        raise


def main() -> None:
    try:
        print(pack(Path(sys.argv[1])), flush=True)
    except UserError as error:
        print(f"{REFUSED} {error}", flush=True)


if __name__ == "__main__":
    main()
