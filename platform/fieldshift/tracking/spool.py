"""What a store that is down missed: lines in the run's folder, sent later by `replay`."""

from __future__ import annotations

import json
import logging
import os
import shlex
import uuid
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock

from fieldshift.errors import one_line

LOCK = ".tracking-spool.lock"
LOCK_WAIT_S = 60.0

_log = logging.getLogger("fieldshift.tracking")


class Spool:
    """Messages for a store that does not answer, one JSON line each, a file for each process.

    Once a store did not answer, this process no longer asks it: no training waits for the same deadline twice.
    """

    PREFIX: ClassVar[str] = "offline-"
    _down: ClassVar[set[Path]] = set()

    def __init__(self, folder: Path, uri: str = "") -> None:
        self.folder = folder.resolve() / "tracking-spool"
        self.uri = uri
        self.file = self.folder / f"{os.getpid()}-{_PROCESS}.jsonl"

    @property
    def is_down(self) -> bool:
        """Whether this process has given the store up."""
        return self.folder in self._down

    def is_open_for(self, run_id: str) -> bool:
        """Whether messages of a run go here rather than to the store."""
        return self.is_down or run_id.startswith(self.PREFIX)

    def server_is_down(self, error: Exception) -> None:
        """Turns this process to the spool, and says so once."""
        if not self.is_down:
            self._down.add(self.folder)
            _log.warning(
                "The tracking store %s does not answer (%s); the run goes on, and what it logs is kept in %s."
                " Send it later with: fieldshift sync %s",
                self.uri,
                one_line(error, 200),
                self.folder,
                shlex.quote(str(self.folder.parent)),
            )

    def answers_again(self) -> None:
        """Lets this process ask the store again."""
        self._down.discard(self.folder)

    def open_run(self, birth: dict[str, Any]) -> str:
        """Notes that a run began and gives it an id that holds until the replay."""
        run_id = f"{self.PREFIX}{uuid.uuid4().hex}"
        self.write(run_id, "create", birth)
        return run_id

    def write(self, run_id: str, what: str, message: dict[str, Any], array: Any = None) -> None:
        """Keeps one message; a picture lies beside the file as PNG."""
        with FileLock(self.folder.parent / LOCK, timeout=LOCK_WAIT_S):
            self._append(run_id, what, message, array)

    def waiting(self) -> int:
        """How many messages are still to be sent."""
        return sum(len(unsent(file)) for file in self.folder.glob("*.jsonl"))

    def _append(self, run_id: str, what: str, message: dict[str, Any], array: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"uri": self.uri, "run": run_id, "what": what, "message": message}
        if array is not None:
            from PIL import Image

            picture = self.folder / f"{uuid.uuid4().hex}.png"
            Image.fromarray(array.squeeze()).save(picture)
            line["picture"] = picture.name
        with self.file.open("a") as handle:
            handle.write(json.dumps(line) + "\n")


def unsent(file: Path) -> list[str]:
    """The messages of a file that were not sent yet; a replay notes beside it how many were."""
    noted = file.with_suffix(".sent")
    sent = noted.stat().st_size if noted.exists() else 0  # a byte per message
    return file.read_text().splitlines()[sent:]


_PROCESS = uuid.uuid4().hex[:8]
