from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skelnas.data.readers.base import Layout, Recording
from skelnas.errors import UsageError
from skelnas.evaluation.timeline import Timeline
from skelnas.reporting.plot_timeline import LIKELY, MAX_ROWS, choose_classes, draw_timeline

NAMES = [f"class {index}" for index in range(20)]


def timeline(likeliest: list[int | None], channels: tuple[str, ...] = ("x", "y")) -> Timeline:
    """Windows of eight frames, four apart, in which these classes have 90 %; None: nobody."""
    probabilities = np.full((len(likeliest), len(NAMES)), 0.1 / (len(NAMES) - 1))
    for window, index in enumerate(likeliest):
        if index is None:
            probabilities[window] = np.nan
        else:
            probabilities[window, index] = 0.9
    spans = np.array([(4 * window, 4 * window + 8) for window in range(len(likeliest))])
    poses = np.ones((1, spans[-1, 1], 3, len(channels)), np.float32)
    poses[..., 1] = [1, 2, 3]
    recording = Recording("take $1$", 0, poses, np.ones(poses.shape[:2], bool))
    layout = Layout(("hip", "head", "hand_left"), ((1, 0), (2, 0)), channels, frame_rate=10)
    return Timeline(recording, layout, NAMES, spans, probabilities)


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


def test_every_moment_belongs_to_the_window_with_the_nearest_middle() -> None:
    assert timeline([0, 0, 0]).bounds.tolist() == [0, 6, 10, 16]
    assert timeline([0]).bounds.tolist() == [0, 8]


def test_a_recording_has_a_row_for_each_class_in_order_of_appearance(tmp_path: Path) -> None:
    draw_timeline(timeline([7, 7, None, 2, 11, 2]), tmp_path / "t.svg")
    written = texts(tmp_path / "t.svg")
    assert [text for text in written if text in NAMES] == ["class 7", "class 2", "class 11"]
    assert {"take $1$", "seconds", "left limbs", "right limbs"} <= set(written)
    assert LIKELY in (tmp_path / "t.svg").read_text()


def test_the_classes_that_last_longest_are_shown() -> None:
    brief = list(range(MAX_ROWS + 3))
    assert choose_classes(timeline([*brief, 15, 15])) == [*range(MAX_ROWS - 1), 15]


def test_a_clip_has_bars_of_its_most_probable_classes(tmp_path: Path) -> None:
    draw_timeline(timeline([3]), tmp_path / "t.svg")
    written = texts(tmp_path / "t.svg")
    assert [t for t in written if t in NAMES] == [NAMES[index] for index in (3, 0, 1, 2, 4)]
    assert {"90.0", "0.5", "probability, %"} <= set(written)


def test_equal_recordings_give_equal_pictures_of_every_kind(tmp_path: Path) -> None:
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        files = [tmp_path / f"{name}.{kind}" for name in "ab"]
        for path in files:
            draw_timeline(timeline([1, 2]), path)
        assert files[0].read_bytes() == files[1].read_bytes()
        assert files[0].read_bytes().startswith(start)


def test_an_animation_shows_the_recording_at_its_speed(tmp_path: Path) -> None:
    draw_timeline(timeline([1, None]), tmp_path / "t.gif")
    with Image.open(tmp_path / "t.gif") as film:
        assert film.n_frames == 12
        assert film.info["duration"] == 100


def test_a_recording_of_nobody_is_drawn(tmp_path: Path) -> None:
    empty = timeline([None, None])
    empty.recording.present[:] = False
    draw_timeline(empty, tmp_path / "t.svg")
    assert not set(NAMES) & set(texts(tmp_path / "t.svg"))
    draw_timeline(empty, tmp_path / "t.gif")


def test_joints_without_x_and_y_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="angle"):
        draw_timeline(timeline([1], channels=("angle", "y")), tmp_path / "t.svg")
    assert not any(tmp_path.iterdir())
