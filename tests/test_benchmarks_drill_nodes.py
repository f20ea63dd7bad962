"""The drill's clusters: nodes that die as machines do, and a head that comes back as it was."""

import os
import subprocess

import pytest
from served import wait_until

from benchmarks.drill.nodes import LocalCluster, local_cluster
from benchmarks.servers import beside

COUNTED = "import ray; ray.init(); print(sum(n['Alive'] for n in ray.nodes()), 'nodes up')"


def submit(cluster: LocalCluster) -> str:
    """What a job says that counts the nodes."""
    command = [str(beside("ray")), "job", "submit", "--", "python", "-c", COUNTED]
    ended = subprocess.run(
        command, env=os.environ | cluster.environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_nodes_die_and_a_head_comes_back_with_what_it_knew() -> None:
    with local_cluster() as cluster:
        victim, other = cluster.add_nodes(2)
        assert "3 nodes up" in submit(cluster)
        assert len(victim.processes()) >= 4
        victim.kill()
        assert victim.processes() == []
        wait_until(lambda: cluster.list_nodes()[victim.name]["state"] == "DEAD", 60)
        head, pid = cluster.head, other.process and other.process.pid
        head.kill()
        assert cluster.list_nodes() == {}
        cluster.start_head()
        wait_until(lambda: cluster.list_nodes().get(other.name, {}).get("state") == "ALIVE", 60)
        assert other.process and other.process.pid == pid, "the node has lived on"
        assert cluster.list_nodes()[victim.name]["state"] == "DEAD", "it remembers the dead one"
        assert "2 nodes up" in submit(cluster)
    assert head.processes() == other.processes() == []
