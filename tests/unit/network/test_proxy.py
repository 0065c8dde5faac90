import os
from pathlib import Path

from shoal.network import proxy
from shoal.network.proxy import ProxySide


def test_one_that_was_only_just_started_ends_with_the_rest(tmp_path, monkeypatch):
    """It would make its lock in a directory that is being taken away."""
    monkeypatch.setattr(proxy, "host_has_ipv6", lambda: True)
    started = []
    spawn = os.posix_spawn
    monkeypatch.setattr(
        os, "posix_spawn", lambda *words, **keywords: started.append(spawn(*words, **keywords)) or started[-1]
    )
    (tmp_path / proxy.DIRECTORY).mkdir()
    side = ProxySide(tmp_path)
    side.lead_to((("tcp", 0, "127.0.0.1", 1),))
    side.stop()
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert len(started) == 1
