"""ONNX Runtime: inference on the model that a converter would write, a Gemm and a Relu per layer."""

import importlib
from collections.abc import Sequence
from typing import Any

from ..sample import Turn, repeated
from ..tasks import Infer

onnx: Any = importlib.import_module("onnx")
onnxruntime: Any = importlib.import_module("onnxruntime")

# Old enough for every runtime of the last years; none of the ops used has changed since.
_OPSET, _IR_VERSION = 17, 8


def version() -> str:
    return f"ONNX Runtime {onnxruntime.__version__}"


def infer(task: Infer) -> Turn:
    (x,) = task.data
    run, names, inputs = session(_model(task), task.threads).run, ["y"], {"x": x}
    task.check(run(names, inputs)[0])
    return repeated("run(names, inputs)", run=run, names=names, inputs=inputs)


def session(model: Any, threads: int) -> Any:
    """One that runs the model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    serialized = model.SerializeToString()
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


def model(name: str, nodes: list[Any], constants: list[Any], x: Sequence[int], y: Sequence[int]) -> Any:
    """Of a graph from x to y, which have these shapes."""
    make, float_type = onnx.helper, onnx.TensorProto.FLOAT
    ends = [make.make_tensor_value_info(end, float_type, [*shape]) for end, shape in (("x", x), ("y", y))]
    graph = make.make_graph(nodes, name, ends[:1], ends[1:], constants)
    opset = make.make_opsetid("", _OPSET)
    return make.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)


def _model(task: Infer) -> Any:
    nodes, constants, h = [], [], "x"
    layers = task.weights()
    for index, (weight, bias) in enumerate(layers):
        last = index == len(layers) - 1
        z = "y" if last else f"z{index}"
        constants += [onnx.numpy_helper.from_array(weight, f"weight{index}")]
        constants += [onnx.numpy_helper.from_array(bias, f"bias{index}")]
        names = [h, f"weight{index}", f"bias{index}"]
        nodes.append(onnx.helper.make_node("Gemm", names, [z], transB=1))
        if not last:
            h = f"h{index}"
            nodes.append(onnx.helper.make_node("Relu", [z], [h]))
    return model("mlp", nodes, constants, (task.batch, task.sizes[0]), (task.batch, task.sizes[-1]))
