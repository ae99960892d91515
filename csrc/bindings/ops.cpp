// Elementwise kernels, softmax and losses on NumPy arrays.
#include "bindings/programs.h"
#include "bindings/real_arrays.h"
#include "core/activations.h"
#include "core/losses.h"
#include "core/names.h"
#include "cpu/dispatch.h"

namespace gemmule::bindings {
namespace {

// (rows, cols) with the last axis as cols.
struct Matrix {
  Matrix(const py::array& x, const char* op) {
    require(x.ndim() >= 1, ErrorKind::shape, op, " has no axis");
    cols = x.shape(x.ndim() - 1);
    rows = cols > 0 ? x.size() / cols : 0;
  }
  Index rows, cols;
};

constexpr Index line = 16;          // floats on a cache line
constexpr double elementwise = 10;  // operations an element, about

// Runs body(part) over [0, count) on a team where `work` operations are worth one.
template <class Body>
void in_parallel(Index count, double work, Index grain, const Body& body) {
  on_team(work, [&](const Team& team) { body(team.share(count, grain)); });
}

template <class Kernel>
void unary(const char* what, const py::array& x, py::array& out, const Kernel& kernel) {
  for_type(x, what, [&]<class T>(T) {
    require_like(x, x, what);
    require_like(out, x, "out", true);
    const T* from = data<T>(x);
    T* to = writable<T>(out);
    in_parallel(x.size(), elementwise * static_cast<double>(x.size()), line,
                [&](Span s) { kernel(cpu::kernels<T>().element, s.size(), from + s.begin, to + s.begin); });
  });
}

void scale_bytes(const py::array& x, double scale, py::array out) {
  require_array(x, DType::u8, "scale_bytes: x");
  for_type(out, "scale_bytes: out", [&]<class T>(T) {
    require_like(out, out, "scale_bytes: out", true);
    require(shape_of(out) == shape_of(x), ErrorKind::shape, "scale_bytes: out has shape ", shape_of(out),
            ", not ", shape_of(x));
    const auto* from = static_cast<const std::uint8_t*>(x.data());
    T* to = writable<T>(out);
    in_parallel(x.size(), static_cast<double>(x.size()), line, [&](Span s) {
      if (s.size() > 0)
        cpu::kernels<T>().element.scale_bytes(s.size(), from + s.begin, static_cast<T>(scale), to + s.begin);
    });
  });
}

void activation_grad(const std::string& kind, double slope, const py::array& dh, const py::array& saved,
                     py::array out) {
  const Act act = act_of(kind);
  for_type(dh, "activation_grad: dh", [&]<class T>(T) {
    require_like(dh, dh, "activation_grad: dh");
    require_like(saved, dh, "activation_grad: saved");
    require_like(out, dh, "activation_grad: out", true);
    const T *grad = data<T>(dh), *kept = data<T>(saved);
    T* to = writable<T>(out);
    in_parallel(dh.size(), elementwise * static_cast<double>(dh.size()), line, [&](Span s) {
      cpu::kernels<T>().element.activation_grad(act, static_cast<T>(slope), s.size(), grad + s.begin,
                                                kept + s.begin, to + s.begin);
    });
  });
}

void softmax(const py::array& z, py::array out) {
  for_type(z, "softmax: z", [&]<class T>(T) {
    require_like(z, z, "softmax: z");
    require_like(out, z, "softmax: out", true);
    const Matrix m(z, "softmax: z");
    const T* from = data<T>(z);
    T* to = writable<T>(out);
    in_parallel(m.rows, elementwise * static_cast<double>(z.size()), 1, [&](Span s) {
      cpu::kernels<T>().element.softmax(s.size(), m.cols, from + s.begin * m.cols, to + s.begin * m.cols);
    });
  });
}

void softmax_grad(const py::array& dh, const py::array& h, py::array out) {
  for_type(dh, "softmax_grad: dh", [&]<class T>(T) {
    require_like(dh, dh, "softmax_grad: dh");
    require_like(h, dh, "softmax_grad: h");
    require_like(out, dh, "softmax_grad: out", true);
    const Matrix m(dh, "softmax_grad: dh");
    const T *grad = data<T>(dh), *kept = data<T>(h);
    T* to = writable<T>(out);
    in_parallel(m.rows, elementwise * static_cast<double>(dh.size()), 1, [&](Span s) {
      const Index at = s.begin * m.cols;
      cpu::kernels<T>().element.softmax_grad(s.size(), m.cols, grad + at, kept + at, to + at);
    });
  });
}

void dropout(const py::array& x, py::array out, double rate, std::uint64_t key, std::uint64_t step,
             std::uint32_t layer) {
  require(rate >= 0 && rate < 1, ErrorKind::value, "dropout: rate is ", rate, ", not in [0, 1)");
  for_type(x, "dropout: x", [&]<class T>(T) {
    require_like(x, x, "dropout: x");
    require_like(out, x, "dropout: out", true);
    require(x.ndim() >= 1, ErrorKind::shape, "dropout: x has no batch axis");
    const Index rows = x.shape(0), cols = rows > 0 ? x.size() / rows : 0;
    const T* from = data<T>(x);
    T* to = writable<T>(out);
    cpu::DropoutArgs args;
    args.key = key;
    args.step = step;
    args.layer = layer;
    args.rate = rate;
    in_parallel(rows, elementwise * static_cast<double>(x.size()), 1, [&](Span s) {
      cpu::kernels<T>().element.dropout(args, s.begin, s.size(), cols, from + s.begin * cols,
                                        to + s.begin * cols);
    });
  });
}

void sum_rows(const py::array& x, py::array out, bool accumulate) {
  for_type(x, "sum_rows: x", [&]<class T>(T) {
    require_like(x, x, "sum_rows: x");
    require(x.ndim() == 2, ErrorKind::shape, "sum_rows: x ", shape_of(x), " is not a matrix");
    require_array(out, dtype_of(x, "x"), "sum_rows: out", true);
    require(shape_of(out) == Shape{x.shape(1)}, ErrorKind::shape, "sum_rows: out ", shape_of(out),
            " does not fit x ", shape_of(x));
    const Index rows = x.shape(0), cols = x.shape(1);
    const T* from = data<T>(x);
    T* to = writable<T>(out);
    in_parallel(cols, static_cast<double>(x.size()), line, [&](Span s) {
      cpu::kernels<T>().element.sum_rows(rows, s.size(), from + s.begin, cols, to + s.begin, accumulate);
    });
  });
}

// Prediction (rows, cols) and its target, checked.
struct LossArrays {
  LossArrays(Loss which, double value, const py::array& pred, const py::array& target)
      : loss(which), parameter(value) {
    require(loss != Loss::custom, ErrorKind::value, "loss: custom has no kernel");
    require_like(pred, pred, "loss: pred");
    require(pred.ndim() == 2 && pred.shape(0) > 0, ErrorKind::shape, "loss: pred ", shape_of(pred),
            " is not a batch (N, outputs)");
    rows = pred.shape(0);
    cols = pred.shape(1);
    labels = dtype_of(target, "loss: target") == DType::i64;
    if (!labels) {
      require_like(target, pred, "loss: target");
      return;
    }
    require(takes_labels(loss) && cols > 1, ErrorKind::dtype, "loss: ", name_of(loss),
            " takes real targets, not int64 labels");
    const Index count = require_labels(target, Shape{cols}, "loss");
    require(count == rows, ErrorKind::shape, "loss: pred has ", rows, " samples, target ", count);
  }
  template <class T>
  cpu::LossArgs<T> args(const py::array& pred, const py::array& target) const {
    return {loss, static_cast<T>(parameter), rows, cols, data<T>(pred), target.data(), labels};
  }
  Loss loss;
  double parameter;
  Index rows, cols;
  bool labels;
};

double loss(const std::string& kind, double parameter, const py::array& pred, const py::array& target) {
  const Loss which = loss_of(kind);
  double mean = 0;
  for_type(pred, "loss: pred", [&]<class T>(T) {
    const LossArrays x(which, parameter, pred, target);
    std::vector<double> samples(static_cast<std::size_t>(x.rows));
    cpu::kernels<T>().element.loss(x.args<T>(pred, target), samples.data());
    for (double sample : samples) mean += sample;
    mean /= static_cast<double>(x.rows);
  });
  return mean;
}

void loss_grad(const std::string& kind, double parameter, const py::array& pred, const py::array& target,
               py::array out) {
  const Loss which = loss_of(kind);
  for_type(pred, "loss: pred", [&]<class T>(T) {
    const LossArrays x(which, parameter, pred, target);
    require_like(out, pred, "loss: out", true);
    cpu::kernels<T>().element.loss_grad(x.args<T>(pred, target), T(1) / static_cast<T>(x.rows), nullptr,
                                        writable<T>(out));
  });
}

}  // namespace

void bind_ops(py::module_& m) {
  m.def(
      "activation",
      [](const std::string& kind, double slope, const py::array& z, py::array out) {
        const Act act = act_of(kind);
        unary("activation: z", z, out,
              [&]<class T>(const cpu::ElementKernels<T>& k, Index n, const T* x, T* y) {
                k.activation(act, static_cast<T>(slope), n, x, y);
              });
      },
      py::arg("kind"), py::arg("slope"), py::arg("z"), py::arg("out"));
  m.def("activation_grad", &activation_grad, py::arg("kind"), py::arg("slope"), py::arg("dh"),
        py::arg("saved"), py::arg("out"));
  m.def(
      "activation_saves_input", [](const std::string& kind) { return saves_input(act_of(kind)); },
      py::arg("kind"));
  m.def(
      "exp",
      [](const py::array& x, py::array out) {
        unary("exp: x", x, out,
              []<class T>(const cpu::ElementKernels<T>& k, Index n, const T* a, T* b) { k.exp(n, a, b); });
      },
      py::arg("x"), py::arg("out"));
  m.def(
      "erf",
      [](const py::array& x, py::array out) {
        unary("erf: x", x, out,
              []<class T>(const cpu::ElementKernels<T>& k, Index n, const T* a, T* b) { k.erf(n, a, b); });
      },
      py::arg("x"), py::arg("out"));
  m.def("scale_bytes", &scale_bytes, py::arg("x"), py::arg("scale"), py::arg("out"));
  m.def("softmax", &softmax, py::arg("z"), py::arg("out"));
  m.def("softmax_grad", &softmax_grad, py::arg("dh"), py::arg("h"), py::arg("out"));
  m.def("dropout", &dropout, py::arg("x"), py::arg("out"), py::arg("rate"), py::arg("key"), py::arg("step"),
        py::arg("layer"));
  m.def("sum_rows", &sum_rows, py::arg("x"), py::arg("out"), py::arg("accumulate"));
  m.def("loss", &loss, py::arg("kind"), py::arg("parameter"), py::arg("pred"), py::arg("target"));
  m.def("loss_grad", &loss_grad, py::arg("kind"), py::arg("parameter"), py::arg("pred"), py::arg("target"),
        py::arg("out"));
}

}  // namespace gemmule::bindings
