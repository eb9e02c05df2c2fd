"""Whether every node of a cluster sees the folder where work in progress lies.

Driver and workers meet there: tokens that are trained on, units of a corpus, the notes that say how
a group ended. A folder of one machine would be found out late, and by another error.
"""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path

from cluster.errors import UserError

ANSWER_S = 120.0
"""How long a node may take to start the process that looks."""


@cache
def check_shared(folder: Path) -> None:
    """Refuse, with a UserError, a folder that a node of the joined cluster does not see.

    Nodes that come later are not asked, nor one that dies meanwhile.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    look = ray.remote(num_cpus=0)(_sees)
    blind = []
    try:
        asked = {
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(marker)): node["NodeManagerHostname"]
            for node in nodes
        }
        answered, _ = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_S)
        for answer in answered:
            try:
                blind += [] if ray.get(answer) else [asked[answer]]
            except RayError:
                continue
    finally:
        marker.unlink()
    if blind:
        raise UserError(
            f"{folder}, where work in progress lies, is not seen by {', '.join(sorted(blind))} "
            f"({len(blind)} of {len(nodes)} nodes): use a store in a folder that all nodes share, "
            "or, beside a store on a bucket, set XDG_CACHE_HOME to such a folder on all of them"
        )


def _sees(path: str) -> bool:
    return Path(path).exists()
