"""Sending what the spool kept, once the store answers again."""

from __future__ import annotations

import json
import logging
import os
import shlex
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from fieldshift.errors import UserError, one_line
from fieldshift.tracking.points import KnownPoints
from fieldshift.tracking.refusals import is_refused
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import LOCK, LOCK_WAIT_S, Spool, unsent
from fieldshift.tracking.store import PARENT_TAG, Store, client_for, refuse_lasting

_log = logging.getLogger("fieldshift.tracking")


def replay(folder: Path, uri: str | None = None) -> int:
    """Sends the messages that a store missed, in their order and with their times, and returns how many there were.

    Runs that began while the store was down are found or created by their key. What is sent is noted message by message,
    so a replay that breaks off can be started again and sends each once.

    Args:
        folder: Folder of the run, which holds "tracking-spool".
        uri: The store to send to; None takes the one that the run was meant for.

    Raises:
        UserError: There is nothing to send, or the store still does not answer.
    """
    spool = Spool(folder)
    if not spool.waiting():
        raise UserError(f"There is nothing to send in {spool.folder}; give the folder of a run whose store was down.")
    with FileLock(folder.resolve() / LOCK, timeout=LOCK_WAIT_S):
        sent = _send_all(spool, folder.resolve(), uri)
    spool.answers_again()
    return sent


def _send_all(spool: Spool, folder: Path, uri: str | None) -> int:
    """How many messages were sent."""
    files = sorted(spool.folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    ids = _Ids(spool.folder / "sent-runs.json")
    points: dict[str, KnownPoints] = {}
    sent = 0
    for file in files:
        noted = file.with_suffix(".sent")
        for text in unsent(file):
            line = json.loads(text)
            store = Store(uri=uri or line["uri"], folder=folder)
            try:
                _send(store, spool, ids, points, line)
            except Exception as error:
                if not is_refused(error):
                    refuse_lasting(error, store.uri)
                    raise UserError(
                        f"{store.uri} still does not answer ({one_line(error, 200)}), and {spool.waiting()} messages are"
                        f" waiting; send them later with: fieldshift sync {shlex.quote(str(folder))}"
                    ) from error
                _log.warning("MLflow refused %s of run %s: %s", line["what"], line["run"], error)
            with noted.open("a") as handle:
                handle.write(".")
            sent += 1
        file.unlink()
        noted.unlink(missing_ok=True)
    if not any(_is_alive(file) for file in files):  # who writes on needs to know what its runs became
        for left in spool.folder.iterdir():
            left.unlink()
        spool.folder.rmdir()
    return sent


def _is_alive(file: Path) -> bool:
    """Whether another process wrote a file of the spool and is still running."""
    pid = int(file.name.partition("-")[0])
    return pid != os.getpid() and psutil.pid_exists(pid)


class _Ids:
    """Which run of the store each run of the spool became; kept on disk while a replay is under way."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}

    def __getitem__(self, run_id: str) -> str:
        return self._known.get(run_id, run_id)

    def __setitem__(self, run_id: str, real: str) -> None:
        self._known[run_id] = real
        self.file.write_text(json.dumps(self._known))


def _send(store: Store, spool: Spool, ids: _Ids, points: dict[str, KnownPoints], line: dict[str, Any]) -> None:
    message = line["message"]
    if line["what"] == "create":
        tags = dict(message["tags"])
        if PARENT_TAG in tags:
            tags[PARENT_TAG] = ids[tags[PARENT_TAG]]
        ids[line["run"]] = store.find_or_create(**{**message, "tags": tags})[0]
        return
    client, run_id = client_for(store.uri), ids[line["run"]]
    if line["what"] == "metrics":
        known = points.setdefault(run_id, KnownPoints(client, run_id, is_new=False))
        message = {**message, "metrics": known.missing(message["metrics"], message["step"])}
        known.add(message["metrics"], message["step"])
    picture = None
    if "picture" in line:
        import numpy as np
        from PIL import Image

        with Image.open(spool.folder / line["picture"]) as opened:
            picture = np.asarray(opened)
    perform(client, run_id, line["what"], message, picture)
