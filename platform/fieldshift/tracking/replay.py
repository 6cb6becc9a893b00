"""Sending what the spool kept, once the store answers again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from fieldshift.errors import UserError
from fieldshift.tracking.run import is_refused
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import PARENT_TAG, Store, client_for

_log = logging.getLogger("fieldshift.tracking")


def replay(folder: Path, uri: str | None = None) -> int:
    """Sends the messages that a store missed, in their order and with their times, and returns how many there were.

    Runs that began while the store was down are found or created by their key. Messages leave the spool as they are
    sent, so a replay that breaks off can be started again.

    Args:
        folder: Folder of the run, which holds "tracking-spool".
        uri: The store to send to; None takes the one that the run was meant for.

    Raises:
        UserError: There is nothing to send, or the store still does not answer.
    """
    spool = Spool(folder)
    files = sorted(spool.folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f"There is nothing to send in {spool.folder}; give the folder of a run whose store was down.")
    ids = _Ids(spool.folder / "sent-runs.json")
    sent = 0
    for file in files:
        lines = file.read_text().splitlines()
        while lines:
            line = json.loads(lines[0])
            store = Store(uri=uri or line["uri"], folder=folder.resolve())
            try:
                _send(store, spool, ids, line)
            except Exception as error:
                if not is_refused(error):
                    file.write_text("".join(f"{rest}\n" for rest in lines))
                    reason = " ".join(str(error).split())[:200]
                    raise UserError(f"{store.uri} still does not answer ({reason}); replay again later.") from error
                _log.warning("MLflow refused %s of run %s: %s", line["what"], line["run"], error)
            lines.pop(0)
            sent += 1
        file.unlink()
    ids.file.unlink(missing_ok=True)
    for left in spool.folder.iterdir():
        left.unlink()
    spool.folder.rmdir()
    spool.answers_again()
    return sent


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


def _send(store: Store, spool: Spool, ids: _Ids, line: dict[str, Any]) -> None:
    message = line["message"]
    if line["what"] == "create":
        tags = dict(message["tags"])
        if PARENT_TAG in tags:
            tags[PARENT_TAG] = ids[tags[PARENT_TAG]]
        ids[line["run"]] = store.find_or_create(**{**message, "tags": tags})
        return
    picture = None
    if "picture" in line:
        import numpy as np
        from PIL import Image

        with Image.open(spool.folder / line["picture"]) as opened:
            picture = np.asarray(opened)
    client = client_for(store.uri)
    perform(client, ids[line["run"]], line["what"], message, picture)
