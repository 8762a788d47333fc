"""Pickles of data are read; pickles that call functions are refused and run nothing."""

import builtins
import collections
import copyreg
import os
import pickle
import random
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skelnas.data.readers.pickles import Array, PickleError, load

PROTOCOLS = (2, 3, 4, 5)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**127), 2**127 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(SCALARS, inner, max_size=4),
    ),
    max_leaves=20,
)
ARRAYS = st.sampled_from(["f2", ">f4", "f8", "i1", "u2", ">i8", "?"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


@settings(deadline=None, max_examples=100)
@given(NESTED, st.sampled_from(PROTOCOLS))
def test_plain_data_round_trip(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@settings(deadline=None, max_examples=100)
@given(ARRAYS, st.sampled_from(PROTOCOLS), st.booleans())
def test_arrays_round_trip(array, protocol, fortran_order):
    array = np.asfortranarray(array) if fortran_order else array
    read = load(pickle.dumps([array, array], protocol))[1]
    assert isinstance(read, Array)
    np.testing.assert_array_equal(read.read(), array)
    assert read.read().dtype == array.dtype


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_arrays_and_scalars_round_trip(protocol):
    large = np.random.default_rng(0).random((100, 50))
    read = load(pickle.dumps({"a": large, "b": np.float32(0.5), "c": np.int64(7)}, protocol))
    np.testing.assert_array_equal(read["a"].read(), large)
    assert (read["b"], read["c"]) == (0.5, 7)


def test_module_names_of_old_and_new_numpy_are_equivalent():
    data = pickle.dumps(np.arange(3), 2)
    for module in (b"numpy.core", b"numpy._core"):
        renamed = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", module)
        assert load(renamed).read().tolist() == [0, 1, 2]


# Programs


class Reduced:
    def __init__(self, *recipe):
        self.recipe = recipe

    def __reduce__(self):
        return self.recipe


def refused(data):
    with pytest.raises(PickleError) as caught:
        load(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "recipe",
    [
        (os.system, ("touch ran",)),
        (builtins.eval, ("open('ran', 'w')",)),
        (builtins.exec, ("open('ran', 'w')",)),
        (builtins.getattr, ("", "join")),
        (builtins.__import__, ("os",)),
        (builtins.open, ("ran", "w")),
        (copyreg._reconstructor, (collections.Counter, object, None)),
        (np.load, ("ran",)),
        (np.zeros, (10**12,)),
        (bytearray, (10**12,)),
        (collections.OrderedDict, ()),
        (set, ([1],)),
        (random.Random, ()),
    ],
    ids=lambda recipe: getattr(recipe[0], "__name__", "?"),
)
def test_nothing_is_called(tmp_path, monkeypatch, recipe, protocol):
    monkeypatch.chdir(tmp_path)
    for data in (Reduced(*recipe), {"split": {}, "annotations": [Reduced(*recipe)]}):
        assert "it names " in refused(pickle.dumps(data, protocol))
    assert list(tmp_path.iterdir()) == []


def named(module, name):
    return b"c" + module + b"\n" + name + b"\n"


RECONSTRUCT = named(b"numpy.core.multiarray", b"_reconstruct")
SCALAR = named(b"numpy.core.multiarray", b"scalar")
DTYPE = named(b"numpy", b"dtype")
ENCODE = named(b"_codecs", b"encode")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"\x80\x02cos\nsystem\n.", "it names os:system, expected containers"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "it names os:system"),
        (b"\x80\x04]]\x93.", "a name that is not text"),
        (b"\x80\x02cnumpy\nload\n.", "it names numpy:load"),
        (b"\x80\x02cnumpy\nndarray.__class__\n.", "it names numpy:ndarray.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.mro__\x93.", "it names numpy:dtype.mro__"),
        (b"\x80\x02" + named(b"numpy", b"ndarray") + b"K\x05\x85R.", "a call, expected data"),
        (b"\x80\x02" + named(b"numpy", b"ndarray") + b"K\x05\x85\x81.", "the step"),
        (b"\x80\x02" + DTYPE + b"}b.", "a change to an object"),
        (b"\x80\x02" + DTYPE + b"X\x02\x00\x00\x00O8\x85R.", "an array of the type 'O8'"),
        (b"\x80\x02" + DTYPE + b"X\x02\x00\x00\x00f1\x85R.", None),
        (b"\x80\x02" + DTYPE + b"]\x85R.", "an array of a type that is not text"),
        (b"\x80\x02" + DTYPE + b"K\x01R.", "a call, expected data"),
        (b"\x80\x02" + DTYPE + b")R.", "the pickle is broken (TypeError)"),
        (b"\x80\x02" + RECONSTRUCT + b")R.", "the pickle is broken (TypeError)"),
        (b"\x80\x02" + SCALAR + b"K\x01K\x02\x86R.", "an array of"),
        (b"\x80\x02" + ENCODE + b"U\x01aU\x03rot\x86R.", "an array of objects"),
        (b"\x80\x02U\x01aQ.", "the step b'Q'"),
        (b"\x80\x02P1\n.", "the step b'P'"),
        (b"(S'a'\nios\nsystem\n.", "the step b'S'"),
        (b"\x80\x02(ios\nsystem\n.", "the step b'i'"),
        (b"\x80\x02\x82\x01.", "the step"),
        (b"\x80\x05\x97.", "the step"),
        (b"\x80\x02h\x05.", "the pickle is broken (KeyError)"),
        (b"\x80\x02\x85.", "a tuple of more values than there are"),
        (b"\x80\x02t.", "the pickle is broken (IndexError)"),
        (b"\x80\x02K\x01K\x02.", "the pickle is broken (ValueError)"),
        (b"\x80\x02}]K\x01s.", "a key that is neither text nor a number"),
        (b"\x80\x02K\x01K\x02a.", "an item is appended to something other than a list"),
        (b"\x80\x63N.", "protocol 99, expected at most 5"),
        (b"", "the pickle is broken (IndexError)"),
        (b"\x80\x02N", "the pickle is broken (IndexError)"),
        (b"{}", "the step b'{'"),
        (b"PK\x03\x04", "the step b'P'"),
    ],
)  # fmt: skip
def test_programs_are_refused(program, expected):
    if expected is None:
        assert "no type of number" in refused_array(load(program))
    else:
        assert expected in refused(program)


