"""Networks by name: what there is, what it takes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, UsageError
from skelnas.genotype import BUILT_IN, random_genotype
from skelnas.models.create import create_model, list_models
from skelnas.models.network import Network


def test_names_are_listed_and_found_by_a_pattern() -> None:
    everything = ["hcn", "ntu_cs112se30", "ntu_cv112se30", "st-gcn", "temporal-conv"]
    assert list_models() == everything
    assert list_models("*gcn") == ["st-gcn"]
    assert list_models("ntu_*") == everything[1:3]
    assert list_models("resnet*") == []


@pytest.mark.parametrize("name", [*list_models(), "random:3", "random:0:sar-joint"])
def test_every_name_makes_a_network_that_learns(name: str) -> None:
    small = {} if name in ("hcn", "st-gcn", "temporal-conv") else {"channels": 2, "layers": 3}
    network = create_model(name, num_classes=7, joints="coco17", persons=2, **small)
    logits = network(torch.randn(2, 3, 16, 34))
    assert logits.shape == (2, 7)
    assert network.num_classes == 7
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_sizes_are_those_that_were_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = Network(
        random_genotype(1),
        in_channels=4,
        num_classes=5,
        channels=3,
        num_layers=4,
        joints=6,
        normalised_joints=12,
    )
    (tmp_path / "genotype.json").write_text(random_genotype(1).to_json())
    sizes = {"in_channels": 4, "channels": 3, "layers": 4, "persons": 2, "input_norm": True}
    for architecture in (random_genotype(1), "random:1", str(tmp_path / "genotype.json")):
        torch.manual_seed(0)
        found = create_model(architecture, 5, 6, **sizes).state_dict()
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(found[k], value) for k, value in expected.state_dict().items())


def test_by_default_a_network_has_the_sizes_of_the_paper_and_the_channels_of_the_layout() -> None:
    network = create_model(BUILT_IN["ntu_cs112se30"], 60, "kinect-v2")
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert round(num_parameters / 1e6, 3) == 1.319
    layout = find_layout("mediapipe33")
    assert create_model("random", 2, layout, channels=2, layers=3).stem[0].in_channels == 4


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (("st-gnc", 2, 5), UsageError, "unknown model 'st-gnc'; did you mean st-gcn?"),
        (("resnet", 2, 5), UsageError, "unknown model 'resnet'"),
        (("random:x", 2, 5), UsageError, "unknown model 'random:x'"),
        (("st-gcn", 2, 5), InputError, "st-gcn needs to know which joints are connected"),
        (("random", 2, "coco18"), InputError, "'coco18' is not a layout; did you mean coco17?"),
        (("random", 0, 5), UsageError, "num_classes=0: expected at least 1"),
        (("hcn", 2, 0), UsageError, "joints=0: expected at least 1"),
    ],
)
def test_what_cannot_be_made_is_refused(
    arguments: tuple[str, int, int], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error) as caught:
        create_model(*arguments)
    assert reason in str(caught.value)


@pytest.mark.parametrize("size", [{"channels": 8}, {"layers": 3}, {"input_norm": True}])
def test_baselines_have_sizes_of_their_own(size: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="are of cells, and hcn has none"):
        create_model("hcn", 2, 5, **size)
