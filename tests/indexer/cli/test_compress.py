import json

import pytest


def test_quantize_prints_a_table_and_says_that_recall_is_unknown(videobert, tmp_path):
    code, out, err = videobert("quantize", "tiny_test", "--out", tmp_path / "int8.safetensors")

    assert code == 0
    assert out.splitlines()[0].split() == ["before", "after", "change"]
    assert "weights, MB" in out
    assert "recall was not measured" in err
    assert "fusion, text compressed" in err


def test_pruned_model_indexes_and_searches(videobert, videos, tmp_path):
    path, index = tmp_path / "slim.safetensors", tmp_path / "index"
    code, out, _ = videobert(
        "prune", "tiny_test", "--out", path, "--amount", "0.25", "--parts", "text,fusion", "--json"
    )
    assert code == 0
    facts = json.loads(out)
    assert facts["parts"] == ["text", "fusion"]
    assert {"name", "before", "after", "change", "change_is"} == facts["figures"][0].keys()

    assert videobert("index", videos, "--into", index, "--model", path)[0] == 0
    assert videobert("search", index, "white", "--json")[0] == 0
    assert facts["fingerprint"] in (index / "index.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("prune", "tiny_test", "--amount", "1.5"), 1, "the amount must be between 0 and 0.95, got 1.5"),
        (("prune", "tiny_test", "--parts", "frames"), 1, "got 'frames'"),
        (("quantize", "tiny_test", "--parts", "text,sound"), 1, "got 'sound'"),
        (("quantize", "tiny_test", "--parts", ","), 1, "at least one"),
        (("quantize", "tiny_test", "--data", "nowhere.tsv"), 2, "does not exist"),
        (("quantize", "no-such-model"), 2, "got 'no-such-model'"),
    ],
)
def test_bad_input_gives_one_line(videobert, tmp_path, arguments, code, message):
    found, out, err = videobert(*arguments, "--out", tmp_path / "x.safetensors")

    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "x.safetensors").exists()
