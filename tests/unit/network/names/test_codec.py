import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.network.names import codec
from shoal.network.names.codec import Question, Refusal
from tests import dns

LABELS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


def answer(query, records=(), code=codec.NO_ERROR, most_bytes=512):
    question = codec.parse(query)
    assert isinstance(question, Question)
    return dns.read(codec.respond(query, question, code, records, most_bytes))


@given(NAMES, st.sampled_from(["A", "AAAA", "TXT", "ANY"]), st.sampled_from([0, 100, 512, 1232, 65535]))
def test_queries_are_cut_as_they_were_built(name, kind, udp_bytes):
    query = dns.query(name, kind, udp_bytes=udp_bytes)
    question = codec.parse(query)
    assert question.name == name.lower().encode()
    assert (question.kind, question.class_) == (dns.TYPES[kind], 1)
    assert question.udp_bytes == min(max(udp_bytes, 512), 4096)
    assert question.has_options == bool(udp_bytes)
    response = answer(query)
    assert (response.question, response.number, response.options) == (name, 0x1234, bool(udp_bytes))


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_whatever_comes_in_is_dropped_or_answered(data):
    for query in (data, dns.query("web")[:12] + data, dns.query("web", udp_bytes=1232)[: len(data)] + data):
        found = codec.parse(query)
        if isinstance(found, Refusal):
            assert dns.read(codec.refuse(query, found.code)).code == found.code
        elif found is not None:
            assert codec.respond(query, found, 0, (), 512)[:2] == query[:2]


def test_what_is_no_query():
    good = dns.query("web")
    assert codec.parse(b"") is None
    assert codec.parse(good[:11]) is None
    assert codec.parse(good[:2] + b"\x81" + good[3:]) is None, "an answer is not answered"
    assert codec.parse(good[:2] + b"\x29" + good[3:]) == Refusal(codec.NOT_IMPLEMENTED), "an update"
    for broken in (
        good[:-1],
        good[:12],
        good[:4] + b"\0\2" + good[6:],
        good[:12] + b"\xc0\x0c\0\1\0\1",
        good[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        dns.query("web", udp_bytes=1232)[:-3],
    ):
        assert codec.parse(broken) == Refusal(codec.FORMAT_ERROR)
    assert codec.parse(dns.query("")).name == b""


def test_answers_that_do_not_fit_are_marked_and_whole():
    records = [codec.record(codec.A, 2, bytes([10, 0, 1, last])) for last in range(100)]
    response = answer(dns.query("web"), records)
    assert response.truncated
    assert response.records == [f"10.0.1.{last}" for last in range(30)]
    with_options = answer(dns.query("web", udp_bytes=1232), records, most_bytes=1232)
    assert with_options.truncated
    assert with_options.options
    assert 60 < len(with_options.records) < 100
    assert len(answer(dns.query("web"), records, most_bytes=65535).records) == 100


def test_names_in_answers():
    assert codec.encode_name(b"web.1.abc") == b"\3web\0011\3abc\0"
    assert codec.encode_name(b"a..b") is None
    assert codec.encode_name(b"a" * 64) is None
    assert codec.encode_name(b".".join([b"a" * 60] * 5)) is None


def test_stray_and_forged_answers_of_name_servers():
    query = dns.query("Outside.example")
    question = codec.parse(query)
    good = codec.respond(query, question, 0, (), 512)
    assert codec.answers_query(good, query, question)
    assert codec.answers_query(good.replace(b"Outside", b"oUTSIDE"), query, question)
    assert not codec.answers_query(good.replace(b"Outside", b"Inside_"), query, question)
    assert not codec.answers_query(b"\0\0" + good[2:], query, question)
    assert not codec.answers_query(query, query, question)
    assert not codec.answers_query(good[:11], query, question)
    assert codec.answers_query(codec.refuse(query, codec.REFUSED), query, question), "without its question"
    assert not codec.answers_query(codec.refuse(query, codec.NO_ERROR), query, question)
    assert codec.code_of(struct.pack(">HHHHHH", 1, 0x8183, 1, 0, 0, 0)) == codec.NO_SUCH_NAME
