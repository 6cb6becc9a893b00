"""Sends the messages of the spool once the store answers again."""

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
from fieldshift.tracking.abandoned import PARENT_TAG
from fieldshift.tracking.points import KnownPoints
from fieldshift.tracking.refusals import is_refused
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import LOCK, LOCK_WAIT_S, Spool, unsent
from fieldshift.tracking.store import Store, client_for, refuse_lasting

_log = logging.getLogger("fieldshift.tracking")


def replay(folder: Path, uri: str | None = None) -> int:
    """Sends the messages that a store missed, in order and with their original times, and returns their number.

    Runs that started while the store was down are found or created by their key. Progress is recorded after each message,
    so an interrupted replay can be repeated and sends each message once.

    Args:
        folder: Folder of the run, which contains "tracking-spool".
        uri: The store to send to; None uses the store that the run was configured with.

    Raises:
        UserError: There are no messages to send, or the store still does not answer.
    """
    spool = Spool(folder)
    if not spool.waiting():
        raise UserError(f"There is nothing to send in {spool.folder}; give the folder of a run whose store was down.")
    with FileLock(folder.resolve() / LOCK, timeout=LOCK_WAIT_S):
        sent = _send_all(spool, folder.resolve(), uri)
    spool.answers_again()
    return sent


def _send_all(spool: Spool, folder: Path, uri: str | None) -> int:
    """Sends all messages and returns their number."""
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
    if not any(_is_alive(file) for file in files):  # a process that still writes needs the ids of its runs
        for left in spool.folder.iterdir():
            left.unlink()
        spool.folder.rmdir()
    return sent


def _is_alive(file: Path) -> bool:
    """Whether another process wrote a file of the spool and is still running."""
    pid = int(file.name.partition("-")[0])
    return pid != os.getpid() and psutil.pid_exists(pid)


class _Ids:
    """Ids of the store's runs by the ids that the spool gave them; saved on disk during a replay."""

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
