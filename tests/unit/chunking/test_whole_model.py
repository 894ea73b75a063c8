"""What defines a model is read, finite and pinned, wherever in the file it stands.

Every place that a tensor can have, times every fault that it can have there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from zkml_ray import PlanOptions
from zkml_ray.chunking.functions import inline_functions
from zkml_ray.chunking.load import LoadedModel, load_model, parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.places import tensors
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.errors import (
    ChunkingError,
    ModelFormatError,
    TrustRootError,
    UnsupportedOperatorError,
)
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.stages.plan import plan
from zkml_ray.verifying.trust import TrustRoot, check_named

SHAPE = (2, 3)
VALUES = np.arange(1, 7, dtype=np.float32).reshape(SHAPE) / 8
OTHERS = VALUES[::-1].copy()
DATA = "weights.bin"
OWN = "com.example"


def tensor(values: np.ndarray = VALUES, name: str = "w") -> TensorProto:
    return numpy_helper.from_array(values, name)


def model(
    nodes: list[onnx.NodeProto],
    *,
    initializers: list[TensorProto] | None = None,
    sparse: list[onnx.SparseTensorProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    weight_is_input: bool = False,
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    if weight_is_input:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, SHAPE))
    graph = helper.make_graph(
        nodes,
        "test",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
        initializers or [],
        sparse_initializer=sparse or [],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
    return helper.make_model(graph, functions=functions or [], opset_imports=opsets, ir_version=9)


def add(weight: str = "w") -> onnx.NodeProto:
    return helper.make_node("Add", ["x", weight], ["y"], "add")


def function(
    nodes: list[onnx.NodeProto], defaults: list[AttributeProto] | None = None
) -> onnx.FunctionProto:
    made = helper.make_function(OWN, "Own", ["x"], ["y"], nodes, [helper.make_opsetid("", 18)])
    made.attribute_proto.extend(defaults or [])
    return made


def call(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Own", ["x"], ["y"], "call", domain=OWN, **attributes)


def referring_constant() -> onnx.NodeProto:
    node = helper.make_node("Constant", [], ["w"], "constant")
    node.attribute.append(
        AttributeProto(name="value", ref_attr_name="weight", type=AttributeProto.TENSOR)
    )
    return node


def weight_by_default(value: TensorProto) -> AttributeProto:
    return helper.make_attribute("weight", value)


def sparse(values: np.ndarray) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(values.size, dtype=np.int64), "w_indices")
    return helper.make_sparse_tensor(tensor(values.ravel()), indices, list(SHAPE))


def branch(values: np.ndarray, *, constant: bool, known: bool = True) -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "w"], ["out"], "inner")]
    initializers = [] if constant else [tensor(values)]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], "constant", value=tensor(values)))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, SHAPE)
    graph = helper.make_graph(nodes, "branch", [], [out], initializers)
    choice = helper.make_node("If", ["on"], ["y"], "if", then_branch=graph, else_branch=graph)
    if known:
        return model([choice], initializers=[numpy_helper.from_array(np.array(True), "on")])
    total = helper.make_node("ReduceSum", ["x"], ["s"], "sum", keepdims=0)
    return model([total, helper.make_node("Greater", ["s", "s"], ["on"], "question"), choice])


def constant_of_shape(values: np.ndarray) -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array(SHAPE, dtype=np.int64), "shape")
    value = tensor(values.ravel()[:1])
    return model(
        [helper.make_node("ConstantOfShape", ["shape"], ["w"], "filled", value=value), add()],
        initializers=[shape],
    )


PLACES: dict[str, Callable[[np.ndarray], onnx.ModelProto]] = {
    "initializer": lambda v: model([add()], initializers=[tensor(v)]),
    "initializer that is an input": lambda v: model(
        [add()], initializers=[tensor(v)], weight_is_input=True
    ),
    "Constant": lambda v: model(
        [helper.make_node("Constant", [], ["w"], "constant", value=tensor(v)), add()]
    ),
    "ConstantOfShape": constant_of_shape,
    "initializer of a branch": lambda v: branch(v, constant=False),
    "Constant of a branch": lambda v: branch(v, constant=True),
    "sparse initializer": lambda v: model([add()], sparse=[sparse(v)]),
    "sparse Constant": lambda v: model(
        [helper.make_node("Constant", [], ["w"], "constant", sparse_value=sparse(v)), add()]
    ),
    "Constant of a function": lambda v: model(
        [call()],
        functions=[
            function([helper.make_node("Constant", [], ["w"], "constant", value=tensor(v)), add()])
        ],
    ),
    "default of a function": lambda v: model(
        [call()],
        functions=[function([referring_constant(), add()], [weight_by_default(tensor(v))])],
    ),
    "attribute of a call": lambda v: model(
        [call(weight=tensor(v))],
        functions=[
            function(
                [referring_constant(), add()],
                [weight_by_default(tensor(OTHERS, "other"))],
            )
        ],
    ),
}
"""Places that can be proved, by what makes a model with values there."""

REFUSED_PLACES: dict[str, Callable[[np.ndarray], onnx.ModelProto]] = {
    "initializer of a branch that the input chooses": lambda v: branch(
        v, constant=False, known=False
    ),
    "Constant of a branch that the input chooses": lambda v: branch(v, constant=True, known=False),
}
"""Places in operators that cannot be proved: read all the same, then refused by name."""

ALL_PLACES = PLACES | REFUSED_PLACES


def moved_out(proto: onnx.ModelProto, **entries: str) -> dict[str, bytes]:
    """Put the data of every float tensor named w into files; their names and bytes."""
    files: dict[str, bytes] = {}
    for place in tensors(proto):
        moved = place.tensor
        if moved.name != "w":
            continue
        files[DATA] = moved.raw_data
        moved.ClearField("raw_data")
        moved.data_location = TensorProto.EXTERNAL
        for key, value in {"location": DATA, **entries}.items():
            moved.external_data.add(key=key, value=value)
    assert files, "the model has no tensor to move"
    return files


def written(folder: Path, proto: onnx.ModelProto, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def outputs(proto: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.fixture(autouse=True)
def decoy_folder(tmp_path: Path) -> Iterator[None]:
    """The current directory holds other weights under the same name."""
    folder, before = tmp_path / "current", Path.cwd()
    folder.mkdir()
    (folder / DATA).write_bytes(OTHERS.tobytes())
    os.chdir(folder)
    yield
    os.chdir(before)


@pytest.mark.parametrize("place", PLACES)
def test_numbers_are_read_from_wherever_they_stand(place: str) -> None:
    proto = PLACES[place](VALUES)
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), outputs(proto))


@pytest.mark.parametrize("place", PLACES)
def test_numbers_in_another_file_are_those_beside_the_model(place: str, tmp_path: Path) -> None:
    proto = PLACES[place](VALUES)
    inside = parse_model(proto.SerializeToString(), "model.onnx")
    loaded = load_model(written(tmp_path / "model", proto, moved_out(proto)))
    assert normalise(loaded.proto, {}) == normalise(inside.proto, {})
    # What the digest is of needs no file beside it.
    alone = parse_model(loaded.data, "model.onnx")
    assert normalise(alone.proto, {}) == normalise(inside.proto, {})
    assert alone.data == loaded.data


@pytest.mark.parametrize("place", PLACES)
def test_other_weights_beside_the_same_file_are_another_model(place: str, tmp_path: Path) -> None:
    """The attack: one file, published; what lies beside it is changed."""
    loaded: list[LoadedModel] = []
    for values in (VALUES, OTHERS + 1):
        proto = PLACES[place](VALUES)
        files = moved_out(proto)
        size = len(files[DATA])
        files[DATA] = values.tobytes()[:size]
        loaded.append(load_model(written(tmp_path / str(len(loaded)), proto, files)))
    one, other = (tmp_path / name / "model.onnx" for name in "01")
    assert one.read_bytes() == other.read_bytes()
    honest, changed = (plan(m, PlanOptions(scale=7, circuits="hinted")).plan for m in loaded)
    assert honest.model_sha256 != changed.model_sha256
    assert honest.digest() != changed.digest()
    assert honest.chunks[0].onnx_sha256 != changed.chunks[0].onnx_sha256
    sealed = SealedPlan(plan=changed, srs=(), verifying_keys=())
    check_named(TrustRoot(model=loaded[1]), sealed, sealed.digest())
    with pytest.raises(TrustRootError) as caught:
        check_named(TrustRoot(model=loaded[0]), sealed, sealed.digest())
    assert caught.value.code == "model-digest"


@pytest.mark.parametrize("place", REFUSED_PLACES)
def test_operators_with_graphs_of_their_own_are_refused_by_name(place: str, tmp_path: Path) -> None:
    proto = REFUSED_PLACES[place](VALUES)
    path = written(tmp_path / "model", proto, moved_out(proto))
    with pytest.raises(ChunkingError, match=r"node if \(If\)"):
        normalise(load_model(path).proto, {})


def refusal(path: Path) -> str:
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model.onnx: ")
    return message


LOCATIONS = {
    "missing": ("absent.bin", "is not beside model.onnx"),
    "a folder": (".", "cannot be read"),
    "a pipe": ("pipe", "no regular file"),
    "absolute": ("/dev/zero", "own folder alone"),
    "above": ("../outside.bin", "own folder alone"),
    "above by way of a folder": ("sub/../../outside.bin", "own folder alone"),
    "above, Windows": ("..\\outside.bin", "own folder alone"),
    "absolute, Windows": ("C:\\outside.bin", "own folder alone"),
    "nothing": ("", "own folder alone"),
    "a link out of the folder": ("link.bin", "link out of the model file's folder"),
    "a linked folder": ("linked/outside.bin", "link out of the model file's folder"),
    "too long a name": ("n" * 5000, "cannot be read"),
    "memory": ("*/_ORT_MEM_ADDR_/*", "is not beside model.onnx"),
    "short": ("short.bin", "which has 3"),
    "empty": ("empty.bin", "which has 0"),
}


@pytest.mark.parametrize("place", ALL_PLACES)
@pytest.mark.parametrize("case", LOCATIONS)
def test_weights_elsewhere_are_refused(place: str, case: str, tmp_path: Path) -> None:
    location, words = LOCATIONS[case]
    proto = ALL_PLACES[place](VALUES)
    moved_out(proto, location=location)
    folder = tmp_path / "models" / "mine"
    path = written(folder, proto, {"short.bin": b"abc", "empty.bin": b""})
    (folder / "sub").mkdir()
    (tmp_path / "models" / "outside.bin").write_bytes(VALUES.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "models" / "outside.bin")
    (folder / "linked").symlink_to(tmp_path / "models")
    os.mkfifo(folder / "pipe")
    message = refusal(path)
    assert words in message
    assert any(word in message for word in ("'w'", "'constant'", "'filled'", "attribute weight"))


@pytest.mark.parametrize("place", ALL_PLACES)
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": "-1"}, "offset is '-1'"),
        ({"offset": "x"}, "offset is 'x'"),
        ({"offset": "²"}, "offset is"),
        ({"offset": "9" * 30}, "offset is"),
        ({"offset": "4"}, "from byte 4"),
        ({"offset": str(10**17)}, "from byte 1000"),
        ({"length": "1"}, "takes 1 bytes"),
        ({"length": str(1 << 40)}, "takes 1099511627776 bytes"),
        ({"length": ""}, "length is ''"),
    ],
)
def test_impossible_offsets_and_lengths_are_refused(
    place: str, entries: dict[str, str], words: str, tmp_path: Path
) -> None:
    proto = ALL_PLACES[place](VALUES)
    assert words in refusal(written(tmp_path / "model", proto, moved_out(proto, **entries)))


def test_a_place_given_twice_is_refused(tmp_path: Path) -> None:
    proto = PLACES["initializer"](VALUES)
    files = moved_out(proto)
    proto.graph.initializer[0].external_data.add(key="location", value="other.bin")
    assert "location is given twice" in refusal(written(tmp_path / "model", proto, files))


def test_weights_larger_than_a_message_are_refused_unread(tmp_path: Path) -> None:
    proto = PLACES["initializer"](VALUES)
    files = moved_out(proto)
    proto.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    assert "more than 2147483647 bytes" in refusal(written(tmp_path / "model", proto, files))


def test_bytes_without_a_folder_cannot_have_weights_elsewhere() -> None:
    proto = PLACES["Constant"](VALUES)
    moved_out(proto)
    with pytest.raises(ModelFormatError, match="in another file, and here is none"):
        parse_model(proto.SerializeToString(), "model.onnx")


def test_several_tensors_share_one_file_by_offsets(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Add", ["x", "a"], ["s"], "first"), add("b")],
        initializers=[tensor(VALUES, "a"), tensor(OTHERS, "b")],
    )
    proto.graph.node[1].input[0] = "s"
    expected = outputs(proto)
    onnx.save(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="shared.bin",
        size_threshold=0,
    )
    loaded = load_model(tmp_path / "model.onnx")
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), expected)


@pytest.mark.parametrize("place", PLACES)
def test_caches_of_links_are_read(place: str, tmp_path: Path) -> None:
    """As Hugging Face keeps models: named links beside each other into one folder of blobs."""
    proto = PLACES[place](VALUES)
    inside = parse_model(proto.SerializeToString(), "model.onnx")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    files = moved_out(proto)
    (blobs / "aa").write_bytes(proto.SerializeToString())
    (blobs / "bb").write_bytes(files[DATA])
    (snapshot / "model.onnx").symlink_to("../../../blobs/aa")
    (snapshot / DATA).symlink_to("../../../blobs/bb")
    loaded = load_model(snapshot / "model.onnx")
    assert normalise(loaded.proto, {}) == normalise(inside.proto, {})


@pytest.mark.parametrize("place", ALL_PLACES)
def test_nan_is_refused_wherever_it_stands(place: str) -> None:
    values = VALUES.copy()
    values[0, 0] = np.nan
    with pytest.raises(ModelFormatError, match=r"^model.onnx: .* holds NaN \(1 of [16] elements\)"):
        parse_model(ALL_PLACES[place](values).SerializeToString(), "model.onnx")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [place for place in PLACES if "branch" not in place])
def test_what_is_not_finite_is_refused_by_name(place: str, number: float, dtype: str) -> None:
    """Behind a product, where nothing takes it for a mask."""
    values = VALUES.astype(dtype)
    values[0, 0] = number
    proto = PLACES[place](values)
    cast = [helper.make_node("Cast", ["w"], ["w32"], "cast", to=TensorProto.FLOAT)]
    holder = proto.functions[0] if proto.functions else proto.graph
    last = holder.node.pop()
    assert last.op_type == "Add"
    last.op_type, last.input[1] = "Mul", "w32"
    holder.node.extend([*cast, last])
    if place == "initializer that is an input":
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        proto.graph.input[1].type.tensor_type.elem_type = kind
    with pytest.raises(ModelFormatError, match="holds") as caught:
        normalise(parse_model(proto.SerializeToString(), "model.onnx").proto, {})
    assert ("NaN" in str(caught.value)) == bool(np.isnan(number))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("form", ["value_float", "value_floats"])
def test_constants_given_as_numbers_are_looked_at(form: str, number: float) -> None:
    value = number if form == "value_float" else [1.0, number, 1.0]
    constant = helper.make_node("Constant", [], ["w"], "constant", **{form: value})
    proto = model([constant, helper.make_node("Mul", ["x", "w"], ["y"], "product")])
    with pytest.raises(ModelFormatError, match="constant"):
        normalise(parse_model(proto.SerializeToString(), "model.onnx").proto, {})


@pytest.mark.parametrize("form", ["value_float", "value_floats", "value_int", "value_ints"])
def test_constants_given_as_numbers_are_read(form: str) -> None:
    value = {"value_float": 0.5, "value_floats": [1.0, 0.5, 2.0], "value_int": 3}.get(form)
    constant = helper.make_node(
        "Constant", [], ["w0"], "constant", **{form: [1, 2, 3] if value is None else value}
    )
    cast = helper.make_node("Cast", ["w0"], ["w"], "cast", to=TensorProto.FLOAT)
    proto = model([constant, cast, add()])
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), outputs(proto))


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("in_function", [False, True])
@pytest.mark.parametrize(
    ("op_type", "attribute"), [("LeakyRelu", "alpha"), ("Elu", "alpha"), ("Selu", "gamma")]
)
def test_attributes_that_are_not_finite_are_refused_by_name(
    op_type: str, attribute: str, in_function: bool, number: float
) -> None:
    nodes = [helper.make_node(op_type, ["x"], ["y"], "bent", **{attribute: number})]
    proto = model([call()], functions=[function(nodes)]) if in_function else model(nodes)
    with pytest.raises(ModelFormatError, match=rf"attribute {attribute} of node 'bent'"):
        parse_model(proto.SerializeToString(), "model.onnx")


def test_what_folding_makes_infinite_is_refused_by_name() -> None:
    proto = model(
        [
            helper.make_node("Div", ["w", "zero"], ["quotient"], "division"),
            helper.make_node("Mul", ["x", "quotient"], ["y"], "product"),
        ],
        initializers=[tensor(), tensor(np.zeros(SHAPE, dtype=np.float32), "zero")],
    )
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    with pytest.raises(ModelFormatError, match="'quotient', which follows from other constants"):
        normalise(loaded.proto, {})


def test_a_normalisation_that_would_make_weights_infinite_is_refused() -> None:
    numbers = {"scale": 3e38, "bias": 0.0, "mean": 0.0, "var": 1e-8}
    proto = model(
        [helper.make_node("BatchNormalization", ["x", *numbers], ["y"], "norm", epsilon=0.0)],
        initializers=[
            tensor(np.full(3, value, dtype=np.float32), name) for name, value in numbers.items()
        ],
    )
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    with pytest.raises(ModelFormatError, match="holds inf"):
        normalise(loaded.proto, {})


@pytest.mark.parametrize("op_type", ["Add", "Where"])
def test_masks_of_minus_infinity_are_refused_as_such(op_type: str) -> None:
    values = np.zeros(SHAPE, dtype=np.float32)
    values[:, 1:] = -np.inf
    if op_type == "Add":
        proto = model([add()], initializers=[tensor(values)])
    else:
        proto = model(
            [helper.make_node("Where", ["on", "w", "x"], ["y"], "where")],
            initializers=[
                numpy_helper.from_array(np.isinf(values), "on"),
                tensor(np.array(-np.inf, dtype=np.float32)),
            ],
        )
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    with pytest.raises(UnsupportedOperatorError, match=r"'w', read by .* as masks of attention do"):
        normalise(loaded.proto, {})


@pytest.mark.parametrize("low", [None, -np.inf, -0.25])
@pytest.mark.parametrize("high", [None, np.inf, 0.25])
@pytest.mark.parametrize("opset", [6, 11, 18])
@pytest.mark.parametrize("last", [False, True])
def test_infinite_bounds_of_clip_are_dropped(
    low: float | None, high: float | None, opset: int, last: bool
) -> None:
    bounds = {"low": low, "high": high}
    given = {name: value for name, value in bounds.items() if value is not None}
    source, target = ("r", "y") if last else ("x", "r")
    if opset == 6:
        names = {"low": "min", "high": "max"}
        attributes = {names[name]: value for name, value in given.items()}
        clip = helper.make_node("Clip", [source], [target], "clip", **attributes)
    else:
        named = [name if name in given else "" for name in bounds]
        clip = helper.make_node("Clip", [source, *named], [target], "clip")
    relu = helper.make_node("Neg", ["x" if last else "r"], ["r" if last else "y"], "neg")
    proto = model(
        [relu, clip] if last else [clip, relu],
        initializers=[
            tensor(np.array(value, dtype=np.float32), name)
            for name, value in given.items()
            if opset > 6
        ],
    )
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", opset))
    made = normalise(parse_model(proto.SerializeToString(), "model.onnx").proto, {})
    np.testing.assert_array_equal(outputs(made), outputs(proto))
    for left in made.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(left)).all()
    if not {-0.25, 0.25}.intersection(given.values()):
        assert [node.op_type for node in made.graph.node] == ["Neg"]


def test_a_clip_from_infinity_is_refused() -> None:
    proto = model(
        [helper.make_node("Clip", ["x", "low"], ["y"], "clip")],
        initializers=[tensor(np.array(np.inf, dtype=np.float32), "low")],
    )
    with pytest.raises(ModelFormatError, match="'low' holds inf"):
        normalise(parse_model(proto.SerializeToString(), "model.onnx").proto, {})


def test_infinity_that_a_fold_takes_away_is_no_obstacle() -> None:
    infinite = np.full(SHAPE, np.inf, dtype=np.float32)
    proto = model(
        [helper.make_node("Min", ["w", "infinite"], ["small"], "smaller"), add("small")],
        initializers=[tensor(), tensor(infinite, "infinite")],
    )
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), outputs(proto))


@pytest.mark.parametrize("place", ALL_PLACES)
def test_data_that_does_not_fit_its_shape_is_refused(place: str) -> None:
    proto = ALL_PLACES[place](VALUES)
    for each in tensors(proto):
        if each.tensor.name == "w":
            each.tensor.raw_data = each.tensor.raw_data[:-1]
    with pytest.raises(ModelFormatError, match=r"^model.onnx: .* cannot be read"):
        parse_model(proto.SerializeToString(), "model.onnx")


@pytest.mark.parametrize(
    "indices",
    [
        [0, 1, 2, 3, 4, 6],
        [-1, 1, 2, 3, 4, 5],
        [0, 0, 2, 3, 4, 5],
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 3]],
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, -1]],
        [0, 1, 2],
    ],
)
def test_sparse_tensors_whose_indices_do_not_fit_are_refused(indices: list[object]) -> None:
    made = helper.make_sparse_tensor(
        tensor(VALUES.ravel()),
        numpy_helper.from_array(np.array(indices, dtype=np.int64), "w_indices"),
        list(SHAPE),
    )
    for proto in (
        model([add()], sparse=[made]),
        model([helper.make_node("Constant", [], ["w"], "constant", sparse_value=made), add()]),
    ):
        with pytest.raises(ModelFormatError):
            parse_model(proto.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("by_axis", [False, True])
def test_sparse_tensors_are_zero_elsewhere(by_axis: bool) -> None:
    indices = [[0, 1], [1, 2]] if by_axis else [1, 5]
    made = helper.make_sparse_tensor(
        tensor(np.array([0.5, 0.25], dtype=np.float32)),
        numpy_helper.from_array(np.array(indices, dtype=np.int64), "w_indices"),
        list(SHAPE),
    )
    loaded = parse_model(model([add()], sparse=[made]).SerializeToString(), "model.onnx")
    dense = np.array([[0, 0.5, 0], [0, 0, 0.25]], dtype=np.float32)
    expected = outputs(model([add()], initializers=[tensor(dense)]))
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), expected)


def alpha_of_function(outer_default: float | None, given: float | None) -> onnx.ModelProto:
    """A function around a function around LeakyRelu, alpha handed down by reference."""
    leaky = helper.make_node("LeakyRelu", ["x"], ["y"], "leaky")
    leaky.attribute.append(
        AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    )
    inner = helper.make_function(OWN, "In", ["x"], ["y"], [leaky], [helper.make_opsetid("", 18)])
    inner.attribute_proto.append(helper.make_attribute("slope", 0.5))
    nested = helper.make_node("In", ["x"], ["y"], "nested", domain=OWN)
    nested.attribute.append(
        AttributeProto(name="slope", ref_attr_name="slope", type=AttributeProto.FLOAT)
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
    outer = helper.make_function(OWN, "Own", ["x"], ["y"], [nested], opsets)
    if outer_default is None:
        outer.attribute.append("slope")
    else:
        outer.attribute_proto.append(helper.make_attribute("slope", outer_default))
    return model([call(**({} if given is None else {"slope": given}))], functions=[inner, outer])


@pytest.mark.parametrize("outer_default", [None, 0.25])
@pytest.mark.parametrize("given", [None, 0.125])
def test_attributes_of_functions_have_their_defaults(
    outer_default: float | None, given: float | None
) -> None:
    """Onnx's own inliner forgets them."""
    proto = alpha_of_function(outer_default, given)
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    alpha = given or outer_default or 0.5
    found = outputs(normalise(loaded.proto, {}))
    expected = outputs(model([helper.make_node("LeakyRelu", ["x"], ["y"], "leaky", alpha=alpha)]))
    np.testing.assert_array_equal(found, expected)


