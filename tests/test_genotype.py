from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelnas.errors import InputError
from skelnas.genotype import BUILT_IN, Cell, Edge, Genotype, from_dict, load, parse, random_genotype
from skelnas.primitives import PRIMITIVES, SPACES, candidates

SCHEMA = json.loads(
    (Path(__file__).parents[1] / "docs" / "genotype.schema.json").read_text(encoding="utf-8")
)
OPS = [op for op in PRIMITIVES if op != "none"]


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    return tuple(
        tuple(
            Edge(draw(st.sampled_from(OPS)), draw(st.integers(0, index - 1)))
            for _ in range(draw(st.integers(1, 3)))
        )
        for index in range(2, 2 + draw(st.integers(1, 6)))
    )


genotypes = st.builds(Genotype, cells(), cells())


def document(**changes: Any) -> dict[str, Any]:
    """Return a valid document of one node per cell, with changes."""
    cell = [[["conv_3x3", 0], ["se_connect", 1]]]
    correct = {"format": "skelnas-genotype", "version": 1, "normal": cell, "reduction": cell}
    return correct | changes


@given(genotypes)
def test_json_round_trip(genotype: Genotype) -> None:
    assert parse(genotype.to_json(), "text") == genotype
    assert from_dict(genotype.to_dict(), "document") == genotype
    assert allows(SCHEMA, genotype.to_dict())


def test_json_is_written_readably() -> None:
    assert parse(json.dumps(document()), "text").to_json() == (
        "{\n"
        '  "format": "skelnas-genotype",\n'
        '  "version": 1,\n'
        '  "normal": [\n'
        '    [["conv_3x3", 0], ["se_connect", 1]]\n'
        "  ],\n"
        '  "reduction": [\n'
        '    [["conv_3x3", 0], ["se_connect", 1]]\n'
        "  ]\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "here: not JSON (line 1, column 1: Expecting value)"),
        ('{"format":\n oops}', "here: not JSON (line 2, column 2: Expecting value)"),
        ("[" * 100_000, "here: not JSON (brackets nested too deeply"),
        ("1" * 5000, "here: not JSON (Exceeds the limit"),
        ("[]", 'here: not a genotype: expected a JSON object with "format": "skelnas-genotype"'),
        ("{}", "here: not a genotype: expected"),
    ],
)
def test_text_that_is_not_a_genotype_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "here")
    assert str(caught.value).startswith(message)
    assert caught.value.hint == "a genotype is what `skelnas derive RUN` prints"


def allows(schema: dict[str, Any], value: Any) -> bool:
    """Return whether a value matches a JSON schema, for the keywords that ours uses."""
    if "$ref" in schema:
        return allows(SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], value)
    if "const" in schema:
        return type(value) is type(schema["const"]) and value == schema["const"]
    if "enum" in schema:
        return isinstance(value, str) and value in schema["enum"]
    if schema["type"] == "integer":
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
        return whole and value >= schema["minimum"]
    if schema["type"] == "array":
        if not isinstance(value, list) or len(value) < schema["minItems"]:
            return False
        members = schema.get("prefixItems") or [schema["items"]] * len(value)
        return len(value) <= schema.get("maxItems", len(value)) and all(map(allows, members, value))
    assert schema["type"] == "object"
    return (
        isinstance(value, dict)
        and value.keys() >= set(schema["required"])
        and all(allows(part, value[name]) for name, part in schema["properties"].items())
    )


def test_the_schema_lists_the_operations() -> None:
    assert SCHEMA["$defs"]["edge"]["prefixItems"][0]["enum"] == OPS


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in document().items() if name != key}


