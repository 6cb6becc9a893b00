"""Checks that all nodes of a cluster share the folder that a run writes to."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Any

from fieldshift.errors import UserError

ANSWER_DEADLINE_S = 120.0


def check_shared(folder: Path) -> None:
    """Makes every node of the cluster read a number from a file in `folder`; skipped on a cluster of one node.

    Raises:
        UserError: A node does not see the file, so the files of its workers would be lost to the run.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if len(nodes) < 2:
        return
    folder.mkdir(parents=True, exist_ok=True)
    nonce, text = folder / f".shared-{uuid.uuid4().hex}", uuid.uuid4().hex
    nonce.write_text(text)
    try:
        blind = [name for name, seen in answers(nodes, nonce).items() if seen != text]
    finally:
        nonce.unlink()
    if blind:
        raise UserError(
            f"--out {folder} is not visible to {len(blind)} of the cluster's {len(nodes)} nodes ({', '.join(sorted(blind))}); "
            "give a folder that all nodes share (NFS or another network file system), or a cluster of one node."
        )


def answers(nodes: list[dict[str, Any]], path: Path) -> dict[str, str | None]:
    """The content that each node reads at `path`, by node address and start of its id; None where it cannot be read.

    A node that gives no answer is left out.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def read(place: str) -> str | None:
        try:
            return Path(place).read_text()
        except OSError:
            return None

    asked = ray.remote(num_cpus=0)(read)
    answer = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": asked.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(path))
        for node in nodes
    }
    found = {}
    for name, each in answer.items():
        with contextlib.suppress(ray.exceptions.RayError):  # a node that left, or is too busy to answer, is not asked
            found[name] = ray.get(each, timeout=ANSWER_DEADLINE_S)
    return found
