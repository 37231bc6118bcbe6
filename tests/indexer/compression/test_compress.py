import numpy as np
import pytest
import torch
from PIL import Image

from indexer.compression import compress
from indexer.compression.comparison import RATIO, Figure, Looked, Pair, _neighbours_kept
from indexer.compression.samples import Sample, read_data, read_samples
from indexer.errors import UsageError
from indexer.training.metrics import retrieval_metrics
from model import load_model

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


@pytest.fixture
def table(tmp_path):
    """Twenty pictures with captions, one of which cannot be read."""
    rows = ["path\tcaption"]
    for number in range(20):
        colour = list(COLOURS)[number % 4]
        Image.new("RGB", (40, 40), COLOURS[colour]).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png\t{colour} {number}")
    (tmp_path / "7.png").write_bytes(b"no image")
    (tmp_path / "captions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(tmp_path / "captions.tsv")


def names(figures):
    return [figure.name for figure in figures]


def test_quantize_writes_a_model_and_compares_it(tmp_path, table):
    out = str(tmp_path / "int8.safetensors")

    done = compress.quantize("tiny_test", out, data=table)

    assert load_model(out).fingerprint == done.fingerprint != load_model("tiny_test").fingerprint
    assert done.parts == ("fusion", "text")  # its frame encoder is none that can be quantised
    assert [problem.name for problem in done.problems] == ["row 8 ('7.png')"]
    assert names(done.figures) == [
        "weights, MB",
        "frames a second",
        "frames, cosine with the original",
        "recall@1, %",
        "recall@5, %",
        "recall@10, %",
        "a query, ms",
        "texts, cosine with the original",
        "texts, of 10 neighbours kept, %",
    ]
    assert done.figures[2].after == pytest.approx(1)  # frames were left alone
    assert 0.99 < done.figures[7].after < 1


def test_prune_without_data_measures_no_recall(tmp_path):
    done = compress.prune("tiny_test", str(tmp_path / "slim.safetensors"), amount=0.5)

    assert not any(name.startswith(("recall", "frames, cosine")) for name in names(done.figures))
    assert done.recall_lost == 0
    assert load_model(done.out).config.text.transformer.ffn_width == 32


def test_recall_lost_is_in_points():
    figures = [Figure(name="recall@10, %", before=60.0, after=57.5)]
    done = compress.Compressed(out="x.safetensors", parts=("text",), fingerprint="", figures=figures)

    assert done.recall_lost == pytest.approx(2.5)


def test_change_of_a_speed_is_a_ratio():
    assert Figure(name="a query, ms", before=10.0, after=4.0, kind=RATIO).change == pytest.approx(0.4)
    assert Figure(name="cosine", before=None, after=0.9).change is None


def test_model_agrees_with_itself(table):
    tiny = load_model("tiny_test")
    pair = Pair(("tiny_test", "tiny_test"), (tiny, tiny))
    data = read_data(table)
    problems = []
    figures = pair.pictures(read_samples(data.measured, 32, True, problems.append)) + pair.texts()
    after = {figure.name: figure.after for figure in figures}

    assert after["texts, of 10 neighbours kept, %"] == after["recall@10, %"] == 100
    assert after["texts, cosine with the original"] == pytest.approx(1)
    assert all(figure.change == 0 for figure in figures if figure.name.startswith("recall"))


def test_recall_is_that_of_vectors_computed_one_by_one():
    tiny = load_model("tiny_test")
    generator = np.random.default_rng(0)
    samples = [
        Sample(generator.integers(0, 256, (1 + n % 3, 32, 32, 3), np.uint8), np.arange(1.0 + n % 3), (f"text {n}",))
        for n in range(40)
    ]
    figures = Pair(("tiny_test", "tiny_test"), (tiny, tiny)).pictures(samples)

    videos = torch.cat(
        [
            tiny.encode_video(
                tiny.encode_frames(one.frames).half()[None],
                torch.ones(1, len(one.frames), dtype=torch.bool),
                one.times_s[None],
            )
            for one in samples
        ]
    )
    expected = retrieval_metrics((tiny.encode_text([s.captions[0] for s in samples]) @ videos.T).numpy(), np.arange(40))
    assert figures[-1].after == pytest.approx(expected["recall@10"])


def test_videos_of_different_lengths_do_not_disturb_each_other():
    looked = Looked(load_model("tiny_test"))
    samples = [Sample(np.full((n, 32, 32, 3), 60 * n, np.uint8), np.arange(float(n)), ()) for n in (1, 3)]
    looked.look_at(samples)
    alone = Looked(looked.model)
    alone.look_at(samples[:1])

    torch.testing.assert_close(looked.videos()[:1], alone.videos(), rtol=0, atol=1e-5)


def test_neighbours_kept_counts_those_in_both():
    before = torch.arange(20.0)[None]
    after = before.clone()
    after[0, 19], after[0, 18] = -1, -2  # two of the ten best are among the worst now

    assert _neighbours_kept(before, after) == pytest.approx(0.8)


def test_calibration_shares_nothing_with_what_is_measured(table):
    data = read_data(table)

    calibration, measured = ({record.path for record in some} for some in (data.calibration, data.measured))
    assert len(calibration) == 5
    assert len(measured) == 15
    assert not calibration & measured


def test_too_little_data_is_refused(tmp_path):
    (tmp_path / "few.csv").write_text("path,caption\na.png,a\nb.png,b\n", encoding="utf-8")

    with pytest.raises(UsageError, match=r"at least 16 images or videos, .* has 2"):
        read_data(str(tmp_path / "few.csv"))


@pytest.mark.parametrize(
    ("out", "message"), [("x.pt", "must end in"), ("nowhere/x.safetensors", "the folder of the checkpoint must exist")]
)
def test_checkpoint_that_cannot_be_written_is_refused_before_work_starts(out, message):
    with pytest.raises(UsageError, match=message):
        compress.prune("tiny_test", out)


def test_model_is_not_overwritten_by_its_own_compressed_form(tmp_path):
    path = str(tmp_path / "slim.safetensors")
    compress.prune("tiny_test", path)

    with pytest.raises(UsageError, match="another file"):
        compress.prune(path, path)


def test_frames_need_pictures(tmp_path):
    with pytest.raises(UsageError, match="give --data"):
        compress.quantize("mini", str(tmp_path / "x.safetensors"), parts=("frames",))
