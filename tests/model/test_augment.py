"""Augmentation of clips: what stays, what moves alike in every frame, and which frames are taken."""

from __future__ import annotations

import pytest
import torch

from model.augment import VideoAugmentation, augment_clip, random_box, random_step, spread_frames
from model.errors import InputError, ModelError

EVERYTHING = VideoAugmentation(
    smallest_crop=0.4, largest_stretch=1.3, flip_probability=0.5, brightness=0.3, contrast=0.3, saturation=0.3
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noise(num_frames: int = 1, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (num_frames, height, width, 3), dtype=torch.uint8, generator=_generator(9))


def _ramp(size: int = 64) -> torch.Tensor:
    """Red grows to the right, green downwards: a pixel's colour says where it came from."""
    across = torch.arange(size).expand(size, size)
    return torch.stack([across, across.T, torch.full((size, size), 100)], dim=2).to(torch.uint8)[None]


def test_nothing_happens_by_default():
    frames = _noise(3)
    assert torch.equal(augment_clip(frames, VideoAugmentation(), 32, _generator()), frames)


def test_clip_is_scaled_to_the_square_asked_for():
    frames = torch.full((2, 40, 64, 3), 77, dtype=torch.uint8)
    out = augment_clip(frames, VideoAugmentation(), 24, _generator())
    assert (out.shape, out.dtype) == ((2, 24, 24, 3), torch.uint8)
    assert (out == 77).all()


def test_every_frame_of_a_clip_is_changed_alike():
    for seed in range(5):
        out = augment_clip(_noise().expand(4, -1, -1, -1), EVERYTHING, 24, _generator(seed))
        assert torch.equal(out, out[:1].expand(4, -1, -1, -1))


def test_the_same_generator_gives_the_same_clip_and_another_one_another():
    first, again, other = (augment_clip(_noise(), EVERYTHING, 24, _generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_flip_mirrors_left_and_right():
    frames = _noise(2)
    out = augment_clip(frames, VideoAugmentation(flip_probability=1.0), 32, _generator())
    assert torch.equal(out, frames.flip(2))


def test_crop_shows_a_part_of_the_picture_as_large_as_was_allowed():
    settings = VideoAugmentation(smallest_crop=0.25)
    for seed in range(20):
        out = augment_clip(_ramp(), settings, 64, _generator(seed))[0].float()
        for channel, axis in ((0, 1), (1, 0)):
            place = out[..., channel].mean(dim=1 - axis)  # along the axis
            assert (place.diff() > -0.01).all()
            assert 64 * 0.5 - 3 <= place[-1] - place[0] <= 63


def test_boxes_keep_to_area_stretch_and_picture():
    settings, generator = VideoAugmentation(smallest_crop=0.3, largest_stretch=1.5), _generator()
    boxes = [random_box(200, 300, settings, generator) for _ in range(500)]
    for box in boxes:
        assert 0 <= box.top <= box.top + box.height <= 200
        assert 0 <= box.left <= box.left + box.width <= 300
        share = box.height * box.width / 60_000
        assert 0.25 < share <= 1
        assert 1 / 1.55 < (box.width / 300) / (box.height / 200) < 1.55
    assert min(box.height * box.width for box in boxes) < 0.4 * 60_000
    assert {box.top > 0 for box in boxes} == {True, False}


@pytest.mark.parametrize(("name", "unchanged"), [("brightness", 0), ("contrast", None), ("saturation", 90)])
def test_light_leaves_alone_what_it_has_to(name, unchanged):
    """Black stays black in any brightness, the mean grey in any contrast, greys in any saturation."""
    settings = VideoAugmentation(**{name: 0.5})
    if unchanged is None:
        frames = _noise()
        mean = (frames.float() @ torch.tensor([0.299, 0.587, 0.114])).mean()
        out = augment_clip((frames // 2 + 64), settings, 32, _generator(1)).float()
        after = (out @ torch.tensor([0.299, 0.587, 0.114])).mean()
        assert after == pytest.approx(float(mean) / 2 + 64, abs=1.5)
        assert out.std() != pytest.approx(float((frames // 2).float().std()), rel=0.02)
    else:
        frames = torch.full((1, 8, 8, 3), unchanged, dtype=torch.uint8)
        assert torch.equal(augment_clip(frames, settings, 8, _generator(1)), frames)


def test_brightness_scales_pixels_within_its_range():
    frames = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8)
    settings = VideoAugmentation(brightness=0.3)
    seen = [int(augment_clip(frames, settings, 8, _generator(seed))[0, 0, 0, 0]) for seed in range(60)]
    assert 70 <= min(seen) < 80
    assert 120 < max(seen) <= 130


def test_median_removes_a_lone_pixel_and_keeps_an_edge():
    frames = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    frames[:, :, 8:] = 200
    clean = frames.clone()
    frames[0, 4, 4] = 255
    assert torch.equal(augment_clip(frames, VideoAugmentation(denoise="median"), 16, _generator()), clean)


def test_gaussian_is_the_kernel_of_1_2_1():
    frames = torch.zeros(1, 9, 9, 3, dtype=torch.uint8)
    frames[0, 4, 4] = 160
    out = augment_clip(frames, VideoAugmentation(denoise="gaussian"), 9, _generator())[0, 3:6, 3:6, 0]
    assert out.tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"smallest_crop": 0.0}, "smallest_crop must be above 0 and at most 1, got 0.0"),
        ({"largest_stretch": 0.5}, "largest_stretch must be at least 1, got 0.5"),
        ({"flip_probability": 2.0}, "flip_probability must be between 0 and 1, got 2.0"),
        ({"denoise": "magic"}, "denoise must be one of none, median, gaussian, got 'magic'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ModelError, match=text):
        VideoAugmentation(**settings)


@pytest.mark.parametrize("frames", [torch.zeros(1, 8, 8, 3), torch.zeros(0, 8, 8, 3, dtype=torch.uint8)])
def test_what_is_no_clip_is_refused(frames):
    with pytest.raises(InputError, match="frames must be uint8"):
        augment_clip(frames, VideoAugmentation(), 8, _generator())


@pytest.mark.parametrize(("num_frames", "count"), [(10, 4), (100, 7), (3, 3), (2, 5), (1, 1)])
def test_spread_frames_are_one_of_each_stretch(num_frames, count):
    for generator in (None, _generator()):
        rows = spread_frames(num_frames, count, generator)
        assert len(rows) == count
        assert (rows.diff() >= 0).all()
        start = torch.arange(count) * num_frames / count
        assert ((rows >= start.floor()) & (rows < (start + num_frames / count).ceil())).all()


def test_spread_frames_without_a_generator_are_the_middle_ones_and_reach_all_with_one():
    assert spread_frames(9, 3).tolist() == [1, 4, 7]
    generator = _generator()
    assert {int(row) for _ in range(100) for row in spread_frames(9, 3, generator)} == set(range(9))


def test_random_step_takes_every_nth_frame_up_to_the_largest_step():
    generator, steps = _generator(), set()
    for _ in range(200):
        rows = random_step(20, 5, generator)
        step = int(rows[1] - rows[0])
        assert (rows.diff() == step).all()
        assert rows[0] < step
        assert rows[-1] + step >= 20
        steps.add(step)
    assert steps == {1, 2, 3, 4, 5}
    assert random_step(1, 5, generator).tolist() == [0]


def test_frames_of_nothing_are_refused():
    with pytest.raises(InputError, match="must be at least 1, got 0 and 3"):
        spread_frames(0, 3)
    with pytest.raises(InputError, match="must be at least 1, got 4 and 0"):
        random_step(4, 0, _generator())
