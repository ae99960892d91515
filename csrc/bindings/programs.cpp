// Prediction, tracing, evaluation, and forward and backward by hand.
#include "bindings/programs.h"

#include <cstring>

#include "core/names.h"
#include "plan/forward.h"

namespace gemmule::bindings {
namespace {

void require_value(const PyGraph& graph, ValueId value) {
  require(value >= 0 && static_cast<std::size_t>(value) < graph.graph.values.size(), ErrorKind::value,
          "the graph has no value ", value);
}

void require_rows(const char* op, Index rows, Index others, const char* what) {
  require(rows == others, ErrorKind::shape, op, ": x has ", rows, " samples, ", what, " ", others);
}

void run_predictor(const Predictor& self, const py::array& x, py::array out) {
  const Graph& g = self.program().graph();
  const Index rows = require_batch(x, g.type, g.info(self.input()).dims, "predict: x");
  require_rows("predict", rows, require_batch(out, g.type, g.info(self.output()).dims, "predict: out", true),
               "out");
  Poll poll = signal_poll();
  const std::byte* from = bytes(x);
  std::byte* to = writable_bytes(out);
  bool done;
  {
    const py::gil_scoped_release release;
    done = self.run(from, rows, to, poll);
  }
  if (!done) raise_pending();
}

std::vector<py::array> run_trace(const PyGraph& graph, const std::vector<ValueId>& values,
                                 const py::array& x) {
  for (ValueId value : values) require_value(graph, value);
  const Graph& g = graph.graph;
  const Index rows = require_batch(x, g.type, g.info(input_of(g)).dims, "trace: x");
  std::vector<py::array> copies(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::vector<Index> shape = g.info(values[i]).dims.dims();
    if (g.info(values[i]).batched) shape.insert(shape.begin(), rows);
    copies[i] = py::array(numpy_dtype(g.info(values[i]).type), shape);
  }
  std::vector<std::byte*> to;
  for (py::array& copy : copies) to.push_back(writable_bytes(copy));
  const std::byte* from = bytes(x);
  {
    const py::gil_scoped_release release;
    trace(g, values, from, rows, [&](std::size_t i, const Operand& value) {
      std::memcpy(to[i], value.data, static_cast<std::size_t>(value.count() * size_of(value.type)));
    });
  }
  return copies;
}

// A tape and the arrays it reads: they must stay until backward has run.
struct PyTape {
  PyTape(const PyGraph& graph, ValueId output, Index capacity) : tape(graph.graph, output, capacity) {}

  void forward(const py::array& x, py::array out, std::uint64_t key, std::uint64_t step) {
    const Graph& g = tape.program().graph();
    const Index rows = require_batch(x, g.type, g.info(tape.input()).dims, "forward: x");
    require_rows("forward", rows,
                 require_batch(out, g.type, g.info(tape.output()).dims, "forward: out", true), "out");
    require(rows <= tape.program().capacity(), ErrorKind::shape, "forward: x has ", rows,
            " samples, the tape ", tape.program().capacity());
    held = x;
    const std::byte* from = bytes(x);
    std::byte* to = writable_bytes(out);
    const py::gil_scoped_release release;
    tape.forward(from, rows, to, {key, step});
  }

  void backward(const py::array& dout, py::array dx) {
    const Graph& g = tape.program().graph();
    require(tape.rows() > 0, ErrorKind::state, "backward: call forward first");
    const Index rows = require_batch(dout, g.type, g.info(tape.output()).dims, "backward: dout");
    require(rows == tape.rows(), ErrorKind::shape, "backward: dout has ", rows,
            " samples, the last forward had ", tape.rows());
    require(rows == require_batch(dx, g.type, g.info(tape.input()).dims, "backward: dx", true),
            ErrorKind::shape, "backward: dx does not fit the input");
    const std::byte* from = bytes(dout);
    std::byte* to = writable_bytes(dx);
    const py::gil_scoped_release release;
    tape.backward(from, to);
  }