def refused_array(kind):
    with pytest.raises(PickleError) as caught:
        _ = kind.dtype
    return str(caught.value)


def test_arrays_of_objects_records_and_text_are_refused():
    for array in (np.array([{}, 1]), np.zeros(2, [("x", "f4")]), np.array(["a"]), np.array([b"a"])):
        for protocol in PROTOCOLS:
            assert "expected" in refused(pickle.dumps(array, protocol))


@pytest.mark.parametrize(
    "shape", [(10**15,), (-1,), (2**70,), ("3",), (3, 0, 2**61, 2**61), tuple([1] * 9)]
)
def test_arrays_whose_shape_does_not_fit_their_data_are_refused(shape):
    def state(array):
        version, _, *rest = array.__reduce__()[2]
        return (version, shape, *rest)

    class Forged:
        def __reduce__(self):
            function, arguments, _ = np.arange(3.0).__reduce__()
            return function, arguments, state(np.arange(3.0))

    with pytest.raises(PickleError):
        load(pickle.dumps(Forged(), 4)).read()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",  # a terabyte of bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",  # text
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
        b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"1.",  # an integer
        b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b"h",  # memo slot 2**32 - 1
    ],
)
def test_nothing_is_allocated_that_the_file_does_not_hold(program):
    tracemalloc.start()
    refused(program)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("step", [b"]", b"(", b"}", b")\x85", b"]\x85"])
def test_deep_nesting_does_not_recurse(step):
    data = b"\x80\x02" + step * 100_000
    refused(data)
    nested = load(b"\x80\x02]" + b"\x85" * 100_000 + b".")
    assert len(nested) == 1


@pytest.mark.parametrize("step", [b"]", b"(", b"}", b"N\x94"])
def test_more_steps_than_the_file_has_room_for_are_refused(step):
    """Each would take some 60 bytes of memory."""
    data = b"\x80\x04" + step * 1_000_000
    assert "steps in a file of" in refused(data)


def test_a_list_that_contains_itself_is_read():
    value = []
    value.append(value)
    assert load(pickle.dumps(value, 4))[0] is not None


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_changed_pickle_is_read_or_refused(data):
    value = {"split": {"a_train": ["x"]}, "annotations": [{"keypoint": np.ones((1, 2, 3, 2))}]}
    text = bytearray(pickle.dumps(value, data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PickleError):
        load(bytes(text))
