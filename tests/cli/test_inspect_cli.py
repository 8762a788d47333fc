"""`skelnas inspect` and the flags of `skelnas prepare` run in real pipes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_cli import REAL, fails, run

from skelnas.cli.inspect import _describe_classes
from skelnas.data.cache import Cache
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.skeleton_file import find_skeleton, read_skeleton


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect")
    made = run("skelnas prepare synthetic --clips 16 c.h5 --float16 --compress", path)
    assert made.returncode == 0, made.stderr
    return path


def test_inspect_prints_a_table_and_verifies_checksums(folder: Path) -> None:
    finished = run("skelnas inspect c.h5 --verify", folder)
    assert finished.returncode == 0, finished.stderr
    for word in ("16 clips", "synthetic", "body_rule: denoise", "float16 gzip", "xsub", "xview"):
        assert word in finished.stdout
    assert finished.stderr == "c.h5 is intact: all 16 clips match their checksums\n"


def test_names_with_brackets_are_printed_as_they_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d[final]").mkdir()
    (tmp_path / "d[final]" / "c.h5").hardlink_to(folder / "c.h5")
    finished = run("skelnas inspect d[final]/c.h5", tmp_path)
    assert "d[final]/c.h5: 16 clips" in finished.stdout


@pytest.mark.parametrize(
    ("class_clips", "expected"),
    [
        ([18, 18], "2, 18 clips each"),
        ([1, 1], "2, 1 clip each"),
        ([2, 1200], "2, 2 to 1,200 clips each"),
        ([3, 0, 4], "3, of which 2 occur"),
    ],
)
def test_clips_of_classes_in_words(class_clips: list[int], expected: str) -> None:
    assert _describe_classes(class_clips) == expected


def test_prepare_counts_clips_with_separators(tmp_path: Path) -> None:
    assert (
        "c.h5: 1,000 clips" in run("skelnas prepare synthetic --clips 1000 c.h5", tmp_path).stdout
    )


def test_inspect_prints_json(folder: Path) -> None:
    facts = json.loads(run("skelnas inspect c.h5 --json", folder).stdout)
    assert (facts["clips"], facts["source"], facts["storage"]) == (16, "synthetic", "float16 gzip")
    assert "damage" not in facts
    facts = json.loads(run("skelnas inspect c.h5 --json --verify", folder).stdout)
    assert facts["damage"] == []


def test_a_damaged_cache_sets_the_exit_code(folder: Path) -> None:
    (folder / "bad.h5").write_bytes((folder / "c.h5").read_bytes())
    with h5py.File(folder / "bad.h5", "a") as file:
        for start in file["clips/start"]:
            file["poses"][start, 0, 0] += 1
    finished = run("skelnas inspect bad.h5 --verify --json", folder)
    assert finished.returncode == 3
    assert len(json.loads(finished.stdout)["damage"]) == 16
    assert finished.stderr.count("checksum differs") == 16
    assert "bad.h5 is damaged" in finished.stderr


@pytest.mark.parametrize("name", ["clip.png", "clip.gif"])
def test_clips_are_drawn(folder: Path, name: str) -> None:
    with h5py.File(folder / "c.h5") as file:
        clip = file["clips/name"].asstr()[3]
    finished = run(f"skelnas inspect c.h5 --clip {clip} --plot {name} --poses 3", folder)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert (folder / name).read_bytes()[:4] in (b"\x89PNG", b"GIF8")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("skelnas inspect c.h5 --clip one", 2, ["--plot"]),
        ("skelnas inspect c.h5 --plot one.png", 2, ["--clip"]),
        ("skelnas inspect c.h5 --clip one --plot one.jpg", 2, ["one.jpg", ".pdf or .gif"]),
        ("skelnas inspect c.h5 --clip one --plot one.png", 3, ["'one'", "hint: there are S"]),
        ("skelnas inspect nowhere.h5", 3, ["nowhere.h5", "No such file"]),
        ("skelnas layouts coco71", 3, ["'coco71' is not a layout", "did you mean coco17?"]),
        ("skelnas layouts --plot all.png", 2, ["--plot draws one layout"]),
        ("skelnas layouts coco17 --plot a.svg", 2, ["ends in .png"]),
        ("skelnas prepare manifest c.csv n.h5 --channels x,z", 2, ["--channels x,z", "x and y"]),
        ("skelnas prepare manifest c.csv n.h5 --picture 9", 2, ["--picture 9", "1920x1080"]),
    ],
)
def test_invalid_requests_are_refused(
    folder: Path, command: str, code: int, words: list[str]
) -> None:
    fails(command, folder, code, *words)


def test_prepare_stops_at_too_many_broken_files(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for action in range(1, 5):
        (tmp_path / "raw" / f"S001C001P001R001A{action:03}.skeleton").write_text("broken")
    command = "skelnas prepare ntu raw c.h5 --max-failed 2"
    fails(command, tmp_path, 3, "more than 2 broken files", "A003.skeleton: line 1")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("source", "data", "clip"),
    [
        ("ntu", "ntu-raw", "S001C001P001R001A055"),
        ("kinetics", "kinetics-skeleton", "__lt03EF4ao"),
        ("nw-ucla", "nw-ucla", "a01_s01_e00_v01"),
    ],
)
def test_real_recordings(tmp_path: Path, source: str, data: str, clip: str) -> None:
    if not (REAL / data).is_dir():
        pytest.skip(f"no recordings in {REAL / data}")
    finished = run(
        f"skelnas prepare {source} {REAL / data} c.h5 --resume && skelnas inspect c.h5 --verify && "
        f"skelnas inspect c.h5 --clip {clip} --plot clip.png",
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "clip.png").stat().st_size > 10_000


def test_layouts_are_listed_shown_and_drawn(folder: Path) -> None:
    listed = run("skelnas layouts", folder)
    assert (listed.returncode, listed.stderr) == (0, "")
    names = json.loads(run("skelnas layouts --json", folder).stdout)
    for name in names:
        assert f" {name} " in listed.stdout
    assert all(len(line) <= 80 for line in listed.stdout.splitlines())
    shown = run("skelnas layouts openpose25", folder).stdout
    assert "y grows downwards, centre: hip_mid" in shown
    for word in ("8", "hip_mid", "24", "heel_right", "ankle_right"):
        assert f" {word} " in shown
    drawn = run("skelnas layouts COCO17 --plot coco17.png", folder)
    assert (drawn.returncode, drawn.stdout) == (0, "")
    assert (folder / "coco17.png").read_bytes().startswith(b"\x89PNG")


def test_a_layout_as_json_is_a_file_of_joints(folder: Path) -> None:
    for name in ("coco17", "mediapipe33", "h36m17", "smpl24", "mediapipe-hands21"):
        (folder / "joints.json").write_text(run(f"skelnas layouts {name} --json", folder).stdout)
        layout = find_layout(name)
        skeleton = read_skeleton(folder / "joints.json")
        assert skeleton.make_layout(skeleton.channels) == layout
        assert find_skeleton(Path(name)).make_layout(layout.channels) == layout


def test_own_recordings_with_a_layout_by_name(folder: Path) -> None:
    poses = 300 + 100 * np.random.default_rng(0).normal(size=(8, 17, 2))
    scores = np.random.default_rng(1).uniform(0.2, 1, (8, 17, 1))
    np.save(folder / "a.npy", np.concatenate([poses, scores], axis=-1))
    np.save(folder / "b.npy", np.concatenate([poses, scores], axis=-1)[:5])
    (folder / "clips.csv").write_text("path,label,split\na.npy,wave,train\nb.npy,run,test\n")
    done = run(
        "skelnas prepare manifest clips.csv own.h5 --joints coco17 --picture 640x480 && "
        "skelnas inspect own.h5 --json",
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert "channels x, y, score: the third number of a joint is 0.2" in done.stderr
    with Cache.open(folder / "own.h5") as cache:
        assert cache.layout == find_layout("coco17")
        assert cache.rule["picture"] == [640, 480]
        poses_, _ = cache.read(0)
    np.testing.assert_allclose(poses_[0, ..., :2], poses / (640, 480) - 0.5, 1e-5, 1e-6)
    np.testing.assert_allclose(poses_[0, ..., 2:], scores, 1e-6)


def test_folders_of_frames_of_a_pose_estimator(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, label in product(("train", "test"), ("wave", "run")):
        clip = folder / "own" / part / label / "clip1"
        clip.mkdir(parents=True)
        for number in range(4):
            joints = np.column_stack([rng.uniform(0, 640, (18, 2)), rng.uniform(0.1, 1, 18)])
            person = {"pose_keypoints_2d": joints.round(3).ravel().tolist()}
            frame = {"people": [person] if number != 2 else []}
            (clip / f"v_{number:012d}_keypoints.json").write_text(json.dumps(frame))
    done = run("skelnas prepare folder own frames.h5 && skelnas inspect frames.h5 --json", folder)
    assert done.returncode == 0, done.stderr
    assert "joints of openpose18" in done.stderr
    with Cache.open(folder / "frames.h5") as cache:
        assert cache.layout.joints == find_layout("openpose18").joints
        assert cache.classes == ["run", "wave"]
        poses, present = cache.read(list(cache.clips.names).index("test/run/clip1"))
    assert present.tolist() == [[True, True, False, True]]
    np.testing.assert_allclose(poses[0, 3], joints.round(3), 1e-6)
    wrong = run("skelnas prepare manifest own own2.h5", folder)
    assert wrong.returncode == 3
    assert "skelnas prepare folder reads folders named after classes" in wrong.stderr
