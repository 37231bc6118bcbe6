import pytest

from indexer.cli import bar
from indexer.cli.bar import Bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as `clock.append` sets them."""
    seconds = [100.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: seconds[-1])
    return seconds


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_line_is_written_at_once_then_every_ten_seconds_and_at_the_end(clock, capsys):
    with Bar("videos") as shown:
        for done in range(25):
            shown.show("encoding", done, 25, f"ETA {25 - done}" if done else "")
            clock.append(clock[-1] + 1)
        shown.show("done", 25, 25, is_last=True)
    assert lines(capsys) == [
        "encoding: 0 of 25 videos",
        "encoding: 10 of 25 videos; ETA 15",
        "encoding: 20 of 25 videos; ETA 5",
        "done: 25 of 25 videos",
    ]


def test_patient_bar_says_nothing_of_what_is_done_in_ten_seconds(clock, capsys):
    shown = Bar(is_patient=True)
    shown.show("training", 1, 3)
    clock.append(109.0)
    shown.show("training", 2, 3)
    assert lines(capsys) == []
    clock.append(110.0)
    shown.show("training", 3, 3, "loss 0.5")
    assert lines(capsys) == ["training: 3 of 3; loss 0.5"]


def test_bar_is_drawn_on_a_terminal_and_taken_away(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("videos") as shown:
        shown.show("encoding", 3, 7, "ETA 0:04.0")
    drawn = capsys.readouterr().err
    assert "3/7" in drawn
    assert "videos ETA 0:04.0" in drawn.replace("\x1b[0m", "")
    assert drawn.endswith("\x1b[2K")
