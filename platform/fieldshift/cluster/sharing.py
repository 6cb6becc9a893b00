"""Checks that all nodes of a cluster share the folder that a run writes to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fieldshift.cluster.storage import NONCE, Storage, joined, nonce, reaching, read_text, shown, write_text
from fieldshift.errors import UserError

ANSWER_DEADLINE_S = 120.0


def check_shared(folder: Path, storage: Storage | None = None) -> None:
    """Makes every node read a file in the storage and write one there; without a storage, read one in `folder`.

    The latter is skipped on a cluster of one node.

    Raises:
        UserError: A node cannot, so the files of its workers would be lost to the run.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if storage is None and len(nodes) < 2:
        return
    named = contextlib.nullcontext() if storage is None else reaching(storage.uri)
    with named, nonce(str(folder) if storage is None else storage.uri) as (place, text):
        found = answers(nodes, place, writes=storage is not None)
        blind = sorted(name for name, seen in found.items() if seen != text)
    if blind and storage is None:
        raise UserError(
            f"--out {folder} is not visible to {len(blind)} of the cluster's {len(nodes)} nodes ({', '.join(blind)}); "
            "give a folder that all nodes share (NFS or another network file system), a --cluster.storage, or a cluster of one "
            "node."
        )
    if blind and storage is not None:
        raise UserError(
            f"cluster.storage {shown(storage.uri)} cannot be read and written by {len(blind)} of the cluster's {len(nodes)} "
            f"nodes ({', '.join(blind)}); give one that all nodes reach, with its credentials on each."
        )


def answers(nodes: list[dict[str, Any]], place: str, *, writes: bool) -> dict[str, str | None]:
    """The text of the nonce that each node reads, by node address and start of its id; None where it cannot.

    With `writes` a node also has to write a file beside the nonce. A node that gives no answer is left out.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def ask(own: str) -> str | None:
        try:
            text = read_text(joined(place, NONCE))
            if writes:
                write_text(joined(place, own), text)
        except Exception:
            return None
        return text

    remote = ray.remote(num_cpus=0)(ask)
    answer = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(node["NodeID"])
        for node in nodes
    }
    found = {}
    for name, each in answer.items():
        with contextlib.suppress(ray.exceptions.RayError):  # a node that left, or is too busy to answer, is not asked
            found[name] = ray.get(each, timeout=ANSWER_DEADLINE_S)
    return found
