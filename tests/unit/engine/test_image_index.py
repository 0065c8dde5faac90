"""The index of images that several daemons share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from shoal.engine.images.index import Index

DAEMONS = 8


def test_daemons_may_open_and_close_one_index_at_the_same_time(tmp_path):
    for number in range(10):
        path = tmp_path / f"{number}.sqlite"
        together = threading.Barrier(DAEMONS)

        def open_and_close(path=path, together=together):
            together.wait()
            index = Index(path)
            records = index.records()
            index.close()
            return records

        with ThreadPoolExecutor(DAEMONS) as pool:
            opened = [pool.submit(open_and_close) for _ in range(DAEMONS)]
        assert [each.result() for each in opened] == [{}] * DAEMONS
