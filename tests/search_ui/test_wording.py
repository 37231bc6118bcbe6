import pytest

from indexer.query.calibration import percent
from search_ui import wording


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [(0, 0.4, "0:00–0:01"), (7.9, 10, "0:07–0:10"), (59, 61, "0:59–1:01"), (3599.5, 3661, "59:59–1:01:01")],
)
def test_span_encloses_the_moment(start_s, end_s, expected):
    assert wording.span(start_s, end_s) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b.mp4", "b.mp4"),
        ("s3://bucket/x/c d.mkv", "c d.mkv"),
        ("/a/\x1b[31m\u202e\n.mp4", "�[31m� .mp4"),
        ("/", "(no name)"),
    ],
)
def test_file_name_is_the_last_part_on_one_printable_line(uri, expected):
    assert wording.file_name(uri) == expected


def test_plain_text_can_be_sent_as_utf8():
    assert wording.plain("a\udcffb").encode() == "a�b".encode()


def test_escaped_leaves_no_punctuation_to_markdown():
    assert wording.escaped("*a*_[b](c):d[e]<f>$g$") == r"\*a\*\_\[b\]\(c\)\:d\[e\]\<f\>\$g\$"


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (1.0, "green-badge[Strong match"),
        (0.95, "green-badge[Strong match"),
        (0.94, "blue-badge[Likely match"),
        (0.79, "orange-badge[Possible"),
        (0.6, "orange-badge[Possible"),
        (0.1, "gray-badge[Weak"),
    ],
)
def test_confidence_badge_speaks_of_a_match_only_for_one(confidence, words):
    assert words in wording.confidence_badge(confidence)


def test_badge_and_chip_have_the_numbers_of_the_command_line():
    assert percent(0.975) == "97%"
    assert wording.confidence_badge(0.975) == r":green-badge[Strong match 97\%]"
    assert wording.label_chips([("cat", 0.545)]) == r":gray-badge[cat 54\%]"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(12, "12 s"), (300, "5 min"), (5400, "1.5 hours"), (4e7, "11,111.1 hours")]
)
def test_length_has_a_unit_that_fits(seconds, expected):
    assert wording.length(seconds) == expected


def test_amount_counts_one_as_one():
    assert (wording.amount(1, "video"), wording.amount(1234, "video")) == ("1 video", "1,234 videos")


def test_only_what_matched_is_bold():
    assert wording.highlighted("a **dog** *runs* <b>") == r"a **dog** \*runs\* \<b\>"
