"""Which program can be bound into any container as its first process."""

import shutil
import sys

from shoal.engine.host import stands_alone


def test_a_program_that_needs_a_loader_does_not_stand_alone(tmp_path):
    assert not stands_alone(sys.executable)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not stands_alone(str(script))


def test_a_static_program_stands_alone():
    busybox = shutil.which("busybox")
    assert busybox is not None
    assert stands_alone(busybox)
