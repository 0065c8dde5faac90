"""A node's keys in encrypted networks: made once, renewed by order, used when the swarm has told them."""

import base64
import stat

import pytest

from shoal.network.secret_keys import SecretKeys


@pytest.fixture
def keys(tmp_path):
    made = SecretKeys(tmp_path / "data" / "wireguard.key")
    made.load()
    return made


def loaded(tmp_path):
    again = SecretKeys(tmp_path / "data" / "wireguard.key")
    again.load()
    return again


def test_a_key_is_made_once_for_root_only(keys, tmp_path):
    path = tmp_path / "data" / "wireguard.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    private = keys.private("")
    assert len(base64.b64decode(private)) == len(base64.b64decode(keys.public)) == 32
    assert private != keys.public
    again = loaded(tmp_path)
    assert (again.public, again.private("")) == (keys.public, private)


@pytest.mark.parametrize("text", ["", "broken", "0 broken", "x y z", "0 AAAA"])
def test_what_is_no_key_is_replaced(keys, tmp_path, text):
    before = keys.public
    (tmp_path / "data" / "wireguard.key").write_text(text)
    assert loaded(tmp_path).public not in ("", before)


def test_the_old_key_is_used_until_the_swarm_tells_the_new_one(keys, tmp_path):
    old, old_private = keys.public, keys.private("")
    assert keys.renew(3)
    assert not keys.renew(3), "once for an order"
    assert not keys.renew(2), "an earlier order"
    assert keys.public != old
    assert keys.private(old) == old_private
    again = loaded(tmp_path)
    assert (again.public, again.private(old)) == (keys.public, old_private), "after a restart, too"
    new_private = again.private(again.public)
    assert new_private != old_private
    assert again.private(old) == new_private, "the old one is gone"
    assert len((tmp_path / "data" / "wireguard.key").read_text().splitlines()) == 1


def test_orders_that_follow_each_other_leave_two_keys(keys, tmp_path):
    keys.renew(1)
    keys.renew(2)
    assert len((tmp_path / "data" / "wireguard.key").read_text().splitlines()) == 2
    assert not loaded(tmp_path).renew(2)


def test_a_forgotten_key_is_another_one_later(keys, tmp_path):
    before = keys.public
    keys.forget()
    assert keys.public == ""
    assert not (tmp_path / "data" / "wireguard.key").exists()
    keys.load()
    assert keys.public != before