  Tape tape;
  py::object held;
};

py::tuple run_evaluator(Evaluator& self, const py::array& x, const py::array& y,
                        const std::optional<py::array>& weights,
                        const std::optional<py::array>& metric_weights) {
  const Graph& g = self.graph();
  const Index rows = require_batch(x, g.type, g.info(input_of(g)).dims, "evaluate: x");
  require(rows > 0, ErrorKind::value, "evaluate: no samples");
  const bool labels = dtype_of(y, "evaluate: y") == DType::i64;
  const Shape& dims = g.info(self.output()).dims;
  require_rows("evaluate", rows,
               labels ? require_labels(y, dims, "evaluate") : require_batch(y, g.type, dims, "evaluate: y"),
               "y");
  const SampleWeights counts = weights_of(weights, metric_weights, rows, "evaluate");
  Poll poll = signal_poll();
  const std::byte *from = bytes(x), *targets = bytes(y);
  std::vector<double> means;
  {
    const py::gil_scoped_release release;
    means = self.run(from, targets, labels, counts, rows, poll);
  }
  if (means.empty()) raise_pending();
  return py::tuple(py::cast(means));
}

}  // namespace

Index require_labels(const py::array& y, const Shape& output, const char* op) {
  const std::string what = std::string(op) + ": labels";
  const Index rows = require_batch(y, DType::i64, Shape{}, what.c_str());
  require(output.rank() == 1, ErrorKind::shape, what, " need one output axis, not ", output);
  const auto* label = static_cast<const std::int64_t*>(y.data());
  for (Index i = 0; i < rows; ++i)
    require(label[i] >= 0 && label[i] < output[0], ErrorKind::value, what, ": y[", i, "] is ", label[i],
            ", classes are 0 to ", output[0] - 1);
  return rows;
}

SampleWeights weights_of(const std::optional<py::array>& loss, const std::optional<py::array>& metrics,
                         Index rows, const char* op) {
  const auto checked = [&](const std::optional<py::array>& weights) -> const double* {
    if (!weights) return nullptr;
    const std::string what = std::string(op) + ": weights";
    require_rows(op, rows, require_batch(*weights, DType::f64, Shape{}, what.c_str()), "weights");
    return static_cast<const double*>(weights->data());
  };
  require(loss || !metrics, ErrorKind::value, op, ": weights of metrics without weights of the loss");
  return {checked(loss), checked(metrics)};
}

std::vector<Metric> metrics_of(const std::vector<std::string>& names) {
  std::vector<Metric> metrics;
  for (const std::string& name : names) metrics.push_back(metric_of(name));
  return metrics;
}

void bind_programs(py::module_& m) {
  py::class_<Predictor>(m, "Predictor")
      .def(py::init([](const PyGraph& graph, ValueId output, Index capacity) {
             require_value(graph, output);
             return std::make_unique<Predictor>(graph.graph, output, capacity);
           }),
           py::arg("graph"), py::arg("output"), py::arg("capacity"))
      .def("run", &run_predictor, py::arg("x"), py::arg("out"))
      .def("describe", [](const Predictor& self) { return self.program().describe("forward"); });

  m.def("trace", &run_trace, py::arg("graph"), py::arg("values"), py::arg("x"));

  py::class_<PyTape>(m, "Tape")
      .def(py::init([](const PyGraph& graph, ValueId output, Index capacity) {
             require_value(graph, output);
             return std::make_unique<PyTape>(graph, output, capacity);
           }),
           py::arg("graph"), py::arg("output"), py::arg("capacity"))
      .def_property_readonly("capacity", [](const PyTape& self) { return self.tape.program().capacity(); })
      .def("forward", &PyTape::forward, py::arg("x"), py::arg("out"), py::arg("key"), py::arg("step"))
      .def("backward", &PyTape::backward, py::arg("dout"), py::arg("dx"))
      .def("describe",
           [](const PyTape& self) { return self.tape.program().describe("forward and backward"); });

  py::class_<Evaluator>(m, "Evaluator")
      .def(py::init([](const PyGraph& graph, ValueId output, const std::string& loss, double parameter,
                       const std::vector<std::string>& metrics, Index capacity) {
             require_value(graph, output);
             return std::make_unique<Evaluator>(graph.graph, output, LossKind{loss_of(loss), parameter},
                                                metrics_of(metrics), capacity);
           }),
           py::arg("graph"), py::arg("output"), py::arg("loss"), py::arg("parameter"), py::arg("metrics"),
           py::arg("capacity"))
      .def("run", &run_evaluator, py::arg("x"), py::arg("y"), py::arg("weights") = py::none(),
           py::arg("metric_weights") = py::none());
}

}  // namespace gemmule::bindings
