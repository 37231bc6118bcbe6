"""Which packets are given, against brute force: every wanted frame is there, and can be decoded from what is given."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from indexer.ingest.coded import Coded, NotOrdinaryError, Step
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.needed import NeededPackets
from indexer.ingest.timeline import MAX_HOLD_S, SamplingGrid

PERIOD_S = 0.125


def coded(time_s, decode_s, *, is_key=False, is_shown=True, num_bytes=1):
    return Coded(
        time_s=time_s,
        decode_s=decode_s,
        period_s=PERIOD_S,
        is_key=is_key,
        is_shown=is_shown,
        num_bytes=num_bytes,
        packet=None,
    )


@st.composite
def films(draw):
    """Packets in decoding order: key frames, and the others between them in any order, some shown before their key."""
    keys, positions = [], []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 6))
        order = draw(st.permutations(range(1, size)))
        num_leading = draw(st.integers(0, min(2, size - 1))) if positions else 0
        first = len(positions)
        keys.append(first)
        slots = [num_leading, *[i - 1 if i <= num_leading else i for i in order]]
        positions += [first + slot for slot in slots]
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 40]), min_size=len(positions), max_size=len(positions)))
    times_s = [sum(gaps[:i]) * PERIOD_S for i in range(len(positions))]
    delay_s = 7 * 40 * PERIOD_S
    decode_s = [sorted(times_s)[i] - delay_s for i in range(len(positions))]
    return [coded(times_s[p], decode_s[i], is_key=i in keys) for i, p in enumerate(positions)]


def run(packets, grid, leeway=EXACTLY, moment_s=None):
    plan = NeededPackets(grid, leeway, moment_s)
    return [step for packet in packets for step in plan.push(packet)] + plan.finish()


def shown_at(packets, target_s):
    """By the definition, or None."""
    before = [packet for packet in packets if packet.time_s <= target_s]
    last = max(before, key=lambda packet: packet.time_s, default=None)
    end_s = max(packet.time_s for packet in packets) + PERIOD_S
    return last if last and target_s < min(end_s, last.time_s + MAX_HOLD_S) else None


def expected(packets, rate_hz, start_s, end_s, leeway=EXACTLY, moment_s=math.inf):
    """{target: time of its frame}"""
    tolerance_s = leeway.key_frame_s
    keys = [packet.time_s for packet in packets if packet.is_key]

    def near_key(target_s):
        near = [key_s for key_s in keys if target_s - tolerance_s <= key_s < target_s + tolerance_s]
        near = [key_s for key_s in near if key_s // moment_s == target_s // moment_s]
        return min(near, key=lambda key_s: abs(key_s - target_s), default=None)

    found = {}
    for k in range(int(200 * rate_hz)):
        target_s = (k + 0.5) / rate_hz
        shown = shown_at(packets, target_s)
        if shown is None or not start_s <= target_s < end_s:
            continue
        before_s = found[max(found)] if found else None
        found[target_s] = near_key(target_s)
        is_behind = found[target_s] is not None and found[target_s] <= shown.time_s and leeway.earlier_s
        if found[target_s] is None or (is_behind and found[target_s] != before_s):
            next_s = target_s + 1 / rate_hz
            following = [key_s for key_s in keys if key_s > shown.time_s]
            is_last = shown_at(packets, next_s) is None if not following else following[0] in (near_key(next_s),)
            is_last = is_last or (bool(following) and following[0] <= next_s)
            if not is_last:
                found[target_s] = shown.time_s
            elif found[target_s] is None:
                found[target_s] = earlier(packets, target_s, shown, before_s, leeway, moment_s)
    return found


def earlier(packets, target_s, shown, before_s, leeway, moment_s):
    """Of the frames of the last while, none from before the key frame or the moment: that of the target before, or the
    one decoded first."""
    if not leeway.earlier_s:
        return shown.time_s
    key_s = max(packet.time_s for packet in packets if packet.is_key and packet.time_s <= shown.time_s)
    earliest = shown_or_last(packets, target_s - leeway.earlier_s)
    nearby = [
        packet.time_s
        for packet in packets
        if max(key_s, earliest) <= packet.time_s <= shown.time_s and packet.time_s // moment_s == target_s // moment_s
    ]
    return before_s if before_s in nearby else next(iter(nearby), shown.time_s)


def shown_or_last(packets, at_s):
    return max((packet.time_s for packet in packets if packet.time_s <= at_s), default=-math.inf)


def require_decodable(packets, steps: list[Step]):
    """All from a key frame on, in order, without a gap; no frame from before that key frame is wanted."""
    numbers = {packet.time_s: i for i, packet in enumerate(packets)}
    began_s, previous = math.inf, None
    for step in steps:
        number = numbers[step.coded.time_s]
        if step.restart:
            assert step.coded.is_key
            assert previous is None or number > previous
            began_s = step.coded.time_s
        else:
            assert previous is not None
            assert number == previous + 1
        assert not step.targets or step.coded.time_s >= began_s
        assert step.is_leading == (step.coded.time_s < began_s)
        previous = number


@settings(max_examples=150, deadline=None)
@given(
    packets=films(),
    rate_hz=st.sampled_from([0.21, 1.03, 7.1]),
    start_s=st.floats(0, 30),
    length_s=st.one_of(st.just(math.inf), st.floats(0, 30)),
    leeway=st.builds(
        Leeway,
        key_frame_s=st.sampled_from([0.0, 0.3, 5.0]),
        earlier_s=st.sampled_from([0.0, 0.3, 2.0]),
        within_moment=st.booleans(),
    ),
    moment_s=st.sampled_from([None, 3.0]),
)
def test_every_target_gets_its_frame_and_can_be_decoded(packets, rate_hz, start_s, length_s, leeway, moment_s):
    assume(not leeway.earlier_s or leeway.key_frame_s <= 1 / rate_hz)
    end_s = start_s + length_s
    steps = run(packets, SamplingGrid(rate_hz, start_s=start_s, end_s=end_s), leeway, moment_s)

    served = {target_s: step.coded.time_s for step in steps for target_s in step.targets}
    within_s = moment_s if moment_s and leeway.within_moment else math.inf
    wanted = expected(packets, rate_hz, start_s, end_s, leeway, within_s)
    if expected(packets, rate_hz, 0, math.inf):  # else the video is too short and gives its last frame
        assert served == wanted
    require_decodable(packets, steps)


def test_video_too_short_for_a_target_gives_its_last_frame():
    packets = [coded(0, 0, is_key=True), coded(0.1, 0.1), coded(0.2, 0.2)]

    steps = run(packets, SamplingGrid(1.0))

    assert [step.targets for step in steps] == [[], [], [0.2]]


def test_range_without_targets_gives_a_frame_for_nothing():
    packets = [coded(i / 8, i / 8, is_key=i % 8 == 0) for i in range(80)]

    steps = run(packets, SamplingGrid(1.0, start_s=3.6, end_s=4.4))

    assert [(step.coded.time_s, step.targets) for step in steps] == [(0.0, [])]


@pytest.mark.parametrize(
    "packets",
    [
        [coded(0, 0, is_key=True), coded(0.2, 0.2), coded(0.1, 0.1)],
        [coded(0, 0.1, is_key=True)],
        [coded(0, 0, is_key=True), coded(0.1, 0), coded(0.1, 0.05)],
        [coded(1, 0, is_key=True), coded(0.5, 0.1, is_key=True)],
        [coded(0, 0), coded(1, 1), coded(2, 2)],
    ],
    ids=["decoded out of order", "shown before it is decoded", "two at a time", "keys out of order", "no key"],
)
def test_files_that_are_not_as_they_should_be_are_refused(packets):
    with pytest.raises(NotOrdinaryError):
        run(packets, SamplingGrid(1.0))


def test_groups_that_no_frame_is_wanted_of_are_let_go_at_once():
    plan = NeededPackets(SamplingGrid(0.01))

    for i in range(8 * 40):
        plan.push(coded(i / 8, i / 8, is_key=i % 8 == 0))
        assert len(plan._held) <= 9


def test_more_than_may_be_held_back_is_decoded_ahead(monkeypatch):
    monkeypatch.setattr("indexer.ingest.needed.MAX_HELD_BYTES", 10)
    plan = NeededPackets(SamplingGrid(0.05))
    packets = [coded(i / 8, i / 8, is_key=i == 0) for i in range(8 * 25)]

    steps = [step for packet in packets for step in plan.push(packet) if len(plan._held) <= 12] + plan.finish()

    assert {t: step.coded.time_s for step in steps for t in step.targets} == {10.0: 10.0}
    require_decodable(packets, steps)


@pytest.mark.parametrize("leeway", [EXACTLY, Leeway(key_frame_s=0.5), Leeway(key_frame_s=1.0, earlier_s=1.0)])
def test_what_is_kept_does_not_grow_with_the_length_of_a_group(leeway):
    plan = NeededPackets(SamplingGrid(1.0), leeway)

    for i in range(8 * 600):
        plan.push(coded(i / 8, i / 8, is_key=i == 0))
        assert max(len(plan._held), len(plan._choice._times), len(plan._numbers), len(plan._wanted)) < 80
