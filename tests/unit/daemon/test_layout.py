"""What a daemon remembers of its swarm on disk."""

import shutil

import pytest

from shoal.daemon.layout import Layout, SwarmMembership

MEMBERSHIP = SwarmMembership(
    node_id="n", cluster_id="c", raft_id=1, advertise_address="127.0.0.1:2377", listen_address="127.0.0.1:2377"
)


def test_a_swarm_that_is_being_erased_is_not_taken_up_again(tmp_path, monkeypatch):
    layout = Layout(tmp_path / "data", tmp_path / "exec")
    layout.write_membership(MEMBERSHIP)
    layout.raft.mkdir()
    assert layout.read_membership() == MEMBERSHIP

    def killed(*_, **__):
        shutil.rmtree(layout.raft)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shoal.daemon.layout.erase", killed)
        with pytest.raises(KeyboardInterrupt):
            layout.erase_swarm()
    assert layout.read_membership() is None
    layout.erase_swarm()
    assert not layout.swarm.exists()
    layout.erase_swarm()
