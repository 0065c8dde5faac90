"""A node's certificate on disk: renewed in time, whole after a crash, encrypted by the unlock key."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from shoal.ca.root import CertificateRequest, Subject, create_root, make_request, sign_request, validity_of
from shoal.daemon.credentials import PENDING_SUFFIX, Credentials
from shoal.errors import Unavailable, WrongUnlockKey
from shoal.lib.clock import ManualClock
from shoal.model.node_port import Identity
from shoal.model.states import Role
from shoal.rpc.tls import CertificateFiles

HOUR_NS = 3_600_000_000_000
ROOT = create_root(time.time_ns())
SUBJECT = Subject(node_id="n", role=Role.WORKER, cluster_id="c")


def make_credentials(folder: Path, clock: ManualClock, life_ns: int = HOUR_NS) -> Credentials:
    files = CertificateFiles(roots=folder / "roots", certificate=folder / "certificate", key=folder / "key")
    credentials = Credentials(files, clock)
    made = make_request()
    credentials.store(made.key, sign_request(ROOT, made.request, SUBJECT, clock.now_ns(), life_ns), ROOT.certificate)
    return credentials


def test_who_a_node_is(tmp_path):
    credentials = make_credentials(tmp_path, ManualClock(time.time_ns()))
    assert credentials.identity() == Identity(node_id="n", role=Role.WORKER, cluster_id="c")
    assert credentials.client_context().get_ca_certs()


@pytest.mark.parametrize("aged_for_hours", [0.0, 10.0])
def test_a_certificate_is_renewed_when_it_is_due_or_asked_for(tmp_path, aged_for_hours):
    """Renewal is due at a random moment of the second half of its life; a refusal is tried again."""
    clock = ManualClock(time.time_ns())
    credentials = make_credentials(tmp_path, clock, life_ns=10 * HOUR_NS)
    clock.advance(aged_for_hours * 3600)
    before = credentials.files.certificate.read_text()
    asked = 0
    renewed = asyncio.Event()

    async def renew(request: CertificateRequest) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable("no manager answers")
        signed = sign_request(ROOT, request.request, SUBJECT, clock.now_ns(), 10 * HOUR_NS)
        credentials.store(request.key, signed, ROOT.certificate)
        renewed.set()

    async def scenario() -> None:
        keeping = asyncio.create_task(credentials.keep_fresh(renew))
        await asyncio.sleep(0)
        if not aged_for_hours:
            assert asked == 0, "it is young: nothing is due"
            credentials.renew_soon()
        async with asyncio.timeout(10):
            await renewed.wait()
        keeping.cancel()
        await asyncio.wait({keeping})

    asyncio.run(scenario())
    after = credentials.files.certificate.read_text()
    assert after != before
    assert validity_of(after).not_after_ns > clock.now_ns()


def test_a_crash_in_the_middle_leaves_a_pair_that_fits(tmp_path):
    clock = ManualClock(time.time_ns())
    credentials = make_credentials(tmp_path, clock)
    made = make_request()
    certificate = sign_request(ROOT, made.request, SUBJECT, clock.now_ns(), HOUR_NS)
    # as `store` leaves it when it is killed after its first write
    files = credentials.files
    files.key.with_name(files.key.name + PENDING_SUFFIX).write_text(made.key + certificate)
    fresh = Credentials(files, clock)
    fresh.repair()
    assert (files.key.read_text(), files.certificate.read_text()) == (made.key, certificate)
    fresh.client_context()
    assert not list(tmp_path.glob(f"*{PENDING_SUFFIX}"))


def test_the_unlock_key(tmp_path):
    clock = ManualClock(time.time_ns())
    credentials = make_credentials(tmp_path, clock)
    credentials.protect("one")
    assert credentials.is_locked()
    credentials.client_context()
    credentials.protect("two")
    again = Credentials(credentials.files, clock)
    with pytest.raises(WrongUnlockKey):
        again.unlock("one")
    again.unlock("two")
    # what is renewed meanwhile is encrypted too
    made = make_request()
    again.store(made.key, sign_request(ROOT, made.request, SUBJECT, clock.now_ns(), HOUR_NS), ROOT.certificate)
    assert again.is_locked()
    again.client_context()
    again.protect(None)
    assert not again.is_locked()
