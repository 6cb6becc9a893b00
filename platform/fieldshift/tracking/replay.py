"""Sends the messages of the spool once the store answers again."""

from __future__ import annotations

import json
import logging
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fieldshift.errors import UserError, one_line
from fieldshift.tracking.abandoned import PARENT_TAG
from fieldshift.tracking.points import KnownPoints
from fieldshift.tracking.refusals import failure, is_refused
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import LOCK, LOCK_WAIT_S, SENDING, Spool, unsent
from fieldshift.tracking.store import Store, client_for, knock, refuse_lasting
from fieldshift.whole_file import write_whole

_log = logging.getLogger("fieldshift.tracking")


def replay(folder: Path, uri: str | None = None) -> int:
    """Sends the messages that a store missed, in order and with their original times, and returns their number.

    Runs that started while the store was down are found or created by their key. Progress is recorded after each message,
    so an interrupted replay can be repeated and sends each message once. The ids of the runs stay in the folder, as processes
    on any machine may add messages later. Damaged messages are skipped with a warning, and are not counted.

    Args:
        folder: Folder of the run, which contains "tracking-spool".
        uri: The store to send to; None uses the store that the run was configured with.

    Raises:
        UserError: The store still does not answer, or another process is sending the messages.
    """
    spool = Spool(folder)
    if not spool.waiting():
        return 0
    busy = f"Another process is sending the messages of {folder}; wait until it has finished."
    with _held(spool.folder / SENDING, 0, busy):
        sent = _send_all(spool, folder.resolve(), uri)
    spool.answers_again()
    return sent


def _send_all(spool: Spool, folder: Path, uri: str | None) -> int:
    """Sends all messages and returns their number. Runs in progress may add messages meanwhile."""
    busy = (
        f"Another process holds {folder / LOCK} for over {LOCK_WAIT_S:g} s;"
        f" send the messages later with: fieldshift sync {shlex.quote(str(folder))}"
    )
    files = sorted(spool.folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    sending = _Sending(spool, folder, uri)
    for file in files:
        is_whole = False
        while not is_whole:
            for text in unsent(file):
                sending.send(file, text)
            with _held(folder / LOCK, LOCK_WAIT_S, busy):
                is_whole = not unsent(file)
                if is_whole:
                    file.unlink()
                    file.with_suffix(".sent").unlink(missing_ok=True)
    with _held(folder / LOCK, LOCK_WAIT_S, busy):
        if not any(spool.folder.glob("*.jsonl")):
            for picture in spool.folder.glob("*.png"):
                picture.unlink()
    return sending.sent


def _held(lock: Path, wait_s: float, busy: str) -> AbstractContextManager[Any]:
    """Acquires a lock, for use in `with`. Raises UserError with the line `busy` if it is not free in time."""
    try:
        return FileLock(lock).acquire(timeout=wait_s)
    except Timeout:
        raise UserError(busy) from None


class _Sending:
    """A replay in progress: the stores that answered, ids of runs, the points that runs have, and the messages sent."""

    def __init__(self, spool: Spool, folder: Path, uri: str | None) -> None:
        self.spool, self.folder, self.uri = spool, folder, uri
        self.ids = _Ids(spool.folder / "sent-runs.json")
        self.points: dict[str, KnownPoints] = {}
        self.reached: set[str] = set()
        self.sent = 0

    def send(self, file: Path, text: str) -> None:
        """Sends one message of a file, and records that it was sent. Raises UserError where the store does not answer."""
        line = _read(text)
        if line is None:
            _log.warning("A damaged message in %s was not sent to MLflow: %.100r", file, text)
        else:
            self._deliver(line)
            self.sent += 1
        with file.with_suffix(".sent").open("a") as handle:
            handle.write(".")

    def _deliver(self, line: dict[str, Any]) -> None:
        store = Store(uri=self.uri or line["uri"], folder=self.folder)
        try:
            if store.uri not in self.reached:
                knock(store.uri)
                self.reached.add(store.uri)
            self._perform(store, line)
        except _LostError as error:
            _log.warning("%s and was not sent to MLflow.", error)
        except Exception as error:
            if store.uri not in self.reached or not is_refused(error):
                refuse_lasting(error, store.uri)
                raise UserError(
                    f"{store.uri.partition('?')[0]} still {failure(error)}, and {self.spool.waiting()} messages are waiting;"
                    f" send them later with: fieldshift sync {shlex.quote(str(self.folder))}"
                ) from error
            _log.warning("MLflow refused %s of run %s: %s", line["what"], line["run"], one_line(error, 300))

    def _perform(self, store: Store, line: dict[str, Any]) -> None:
        message = line["message"]
        if line["what"] == "create":
            tags = dict(message["tags"])
            if PARENT_TAG in tags:
                tags[PARENT_TAG] = self.ids[tags[PARENT_TAG]]
            self.ids[line["run"]] = store.find_or_create(**{**message, "tags": tags})[0]
            return
        client, run_id = client_for(store.uri), self.ids[line["run"]]
        if line["what"] == "metrics":
            known = self.points.setdefault(run_id, KnownPoints(client, run_id, is_new=False))
            message = {**message, "metrics": known.missing(message["metrics"], message["step"])}
            known.add(message["metrics"], message["step"])
        if line["what"] == "artifact":
            message = {**message, "path": str(_present(self.folder / message["path"]))}
        picture = None
        if "picture" in line:
            picture = _picture(self.spool.folder / line["picture"])
        perform(client, run_id, line["what"], message, picture)


def _read(text: str) -> dict[str, Any] | None:
    """A line of a spool as the message in it; None for a damaged one, for example with NUL bytes after a power loss."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    # Whole lines are ASCII: `unsent` replaces damaged bytes by a character that is not.
    is_whole = text.isascii() and isinstance(line, dict) and {"uri", "run", "what", "message"} <= line.keys()
    return line if is_whole else None


class _LostError(Exception):
    """A file that was to be sent is no longer there, or is damaged."""


def _present(path: Path) -> Path:
    if not path.exists():
        raise _LostError(f"{path} is no longer there")
    return path


def _picture(path: Path) -> Any:
    """The pixels of a saved picture."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(_present(path)) as opened:
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise _LostError(f"{path} is damaged ({one_line(error, 100)})") from error


class _Ids:
    """Ids of the store's runs by the ids that the spool gave them; saved on disk during a replay."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}

    def __getitem__(self, run_id: str) -> str:
        return self._known.get(run_id, run_id)

    def __setitem__(self, run_id: str, real: str) -> None:
        self._known[run_id] = real
        write_whole(self.file, json.dumps(self._known))
