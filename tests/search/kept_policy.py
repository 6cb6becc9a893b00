"""The policy that a process of a search has found, in a file of its own."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from fieldshift.search import FoundPolicy


def keep_policy(result: FoundPolicy, folder: Path) -> None:
    """Writes this process's policy."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    (folder / f"policy-{rank}.json").write_text(result.policy.to_json())
