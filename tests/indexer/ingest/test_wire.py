from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest import wire


def reader(data):
    stream = io.BytesIO(data)

    def read_exactly(length):
        read = stream.read(length)
        if len(read) < length:
            raise EOFError
        return bytearray(read)

    return read_exactly


HEADS = st.dictionaries(st.text(max_size=5).filter(lambda key: key != "bodies"), st.floats(allow_nan=False), max_size=4)


@given(head=HEADS, bodies=st.lists(st.binary(max_size=100), max_size=3))
def test_message_comes_back_as_it_was(head, bodies):
    assert wire.unpack(reader(b"".join(wire.pack(head, *bodies)))) == (head, [bytearray(body) for body in bodies])


def test_path_that_is_not_utf8_comes_back_as_it_was():
    assert wire.unpack(reader(b"".join(wire.pack({"path": "/caf\udce9"}))))[0] == {"path": "/caf\udce9"}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_of_two_errors(data):
    with contextlib.suppress(wire.WireError, EOFError):
        wire.unpack(reader(data))


@pytest.mark.parametrize("lengths", ["[-1]", "[99999999999]", '["x"]', "5", "null"])
def test_absurd_lengths_are_refused(lengths):
    head = f'{{"bodies": {lengths}}}'.encode()

    with pytest.raises(wire.WireError):
        wire.unpack(reader(len(head).to_bytes(4, "big") + head))
