"""`videobert train`, `pretrain` and `classify --head` as users run them, without Ray."""

import json

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight images."""
    for name, colour in COLOURS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            noise = np.random.default_rng(number).normal(0, 30, (30 + number, 40, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def train(videobert, tmp_path, monkeypatch):
    """Runs `videobert train ...` with the tiny model; in place of Ray, the worker's function."""
    from indexer.training.job import work

    monkeypatch.setattr("indexer.ray_training.train_on_ray", lambda folder, **options: work(folder))

    def run(*args, verb="train"):
        own = ["--cache", tmp_path / "cache", "--model", "tiny_test"] if verb == "train" else []
        return videobert(verb, *args, *own)

    return run


def test_train_writes_a_head_that_classify_uses(train, videobert, folder, indexed, tmp_path):
    head = tmp_path / "head.safetensors"
    code, out, err = train(folder, "--out", head, "--epochs", "10", "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["task"], result["items"], result["held_out"], result["left_out"]) == ("classes", 14, 2, 0)
    assert result["metrics"]["top_1"] == 100.0
    code, out, err = videobert("classify", indexed, "--head", head, "--json")
    assert code == 0, err
    moments = [json.loads(line) for line in out.splitlines()]
    assert len(moments) == 4
    for moment in moments:
        assert {label["label"] for label in moment["labels"]} == {"red", "blue"}
        assert sum(label["score"] for label in moment["labels"]) + moment["none_of_these"] == pytest.approx(1, abs=1e-5)


def test_classify_tells_a_video_by_a_head(train, videobert, folder, tmp_path):
    import av

    head = tmp_path / "head.safetensors"
    assert train(folder, "--out", head, "--epochs", "10")[0] == 0
    with av.open(str(tmp_path / "blue.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "1"})
        stream.width = stream.height = 64
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), COLOURS["blue"], np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    code, out, err = videobert("classify", tmp_path / "blue.mp4", "--head", head, "--model", "tiny_test", "--json")
    assert code == 0, err
    assert json.loads(out)["answer"] == "blue"


def test_classify_refuses_a_head_of_another_model(train, videobert, folder, indexed, tmp_path):
    from model.classifier import load_classifier, save_classifier

    head = tmp_path / "head.safetensors"
    train(folder, "--out", head, "--epochs", "1")
    classifier = load_classifier(head)
    classifier.frames_fingerprint = "0" * 32
    save_classifier(classifier, head)
    code, out, err = videobert("classify", indexed, "--head", head)
    assert (code, out) == (1, "")
    assert "was trained on the frame features of another model" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--labels", "a", "--head", "b"]])
def test_classify_wants_either_labels_or_a_head(videobert, indexed, options):
    code, _, err = videobert("classify", indexed, *options)
    assert code == 2
    assert "give either --labels" in err


def test_train_says_what_was_left_out_and_in_plain_text_what_came_out(train, folder, tmp_path):
    for number in range(7):
        (folder / "red" / f"broken{number}.jpg").write_text("no image")
    code, out, err = train(folder, "--out", tmp_path / "head.safetensors", "--epochs", "2")
    assert code == 0, err
    assert err.count("left out: red/broken") == 5
    assert "7 rows left out in all: see" in err
    assert "training on 14 items, 2 kept back" in err
    assert out.startswith(f"{tmp_path / 'head.safetensors'} written after")
    assert "on the 2 items kept back: mean_average_precision" in out


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["missing.csv", "--out", "x.safetensors"], 2, "does not exist"),
        ([".", "--out", "x.pt"], 2, "must end in .safetensors"),
        ([".", "--out", "x.safetensors", "--task", "poems"], 2, "must be captions or classes, got 'poems'"),
        ([".", "--out", "x.safetensors", "--lr", "-1"], 1, "learning_rate must be a number above 0, got -1.0"),
    ],
)
def test_train_says_in_one_line_what_is_wrong(videobert, folder, tmp_path, monkeypatch, args, code, text):
    monkeypatch.chdir(folder)
    found, _, err = videobert("train", *args, "--model", "tiny_test", "--cache", tmp_path / "cache")
    assert (found, len(err.strip().splitlines())) == (code, 1), err
    assert text in err


def test_pretrain_writes_a_checkpoint_that_index_takes(train, videobert, indexed, small_videos, tmp_path):
    out = tmp_path / "pre.safetensors"
    code, text, err = train(indexed, "--out", out, "--epochs", "2", "--held-out", "0", "--json", verb="pretrain")
    assert code == 0, err
    assert json.loads(text)["items"] == 4
    code, _, err = videobert("index", small_videos, "--into", tmp_path / "again", "--model", out)
    assert code == 0, err


def test_pretrain_refuses_an_index_of_another_model_and_an_empty_one(videobert, indexed, tmp_path):
    out = tmp_path / "pre.safetensors"
    code, _, err = videobert("pretrain", indexed, "--out", out, "--model", "mini-zero")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "was made with the model 'tiny_test'" in err
    empty = tmp_path / "empty"
    (tmp_path / "bad.mp4").write_bytes(b"x")
    videobert("index", tmp_path / "bad.mp4", "--into", empty, "--model", "tiny_test")
    code, _, err = videobert("pretrain", empty, "--out", out)
    assert code == 2
    assert "holds no moments to train on" in err