def test_a_function_called_twice_keeps_its_results_apart() -> None:
    nodes = [helper.make_node("Constant", [], ["w"], "constant", value=tensor()), add()]
    first, second = call(), call()
    first.name, first.output[0], second.input[0] = "first", "middle", "middle"
    proto = model([first, second], functions=[function(nodes)])
    loaded = parse_model(proto.SerializeToString(), "model.onnx")
    np.testing.assert_array_equal(outputs(normalise(loaded.proto, {})), outputs(proto))


def named(domain: str, name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, opsets)


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ([named("", "Relu", [helper.make_node("Neg", ["x"], ["y"])])], "runtimes know themselves"),
        ([named(OWN, "Own", [call()])], "Cycle"),
        (
            [helper.make_function(OWN, "Own", ["x"], ["x"], [], [helper.make_opsetid("", 18)])],
            "hands its input x on",
        ),
        (
            [
                helper.make_function(
                    OWN, "Own", ["x"], ["y"], [add("x")], [helper.make_opsetid("", 13)]
                )
            ],
            "version",
        ),
    ],
)
def test_functions_whose_meaning_is_not_certain_are_refused(
    functions: list[onnx.FunctionProto], words: str
) -> None:
    proto = model([call()], functions=functions)
    with pytest.raises(ChunkingError, match=words):
        parse_model(proto.SerializeToString(), "model.onnx")


