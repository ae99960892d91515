#include "bindings/bindings.h"
#include "bindings/windows.h"
#include "core/names.h"

namespace gemmule::bindings {
namespace {

// A Python function's result, copied into the arena: any real array of the right shape will do.
void copy_result(const py::object& result, DType type, const Shape& shape, void* dst, const char* what) {
  const auto array = py::array::ensure(result);
  require(static_cast<bool>(array), ErrorKind::dtype, what, " returned no array");
  const char kind = array.dtype().kind();
  if (kind != 'f' && kind != 'i' && kind != 'u' && kind != 'b')
    fail(ErrorKind::dtype, what, " returned ", py::str(array.dtype()).cast<std::string>(),
         ", not real numbers");
  require(shape_of(array) == shape, ErrorKind::shape, what, " returned shape ", shape_of(array), ", not ",
          shape);
  const py::array target = view(type, shape, dst, py::none());
  target[py::ellipsis()] = array;
}

Shape batch_of(Index rows, const Shape& dims) {
  std::vector<Index> all = {rows};
  all.insert(all.end(), dims.dims().begin(), dims.dims().end());
  return Shape(std::move(all));
}

// Python code gets arrays of its own: a layer may keep what it was given, and the arena moves on.
py::array copy_of(DType type, Index rows, const Shape& dims, const void* data) {
  return py::array(numpy_dtype(type), batch_of(rows, dims).dims(), data);
}

// A Python object that C++ may copy and destroy without the GIL.
std::shared_ptr<py::object> shared(py::object object) {
  return {new py::object(std::move(object)), [](py::object* held) {
            const py::gil_scoped_acquire gil;
            delete held;
          }};
}

ValueId python_op(PyGraph& self, ValueId x, const std::vector<Index>& dims, py::object forward,
                  py::object backward, const std::string& name) {
  Graph& g = self.graph;
  require(x >= 0 && static_cast<std::size_t>(x) < g.values.size(), ErrorKind::value,
          "python: the graph has no value ", x);
  const Shape in = g.info(x).dims, out{std::vector<Index>(dims)};
  const DType type = g.type;
  const auto held_forward = shared(std::move(forward)), held_backward = shared(std::move(backward));
  PythonOp op;
  op.dims = out;
  op.forward = [=](Index rows, const void* x_data, void* y_data) {
    const py::gil_scoped_acquire gil;
    copy_result((*held_forward)(copy_of(type, rows, in, x_data)), type, batch_of(rows, out), y_data,
                (name + ": forward").c_str());
  };
  op.backward = [=](Index rows, const void* dy, const void* x_data, const void* y, void* dx) {
    const py::gil_scoped_acquire gil;
    copy_result((*held_backward)(copy_of(type, rows, out, dy), copy_of(type, rows, in, x_data),
                                 copy_of(type, rows, out, y)),
                type, batch_of(rows, in), dx, (name + ": backward").c_str());
  };
  g.callbacks.push_back(std::move(op));
  Attrs attrs;
  attrs.callback = static_cast<int>(g.callbacks.size()) - 1;
  return g.apply(OpKind::python, {x}, attrs, name);
}

ValueId pool(PyGraph& self, OpKind op, ValueId x, const Window& window, bool count_padding,
             const std::string& name) {
  Graph& g = self.graph;
  require(x >= 0 && static_cast<std::size_t>(x) < g.values.size(), ErrorKind::value,
          "pool: the graph has no value ", x);
  Attrs attrs;
  attrs.window = window;
  attrs.count_padding = count_padding;
  return g.apply(op, {x}, attrs, name);
}

// Statistics of the batch, which then move the running ones along where `track`, or those given.
ValueId batch_norm(PyGraph& self, ValueId x, const std::optional<std::array<ValueId, 2>>& affine,
                   const std::array<ValueId, 2>& running, double eps, double momentum, bool training,
                   const std::string& name) {
  Graph& g = self.graph;
  Attrs attrs;
  attrs.eps = eps;
  ValueId stats;
  if (training) {
    stats = g.apply(OpKind::batch_stats, {x}, attrs, name + " statistics");
    attrs.momentum = momentum;
    for (const Index row : {0, 1}) {
      const Value& state = g.value(running[static_cast<std::size_t>(row)]);
      const int parameter = state.parameter;
      attrs.row = row == 0 ? 0 : 2;  // the mean, the unbiased variance
      const ValueId next = g.apply(OpKind::track, {stats}, attrs, "next " + state.name);
      require(parameter >= 0 && g.info(next).dims == g.info(running[static_cast<std::size_t>(row)]).dims,
              ErrorKind::shape, "batch_norm: running statistics do not fit x ", g.info(x).dims);
      g.value(next).home = Home::next_state;
      g.value(next).parameter = parameter;
    }
  } else {
    stats = g.apply(OpKind::running_stats, {running[0], running[1]}, attrs, name + " statistics");
  }
  std::vector<ValueId> in{x, stats};
  if (affine) in.insert(in.end(), affine->begin(), affine->end());
  attrs = {};
  attrs.affine = affine.has_value();
  attrs.constant = !training;
  return g.apply(OpKind::batch_norm, std::move(in), attrs, name);
}

// Over the last `axes` axes, or where that is 0 over groups of channels.
ValueId group_norm(PyGraph& self, ValueId x, const std::optional<std::array<ValueId, 2>>& affine,
                   Index groups, Index axes, double eps, const std::string& name) {
  std::vector<ValueId> in{x};
  if (affine) in.insert(in.end(), affine->begin(), affine->end());
  Attrs attrs;
  attrs.affine = affine.has_value();
  attrs.groups = groups;
  attrs.axes = axes;
  attrs.eps = eps;
  return self.graph.apply(OpKind::group_norm, std::move(in), attrs, name);
}

// Functions of (prediction, target), each with arrays of its own.
void set_custom_loss(PyGraph& self, ValueId output, py::object value, py::object gradient) {
  Graph& g = self.graph;
  require(output >= 0 && static_cast<std::size_t>(output) < g.values.size(), ErrorKind::value,
          "custom_loss: the graph has no value ", output);
  const Shape dims = g.info(output).dims;
  const DType type = g.type;
  const auto held_value = shared(std::move(value)), held_gradient = shared(std::move(gradient));
  const auto call = [=](const py::object& f, Index rows, const void* pred, const void* target, bool labels) {
    return f(copy_of(type, rows, dims, pred),
             labels ? copy_of(DType::i64, rows, Shape{}, target) : copy_of(type, rows, dims, target));
  };
  g.custom_loss.value = [=](Index rows, const void* pred, const void* target, bool labels, double* losses) {
    const py::gil_scoped_acquire gil;
    copy_result(call(*held_value, rows, pred, target, labels), DType::f64, Shape{rows}, losses,
                "custom loss: value");
  };
  g.custom_loss.gradient = [=](Index rows, const void* pred, const void* target, bool labels, void* dpred) {
    const py::gil_scoped_acquire gil;
    copy_result(call(*held_gradient, rows, pred, target, labels), type, batch_of(rows, dims), dpred,
                "custom loss: gradient");
  };
}

}  // namespace

PyGraph::PyGraph(const std::string& dtype) : graph(gemmule::dtype_of(dtype)) {}

void bind_graph(py::module_& m) {
  py::class_<PyGraph> graph(m, "Graph");
  bind_layout(graph, m);
  graph.def(py::init<const std::string&>(), py::arg("dtype"))
      .def(
          "input",
          [](PyGraph& self, const std::vector<Index>& dims, const std::string& name) {
            return self.graph.input(Shape(dims), name, self.graph.type);
          },
          py::arg("dims"), py::arg("name") = "x")
      .def(
          "parameter",
          [](PyGraph& self, std::shared_ptr<Store> store, int segment, const std::vector<Index>& shape,
             bool trainable, const std::string& name) {
            return self.graph.parameter(std::move(store), segment, Shape(shape), trainable, name);
          },
          py::arg("store"), py::arg("segment"), py::arg("shape"), py::arg("trainable"), py::arg("name"))
      .def(
          "dense",
          [](PyGraph& self, ValueId x, ValueId weight, std::optional<ValueId> bias, const std::string& name,
             const std::string& precision) {
            std::vector<ValueId> in = {x, weight};
            if (bias) in.push_back(*bias);
            Attrs attrs;
            attrs.precision = precision_of(precision);
            return self.graph.apply(OpKind::dense, in, attrs, name);
          },
          py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("name"), py::arg("precision") = "full")
      .def(
          "conv2d",
          [](PyGraph& self, ValueId x, ValueId weight, std::optional<ValueId> bias, const Pair& stride,
             const Padding& padding, const Pair& dilation, Index groups, const std::string& name,
             bool strict) {
            std::vector<ValueId> in = {x, weight};
            if (bias) in.push_back(*bias);
            Attrs attrs;
            attrs.window = window_of(kernel_of(self.graph.info(weight).dims), stride, padding, dilation);
            attrs.groups = groups;
            attrs.strict = strict;
            return self.graph.apply(OpKind::conv2d, in, attrs, name);
          },
          py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"),
          py::arg("dilation"), py::arg("groups"), py::arg("name"), py::arg("strict") = false)
      .def(
          "activation",
          [](PyGraph& self, ValueId x, const std::string& kind, double slope, const std::string& name) {
            Attrs attrs;
            attrs.act = act_of(kind);
            attrs.slope = slope;
            return self.graph.apply(OpKind::activation, {x}, attrs, name);
          },
          py::arg("x"), py::arg("kind"), py::arg("slope"), py::arg("name"))
      .def(
          "softmax",
          [](PyGraph& self, ValueId x, const std::string& name) {
            return self.graph.apply(OpKind::softmax, {x}, {}, name);
          },
          py::arg("x"), py::arg("name"))
      .def(
          "dropout",
          [](PyGraph& self, ValueId x, double rate, std::uint32_t layer, const std::string& name) {
            require(rate >= 0 && rate < 1, ErrorKind::value, "dropout: rate is ", rate, ", not in [0, 1)");
            Attrs attrs;
            attrs.rate = rate;
            attrs.layer = layer;
            return self.graph.apply(OpKind::dropout, {x}, attrs, name);
          },
          py::arg("x"), py::arg("rate"), py::arg("layer"), py::arg("name"))
      .def(
          "reshape",
          [](PyGraph& self, ValueId x, const std::vector<Index>& dims, const std::string& name) {
            Attrs attrs;
            attrs.dims = dims;
            return self.graph.apply(OpKind::reshape, {x}, attrs, name);
          },
          py::arg("x"), py::arg("dims"), py::arg("name"))
      .def(
          "add",
          [](PyGraph& self, ValueId a, ValueId b, const std::string& name) {
            return self.graph.apply(OpKind::add, {a, b}, {}, name);
          },
          py::arg("a"), py::arg("b"), py::arg("name"))
      .def(
          "max_pool2d",
          [](PyGraph& self, ValueId x, const Pair& kernel, const Pair& stride, const Padding& padding,
             const std::string& name) {
            return pool(self, OpKind::max_pool, x, window_of(kernel, stride, padding), true, name);
          },
          py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("name"))
      .def(
          "avg_pool2d",
          [](PyGraph& self, ValueId x, const Pair& kernel, const Pair& stride, const Padding& padding,
             bool count_padding, const std::string& name) {
            return pool(self, OpKind::avg_pool, x, window_of(kernel, stride, padding), count_padding, name);
          },
          py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("count_padding"),
          py::arg("name"))
      .def("batch_norm", &batch_norm, py::arg("x"), py::arg("affine"), py::arg("running"), py::arg("eps"),
           py::arg("momentum"), py::arg("training"), py::arg("name"))
      .def("group_norm", &group_norm, py::arg("x"), py::arg("affine"), py::arg("groups"), py::arg("axes"),
           py::arg("eps"), py::arg("name"))
      .def("python", &python_op, py::arg("x"), py::arg("dims"), py::arg("forward"), py::arg("backward"),
           py::arg("name"))
      .def("custom_loss", &set_custom_loss, py::arg("output"), py::arg("value"), py::arg("gradient"))
      .def(
          "dims",
          [](const PyGraph& self, ValueId value) {
            require(value >= 0 && static_cast<std::size_t>(value) < self.graph.values.size(),
                    ErrorKind::value, "the graph has no value ", value);
            return py::tuple(py::cast(self.graph.info(value).dims.dims()));
          },
          py::arg("value"));
}

}  // namespace gemmule::bindings
