"""MLflow's pages on a run's store."""

from __future__ import annotations


def ui(*, run: str = "runs/study", host: str = "127.0.0.1", port: int = 5000) -> int:
    """Opens MLflow's pages on the store of a run folder, or of a tracking server, until Ctrl-C.

    Args:
        run: run folder (with its SQLite store) or a store's URI.
        host: address that the pages are served on; keep it local.
        port: its port.
    """
    from fieldshift.tracking.server import serve

    serve(run, host=host, port=port)
    return 0
