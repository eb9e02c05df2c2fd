"""A folder that a node does not see is refused, with the node's name; one that all see is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import session
from tests.stages.test_cli import ROOT

SCRIPT = """
import os, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from cluster import session
from cluster.errors import UserError
from cluster.shared_folder import check_shared

session.prepare_environment()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False)
print(session.cores_in_reach())
check_shared(Path(sys.argv[1]))
os.chdir(sys.argv[1])
try:
    check_shared(Path("/proc/self/cwd/mine"))  # each process's own: only this one is there
except UserError as error:
    print(error)
print(sorted(os.listdir(sys.argv[1])), os.listdir("mine"))
"""


@pytest.mark.dist
def test_all_nodes_are_asked(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if name != session.MARKER}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        timeout=240, env={**own, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    cores, said, left = ended.stdout.strip().splitlines()[-3:]
    assert cores == "3", "those of both nodes"
    assert said.startswith("/proc/self/cwd/mine, where work in progress lies, is not seen by ")
    assert "(2 of 2 nodes)" in said and "XDG_CACHE_HOME" in said
    assert left == "['mine'] []", "no marker is left"
