"""The policy that a process of a search has found, in a file of its own."""

from __future__ import annotations

from pathlib import Path

from fieldshift.search import FoundPolicy
from fieldshift.training.distributed import rank


def keep_policy(result: FoundPolicy, folder: Path) -> None:
    """Writes this process's policy."""
    (folder / f"policy-{rank()}.json").write_text(result.policy.to_json())
