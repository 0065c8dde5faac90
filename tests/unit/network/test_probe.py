"""What is made of echoes of other nodes, without a wire."""

import struct

from shoal.network.probe import CLOCK, DAY_MS, SHORT, WHOLE, _Asking, _checksum, _icmp, skew_ms


def test_skew_is_told_from_the_middle_of_the_exchange_and_over_midnight():
    assert skew_ms(1000, 1010, 1020) == 0
    assert skew_ms(1000, 6010, 1020) == 5000
    assert skew_ms(DAY_MS - 10, 0, 10) == 0
    assert skew_ms(5, DAY_MS - 1000, 5) == -1005


def test_a_packet_with_its_checksum_sums_to_nothing():
    for body in (b"", b"x", b"abcd"):
        assert _checksum(_icmp(8, 0x1234, 7, body)) == 0


def packet(kind, asking, sequence, body=b""):
    return b"\x45" + bytes(19) + struct.pack(">BBHHH", kind, 0, 0, asking._identity, sequence) + body


def test_answers_are_taken_from_those_who_were_asked():
    asking = _Asking({2: "100.127.0.2", 3: "100.127.0.3"}, 1450)
    asking.take(packet(0, asking, SHORT), "100.127.0.2")
    asking.take(packet(0, asking, WHOLE), "100.127.0.9")
    asking.take(packet(14, asking, CLOCK, struct.pack(">III", 0, 1 << 31, 0)), "100.127.0.2")
    answers = asking.answers()
    assert (answers[2].answers, answers[2].carries_whole, answers[2].skew_ms) == (True, False, None)
    assert not answers[3].answers
    assert ("100.127.0.2", CLOCK) not in asking.missing
