"""ONNX Runtime: inference on the model that a converter would write, a Gemm and a Relu per layer."""

import importlib
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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    model = _model(task).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (x,) = task.data
    names, inputs = ["y"], {"x": x}
    task.check(session.run(names, inputs)[0])
    return repeated("run(names, inputs)", run=session.run, names=names, inputs=inputs)


def _model(task: Infer) -> Any:
    make, float_type = onnx.helper, onnx.TensorProto.FLOAT
    nodes, constants, h = [], [], "x"
    layers = task.weights()
    for index, (weight, bias) in enumerate(layers):
        last = index == len(layers) - 1
        z = "y" if last else f"z{index}"
        constants += [onnx.numpy_helper.from_array(weight, f"weight{index}")]
        constants += [onnx.numpy_helper.from_array(bias, f"bias{index}")]
        nodes.append(make.make_node("Gemm", [h, f"weight{index}", f"bias{index}"], [z], transB=1))
        if not last:
            h = f"h{index}"
            nodes.append(make.make_node("Relu", [z], [h]))
    ends = [
        make.make_tensor_value_info(name, float_type, [task.batch, width])
        for name, width in (("x", task.sizes[0]), ("y", task.sizes[-1]))
    ]
    graph = make.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    opset = make.make_opsetid("", _OPSET)
    return make.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
