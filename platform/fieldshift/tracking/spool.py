"""The spool: messages for a store that is down, saved in the run's folder and sent later by `replay`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import uuid
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from fieldshift.tracking.refusals import failure
from fieldshift.whole_file import FULL

LOCK, SENDING = ".tracking-spool.lock", "sending.lock"
LOCK_WAIT_S, LOCKED_WAIT_S = 60.0, 1.0
"""Seconds that a message waits for the spool's lock, and those of the messages after one that waited in vain."""

_log = logging.getLogger("fieldshift.tracking")


class Spool:
    """Messages for a store that does not answer, one JSON line per message and one file per process.

    After a store failed to answer, this process does not contact it again, so a training waits for the timeout only once.
    """

    PREFIX: ClassVar[str] = "offline-"
    _down: ClassVar[set[Path]] = set()
    _full: ClassVar[set[Path]] = set()
    _locked: ClassVar[set[Path]] = set()

    def __init__(self, folder: Path, uri: str = "") -> None:
        self.folder = folder.resolve() / "tracking-spool"
        self.uri = uri
        self.file = self.folder / f"{os.getpid()}-{_PROCESS}.jsonl"

    @property
    def is_down(self) -> bool:
        """Whether this process has stopped contacting the store."""
        return self.folder in self._down

    def is_open_for(self, run_id: str) -> bool:
        """Whether the messages of a run go to the spool instead of the store."""
        return self.is_down or run_id.startswith(self.PREFIX)

    def server_is_down(self, error: Exception) -> None:
        """Switches this process to the spool, with one warning."""
        if not self.is_down:
            self._down.add(self.folder)
            _log.warning(
                "The tracking store %s %s; the run continues, and its messages are saved in %s."
                " Send them later with: fieldshift sync %s",
                self.uri.partition("?")[0],
                failure(error),
                self.folder,
                shlex.quote(str(self.folder.parent)),
            )

    def answers_again(self) -> None:
        """Lets this process contact the store again."""
        self._down.discard(self.folder)

    def open_run(self, birth: dict[str, Any]) -> str:
        """Records the start of a run and returns an id that is valid until the replay."""
        run_id = f"{self.PREFIX}{uuid.uuid4().hex}"
        self.write(run_id, "create", birth)
        return run_id

    def write(self, run_id: str, what: str, message: dict[str, Any], array: Any = None) -> None:
        """Saves one message; a picture is saved as a PNG file.

        On a full disk, and while another process holds the spool, messages are lost, with one warning.
        """
        wait_s = LOCKED_WAIT_S if self.folder in self._locked else LOCK_WAIT_S
        try:
            with FileLock(self.folder.parent / LOCK, timeout=wait_s):
                self._append(run_id, what, message, array)
        except Timeout:
            if self.folder not in self._locked:
                self._locked.add(self.folder)
                _log.warning(
                    "Another process holds %s for over %g s: messages for MLflow are lost until it is free.",
                    self.folder.parent / LOCK, wait_s,
                )  # fmt: skip
        except OSError as error:
            if error.errno not in FULL:
                raise
            if self.folder not in self._full:
                self._full.add(self.folder)
                _log.warning("The disk of %s is full: messages for MLflow are lost until there is space.", self.folder)

    def waiting(self) -> int:
        """The number of messages that are still to be sent."""
        return sum(len(unsent(file)) for file in self.folder.glob("*.jsonl"))

    def _append(self, run_id: str, what: str, message: dict[str, Any], array: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if "path" in message and Path(message["path"]).is_relative_to(self.folder.parent):  # the folder may be moved
            message = {**message, "path": str(Path(message["path"]).relative_to(self.folder.parent))}
        line = {"uri": self.uri, "run": run_id, "what": what, "message": message}
        if array is not None:
            from PIL import Image

            picture = self.folder / f"{uuid.uuid4().hex}.png"
            Image.fromarray(array.squeeze()).save(picture)
            line["picture"] = picture.name
        written = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError:  # half a line would stop a replay
            with contextlib.suppress(OSError):
                os.truncate(self.file, written)
            raise


def unsent(file: Path) -> list[str]:
    """The messages of a file that were not sent yet; a replay records their number in a second file.

    A last line without its end is none: its process was killed while it wrote, or is writing. Damaged bytes are replaced.
    """
    noted = file.with_suffix(".sent")
    sent = noted.stat().st_size if noted.exists() else 0  # a byte per message
    return file.read_text(encoding="utf-8", errors="replace").split("\n")[sent:-1]


_PROCESS = uuid.uuid4().hex[:8]
