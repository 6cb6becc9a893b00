"""MLflow's pages on a run's store."""

from __future__ import annotations

from pathlib import Path

from fieldshift.console import say
from fieldshift.errors import UserError


def sync(*, run: list[str] | None = None, uri: str | None = None) -> int:
    """Sends the tracking messages that a run could not record while its store was down; none is sent twice.

    Args:
        run: run folders, such as: sync runs/study.
        uri: the store to send to; by default the run's own.
    """
    from fieldshift.run_folder import CONFIG
    from fieldshift.tracking import replay
    from fieldshift.tracking.config import check_address
    from fieldshift.tracking.spool import Spool
    from fieldshift.wording import counted

    if uri is not None:
        check_address(uri, "uri", "leave it out to send to the run's own store")
    if not run:
        raise UserError("There is no run to send messages of; give its folder, such as: fieldshift sync runs/study.")
    for folder in run:
        if not (Path(folder) / CONFIG).is_file() and not Spool(Path(folder)).waiting():
            raise UserError(f"There is no run in '{folder}'; give the folder of a run, which contains {CONFIG}.")
    for folder in run:
        say(f"{counted(replay(Path(folder), uri), 'message')} of {folder} sent.")
    return 0


sync.positional = "run"  # type: ignore[attr-defined]


def ui(*, run: str = "runs/study", host: str = "127.0.0.1", port: int = 5000, browser: bool = True) -> int:
    """Opens MLflow's pages on the store of a run folder until Ctrl-C, or those of a tracking server, and prints their links.

    Args:
        run: run folder (with its SQLite store), or the address of a store or of a server.
        host: address that the pages are served on; keep it local.
        port: port that the pages are served on.
        browser: open the first page in a browser, at a terminal with a display.
    """
    from fieldshift.tracking.server import serve

    serve(run, host=host, port=port, browser=browser)
    return 0
