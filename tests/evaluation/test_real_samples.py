"""Real files of pose estimators, from folders of classes to predictions of files and streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skelnas.cli import app

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "samples"
TRAIN = "--genotype random:0 --frames 8 --layers 3 --channels 2 --epochs 2 --batch-size 4"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no real recordings in {SAMPLES}")


def run(*words: object, stdin: str = "") -> str:
    done = CliRunner().invoke(app, list(map(str, words)), input=stdin)
    assert done.exit_code == 0, f"{words}\n{done.output}{done.exception!r}"
    return done.output


def link_frames(folder: Path, frames: list[Path]) -> None:
    """Make four clips of two classes of the frames of one, as links."""
    for index, frame in enumerate(frames):
        quarter = 4 * index // len(frames)
        clip = folder / "ab"[quarter % 2] / f"s{quarter}"
        clip.mkdir(parents=True, exist_ok=True)
        (clip / frame.name).symlink_to(frame)


def openpose(folder: Path) -> list[str]:
    frames = sorted((SAMPLES / "openpose-frames").glob("*.json"))
    link_frames(folder, frames)
    return [json.dumps(json.loads(frame.read_text())) for frame in frames]


def arrays(folder: Path) -> list[str]:
    frames = sorted((SAMPLES / "mp-data" / "apple" / "0").glob("*.json"))
    link_frames(folder, frames)
    return []  # a stream takes no rows without joints


def listed(folder: Path, format_name: str) -> list[str]:
    """Make a class of each file, and four clips of its frames, as lists and as lines."""
    for path in sorted((SAMPLES / format_name).glob("*.json")):
        frames = json.loads(path.read_text())
        (folder / path.stem).mkdir(parents=True)
        for number in range(4):
            part = frames[10 * number : 10 * number + 10]
            lists, lines = json.dumps(part), "\n".join(map(json.dumps, part))
            ending, text = (".json", lists) if number % 2 else (".jsonl", lines)
            (folder / path.stem / f"s{number}{ending}").write_text(text)
    return list(map(json.dumps, frames))


@pytest.mark.parametrize(
    ("make", "options", "joints"),
    [
        (openpose, "--picture 1080x1920", "25, each x, y, score"),
        (lambda folder: listed(folder, "mediapipe"), "--joints mediapipe33", "33, each x, y, z"),
        (lambda folder: listed(folder, "movenet"), "--joints coco17", "17, each x, y, score"),
        (arrays, "--channels x,y", "79, each x, y"),
    ],
    ids=["openpose", "mediapipe", "movenet", "arrays"],
)
def test_real_recordings_from_files_to_predictions(
    tmp_path: Path, make: Callable[[Path], list[str]], options: str, joints: str
) -> None:
    lines = make(tmp_path / "raw")
    cache, model = tmp_path / "own.h5", tmp_path / "model"
    run("prepare", "folder", tmp_path / "raw", cache, *options.split(), "--folds", 2, "--strict")
    assert joints in run("inspect", cache)
    run("train", cache, "--protocol", "fold1", "--out", model, *TRAIN.split(), "--threads", 1)
    clips = sorted((tmp_path / "raw").glob("*/*"))
    printed = run("predict", model, *clips, "--top", 1)
    assert printed.count("1 person\n") == len(clips)
    if lines:
        stream = run("predict", model, "-", "--window", 10, "--stride", 5, stdin="\n".join(lines))
        assert stream.count("frames ") == 1 + len(lines[10:]) // 5
