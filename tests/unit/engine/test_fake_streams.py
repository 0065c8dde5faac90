from __future__ import annotations

import asyncio

import pytest

from shoal.engine.fake import FakeEngine
from shoal.engine.protocol import Engine
from shoal.errors import Conflict
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from shoal.model.container import ContainerConfig
from shoal.model.streams import AttachOptions, ExecConfig, Output


def test_commands_of_the_fake_engine_say_back_what_they_are_told() -> None:
    async def test() -> None:
        engine = FakeEngine(ManualClock(), Ids())
        as_engine: Engine = engine
        container = await as_engine.create(ContainerConfig(name="c", image="busybox"))
        with pytest.raises(Conflict, match="is not running"):
            as_engine.exec_create("c", ExecConfig(arguments=("cat",)))
        await as_engine.start("c")
        record = as_engine.exec_create("c", ExecConfig(arguments=("cat",), tty=True))
        stream = await as_engine.exec_start(record.id)
        assert stream is not None
        await as_engine.exec_resize(record.id, 3, 4)
        assert engine.streams.streams[-1].size == (3, 4)
        await stream.write(b"hi")
        await stream.close_input()
        assert await stream.read() == Output(stream="stdout", data=b"hi")
        assert await stream.read() is None
        assert as_engine.exec_inspect(record.id).exit_code == 0
        engine.write("c", b"line\n")
        attached = await as_engine.attach("c", AttachOptions(logs=True, stream=False))
        assert await attached.read() == Output(stream="stdout", data=b"line\n")
        assert await attached.read() is None
        assert (await as_engine.stats(container.id)).at_ns
        assert len((await as_engine.top("c")).processes) == 1

    asyncio.run(test())