def one_edge(edge: object) -> dict[str, Any]:
    return document(normal=[[["conv_3x3", 0]], [["conv_3x3", 2], edge]])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (document(format="other"), "not a genotype: expected a JSON object"),
        (document(version=2), "genotype version 2, expected 1"),
        (document(version="1"), 'genotype version "1", expected 1'),
        (document(version=True), "genotype version true, expected 1"),
        (without("version"), "genotype version null, expected 1"),
        (without("normal"), 'the cell "normal" is missing'),
        (without("reduction"), 'the cell "reduction" is missing'),
        (document(normal=[]), "normal cell: expected a list of nodes, got []"),
        (document(reduction={"0": []}), 'reduction cell: expected a list of nodes, got {"0": []}'),
        (
            document(normal=[[["conv_3x3", 0]], []]),
            "normal cell, node 3: expected a list of [operation, node] pairs, got []",
        ),
        (
            document(reduction=["conv_3x3"]),
            'reduction cell, node 2: expected a list of [operation, node] pairs, got "conv_3x3"',
        ),
        (
            one_edge("conv_3x3"),
            'normal cell, node 3: expected an [operation, node] pair, got "conv_3x3"',
        ),
        (
            one_edge(["conv_3x3"]),
            'normal cell, node 3: expected an [operation, node] pair, got ["conv_3x3"]',
        ),
        (
            one_edge(["conv_3x3", 0, 1]),
            'normal cell, node 3: expected an [operation, node] pair, got ["conv_3x3", 0, 1]',
        ),
        (one_edge(["conv_9x9", 0]), 'normal cell, node 3: unknown operation "conv_9x9"'),
        (one_edge(["none", 0]), 'normal cell, node 3: unknown operation "none"'),
        (one_edge([["conv_3x3"], 0]), 'normal cell, node 3: unknown operation ["conv_3x3"]'),
        (one_edge([0, "conv_3x3"]), "normal cell, node 3: unknown operation 0"),
        (
            one_edge(["conv_3x3", 9]),
            "normal cell, node 3: conv_3x3 reads node 9, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", 4]),
            "normal cell, node 3: conv_3x3 reads node 4, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", 3]),
            "normal cell, node 3: conv_3x3 reads node 3, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", -1]),
            "normal cell, node 3: conv_3x3 reads node -1, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", True]),
            "normal cell, node 3: conv_3x3 reads node true, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", 1.0]),
            "normal cell, node 3: conv_3x3 reads node 1.0, expected a node from 0 to 2",
        ),
        (
            one_edge(["conv_3x3", "0"]),
            'normal cell, node 3: conv_3x3 reads node "0", expected a node from 0 to 2',
        ),
    ],
)
def test_broken_documents_are_refused_with_the_exact_location(
    broken: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse(json.dumps(broken), "my.json")
    assert str(caught.value).startswith(f"my.json: {message}")
    beyond_a_schema = re.search(
        r"reads node (\d|1\.0),", message
    )  # a later node; in JSON, 1.0 is an integer
    assert allows(SCHEMA, broken) == bool(beyond_a_schema)


def test_an_unknown_operation_is_reported_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        from_dict(one_edge(["none", 0]), "my.json")
    assert caught.value.hint == f"known: {', '.join(OPS)}"


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(InputError) as caught:
        from_dict(one_edge(["x" * 10_000, 0]), "my.json")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_genotypes(name: str) -> None:
    genotype = load(name)
    assert parse(genotype.to_json(), name) == genotype
    for cell in (genotype.normal, genotype.reduction):
        assert [len(node) for node in cell] == [2, 2, 2, 2]


def test_the_documented_example_is_the_built_in_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "genotype.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    assert example == BUILT_IN["ntu_cs112se30"].to_json()
    for name in (*BUILT_IN, *OPS):
        assert f"`{name}`" in page


def test_load_from_a_file(tmp_path: Path) -> None:
    genotype = BUILT_IN["ntu_cv112se30"]
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json(), encoding="utf-8")
    assert load(str(path)) == genotype
    path.write_text(genotype.to_json(), encoding="utf-8-sig")
    assert load(str(path)) == genotype


def test_load_from_standard_input() -> None:
    genotype = BUILT_IN["ntu_cs112se30"]
    assert load("-", genotype.to_json()) == genotype
    with pytest.raises(InputError, match=r"^standard input: not JSON \(line 1"):
        load("-", "oops")


@pytest.mark.parametrize("stdin", [None, "", " \n"])
def test_load_from_empty_standard_input_is_refused(stdin: str | None) -> None:
    with pytest.raises(InputError, match=r"^standard input: expected a genotype, got nothing$"):
        load("-", stdin)


def test_load_of_a_missing_file_names_the_choices(tmp_path: Path) -> None:
    spec = str(tmp_path / "missing.json")
    with pytest.raises(InputError) as caught:
        load(spec)
    assert str(caught.value) == f"{spec}: no such genotype file"
    for choice in ("-", "random:SEED", *BUILT_IN):
        assert choice in (caught.value.hint or "")


def test_load_of_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r": cannot be read as a genotype \(.+\)$"):
        load(str(tmp_path))
    path = tmp_path / "binary.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"binary\.json: not a genotype: expected JSON text"):
        load(str(path))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}: not a genotype")


def test_load_of_random_genotypes() -> None:
    assert load("random:7") == random_genotype(7)
    assert load("random") == load("random:0")
    assert load("random:7") != load("random:8")
    assert load("random:7:sar") == random_genotype(7)
    assert load("random:7:sar-joint") == random_genotype(7, "sar-joint") != random_genotype(7)
    wrong = ("random:", "random:-1", "random:x", "random:sar-joint", "random:1:none")
    for spec in (*wrong, "random:" + 30 * "9"):
        with pytest.raises(InputError, match="no such genotype file"):
            load(spec)


@pytest.mark.parametrize("space", SPACES)
def test_random_genotypes_belong_to_their_space(space: str) -> None:
    genotype = random_genotype(3, space, num_nodes=5)
    assert parse(genotype.to_json(), "text") == genotype
    for cell in (genotype.normal, genotype.reduction):
        assert len(cell) == 5
        for node in cell:
            assert len({edge.source for edge in node}) == len(node) == 2
            assert {edge.op for edge in node} <= set(SPACES[space]) - {"none"}


def test_spaces_are_parsed_by_name_or_as_a_list_of_operations() -> None:
    assert candidates("darts") == SPACES["darts"]
    assert candidates("conv_7x1_1x7, none,sep_conv_3x3") == ("none", "sep_conv_3x3", "conv_7x1_1x7")
    for name, ops in SPACES.items():
        assert candidates(",".join(reversed(ops))) == SPACES[name]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("sar,darts", "'sar' is none of: none, max"),
        ("none,conv_9x9", "'conv_9x9' is none of: none"),
        ("none,", "'' is none of: none"),
        ("", "one of sar, sar-joint, sar-no-se, darts, or operations"),
        ("none,conv_3x3,conv_3x3", "conv_3x3 is named 2 times"),
        ("none", "two operations or more"),
        ("conv_3x3", "two operations or more"),
    ],
)
def test_invalid_spaces_are_refused(space: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        candidates(space)
