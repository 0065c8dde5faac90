import io

import pytest

from shoal.client.streams import parse_details, read_frames, read_objects
from shoal.errors import ShoalError


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Trickle(io.BytesIO):
    """Gives one byte at a time, as a network may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


def test_frames_are_put_together_however_they_arrive():
    content = frame(1, b"out\n") + frame(2, b"") + frame(2, b"err\n")
    assert list(read_frames(Trickle(content))) == [(1, b"out\n"), (2, b""), (2, b"err\n")]


@pytest.mark.parametrize("cut", [3, 10])
def test_cut_stream_is_an_error(cut):
    with pytest.raises(ShoalError, match="cut short"):
        list(read_frames(io.BytesIO(frame(1, b"output")[:cut])))


def test_what_is_no_frame_is_an_error():
    with pytest.raises(ShoalError, match="damaged"):
        list(read_frames(io.BytesIO(b"plain text of a terminal")))


def test_error_of_the_daemon_ends_the_stream():
    read = read_frames(io.BytesIO(frame(1, b"a") + frame(3, b"Error grabbing logs: node gone\n") + frame(1, b"b")))
    assert next(read) == (1, b"a")
    with pytest.raises(ShoalError, match=r"^Error grabbing logs: node gone$"):
        next(read)


def test_objects_of_progress_and_their_error():
    read = read_objects(
        io.BytesIO(b'{"status":"Pulling"}\r\n\r\n{"errorDetail":{"message":"no"},"error":"no such image"}\r\n')
    )
    assert next(read) == {"status": "Pulling"}
    with pytest.raises(ShoalError, match="no such image"):
        next(read)


def test_details_are_unescaped():
    assert parse_details("com.docker.swarm.task.id=abc,a%2Cb=x+y%3D1") == {
        "com.docker.swarm.task.id": "abc",
        "a,b": "x y=1",
    }
    assert parse_details("") == {}
