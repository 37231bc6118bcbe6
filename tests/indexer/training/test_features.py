import io

import numpy as np
import pytest
from PIL import Image

from indexer.training.dataset import FeatureSet, write_from_cache
from indexer.training.feature_cache import FeatureCache, Features
from indexer.training.features import decode_image, look_at_all, spread
from indexer.training.records import Record
from model import load_model


@pytest.fixture
def model():
    return load_model("tiny_test")


@pytest.fixture
def cache(tmp_path, model):
    return FeatureCache(tmp_path / "cache", model.feature_shape)


def of_file(path, texts=("x",)):
    return Record(name=path.name, path=str(path), texts=texts)


def test_images_have_the_features_that_the_model_gives_them(tmp_path, model, cache, write_image):
    paths = [write_image(tmp_path / f"{i}.png", "red", i) for i in range(3)]
    looked = look_at_all([of_file(path) for path in paths], model, cache, 4)
    write_from_cache(tmp_path, cache, looked.keys, model.feature_shape)
    pixels = np.stack([decode_image(path.read_bytes(), model.frame_size_px) for path in paths])
    batch = FeatureSet(tmp_path).batch([2, 0])
    np.testing.assert_allclose(batch.features[:, 0], model.encode_frames(pixels)[[2, 0]], atol=1e-2)
    assert batch.mask.tolist() == [[True], [True]]


def test_videos_have_frames_at_one_a_second_spread_over_all_of_it(synthetic, tmp_path, model, cache):
    path = synthetic.write("a.mp4", range(0, 10_000, 100))
    record = Record(name="a", path=path, texts=("x",))
    looked = look_at_all([record], model, cache, 4)
    write_from_cache(tmp_path, cache, looked.keys, model.feature_shape)
    assert FeatureSet(tmp_path).batch([0]).times_s.tolist() == [[0.5, 4.5, 8.5]]  # the middles of seconds


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 100])
def test_spread_keeps_evenly_spaced_frames(count):
    kept = spread(iter(range(count)), 8)
    assert len(kept) <= 8
    assert len(kept) >= min(count, 4)
    assert len(set(np.diff(kept))) <= 1
    assert count == 0 or kept[0] == 0


def test_second_look_decodes_nothing_even_if_the_file_has_moved(tmp_path, model, cache, monkeypatch, write_image):
    path = write_image(tmp_path / "a.png", "red", 1)
    look_at_all([of_file(path)], model, cache, 4)
    path = path.rename(tmp_path / "b.png")
    monkeypatch.setattr("indexer.training.features.decode_image", lambda *_: pytest.fail("decoded again"))
    again = FeatureCache(tmp_path / "cache", model.feature_shape)
    assert look_at_all([of_file(path)], model, again, 4).problems == []


def test_broken_files_are_left_out_with_their_reason(tmp_path, model, cache, write_image):
    good = write_image(tmp_path / "good.png", "red", 1)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    names = ["text.jpg", "cut.png", "missing.png", "empty.png", "broken.mp4", "good.png"]
    looked = look_at_all([of_file(tmp_path / name) for name in names], model, cache, 4)
    assert [record.name for record in looked.records] == ["good.png"]
    reasons = {problem.name: problem.reason for problem in looked.problems}
    assert list(reasons) == names[:5]
    assert reasons["text.jpg"] == "the image cannot be read: it is none"
    assert reasons["empty.png"] == "the image cannot be read: it is empty"
    assert reasons["missing.png"] == "the file does not exist"


def test_image_stands_upright_as_its_exif_says():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = 255  # white on the left
    image, data = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image.save(data, "PNG", exif=exif)
    upright = decode_image(data.getvalue(), 32)
    assert upright[:12].mean() > 250  # what was left is up
    assert upright[20:].mean() < 5


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_image_of_any_mode_becomes_rgb(mode):
    data = io.BytesIO()
    Image.new(mode, (10, 20)).save(data, "TIFF")
    assert decode_image(data.getvalue(), 32).shape == (32, 32, 3)


def test_cache_gives_back_what_it_was_given_and_reads_only_what_is_asked(tmp_path):
    cache = FeatureCache(tmp_path, (2, 3))
    rng = np.random.default_rng(0)
    values = {f"key {i}": rng.normal(size=(i % 3 + 1, 2, 3)).astype(np.float16) for i in range(1100)}
    for key, value in values.items():
        cache.add(key, Features(value, np.arange(len(value), dtype=np.float32)))
    cache.flush()
    found = {}
    again = FeatureCache(tmp_path, (2, 3))
    again.read(["key 7", "key 1000"], lambda key, features: found.update({key: features}))
    assert set(found) == {"key 7", "key 1000"}
    assert all(np.array_equal(features.values, values[key]) for key, features in found.items())
    assert found["key 7"].times_s.tolist() == [0.0, 1.0]
    assert again.num_frames("key 8") == 3


def test_batch_pads_items_of_different_lengths(tmp_path):
    cache = FeatureCache(tmp_path / "cache", (1, 2))
    for key, count in (("a", 3), ("b", 1)):
        cache.add(key, Features(np.full((count, 1, 2), count, np.float16), np.arange(count, dtype=np.float32)))
    write_from_cache(tmp_path, cache, ["a", "b", "a"], (1, 2))
    data = FeatureSet(tmp_path)
    batch = data.batch([1, 2])
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.features[0, 1:].abs().sum() == 0
    assert batch.times_s[1].tolist() == [0.0, 1.0, 2.0]
    chosen = data.batch([0, 1], [np.array([2]), np.array([0])])
    assert chosen.times_s.tolist() == [[2.0], [0.0]]