def test_training_information_is_refused() -> None:
    proto = model([add()], initializers=[tensor()])
    proto.training_info.add().algorithm.name = "descent"
    with pytest.raises(ModelFormatError, match="training_info"):
        parse_model(proto.SerializeToString(), "model.onnx")


def test_circuits_are_made_of_what_was_read(tmp_path: Path) -> None:
    """No chunk's file refers to another file."""
    proto = PLACES["Constant of a function"](VALUES)
    loaded = load_model(written(tmp_path / "model", proto, moved_out(proto)))
    made = plan(loaded, PlanOptions(scale=7))
    for files in made.files.values():
        chunk = onnx.load_model_from_string(files.onnx)
        assert not any(t.tensor.data_location for t in tensors(chunk))
    assert normalised_graph(loaded, {}).proto == onnx.ModelProto.FromString(made.normalised)


def test_functions_that_stand_for_more_nodes_than_there_can_be_are_refused_at_once() -> None:
    """Thirty functions that call the one before twice: 2^30 nodes in a few kilobytes."""

    def doubling(depth: int, first: str = "Neg") -> onnx.ModelProto:
        functions = []
        for level in range(depth):
            name, domain = (f"F{level - 1}", OWN) if level else (first, "")
            nodes = [
                helper.make_node(name, ["x"], ["h"], "a", domain=domain),
                helper.make_node(name, ["h"], ["y"], "b", domain=domain),
            ]
            sets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
            functions.append(helper.make_function(OWN, f"F{level}", ["x"], ["y"], nodes, sets))
        graph = helper.make_graph(
            [helper.make_node(f"F{depth - 1}", ["x"], ["y"], "call", domain=OWN)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
        sets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
        return helper.make_model(graph, opset_imports=sets, functions=functions, ir_version=9)

    assert len(inline_functions(doubling(3)).graph.node) == 8
    for depth in (18, 30, 60):
        with pytest.raises(ModelFormatError, match=f"stand for {2**depth} nodes"):
            inline_functions(doubling(depth))
    with pytest.raises(ModelFormatError, match="calls itself"):
        proto = doubling(2)
        proto.functions[0].node[0].op_type, proto.functions[0].node[0].domain = "F1", OWN
        inline_functions(proto)
