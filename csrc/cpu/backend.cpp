// The CPU's side of backend.h: each op of the graph in terms of the active kernel table.
#include "backend.h"

#include <algorithm>

#include "cpu/dispatch.h"
#include "cpu/gemm.h"
#include "cpu/ops.h"
#include "cpu/panels.h"
#include "cpu/update.h"

namespace gemmule::cpu {
namespace {

template <class T>
MatrixView<const T> matrix(const Operand& x) {
  return {x.as<const T>(), x.rows, x.cols, x.cols, 1};
}

template <class T>
void run_gemm(const OpCall& call, Gemm<T> g) {
  g.c = call.out.as<T>();
  g.c_row = g.b.cols;
  g.beta = adds(call) ? T(1) : T(0);
  gemm(kernels<T>(), call.team, g, call.workspace);
}

// The address of a listed operand is its table's.
template <class T>
void list_a(Gemm<T>& g, Form form) {
  g.a_form = form;
  g.a_list = reinterpret_cast<const T* const*>(g.a.data);
}

template <class T>
Gemm<T> dense_gemm(const OpCall& call) {
  Gemm<T> g;
  g.a = matrix<T>(call.in[0]);
  if (call.in[0].listed) list_a(g, Form::listed_rows);
  g.b = matrix<T>(call.in[1]).transposed();
  if (call.in[1].panels) g.b_form = Form::panels;
  g.bias = call.in.size() > 2 ? call.in[2].as<const T>() : nullptr;
  g.act = call.attrs.act;
  g.slope = static_cast<T>(call.attrs.slope);
  g.precision = call.attrs.precision;
  return g;
}

template <class T>
Gemm<T> matmul_gemm(const OpCall& call) {
  Gemm<T> g;
  g.a = matrix<T>(call.in[0]);
  g.b = matrix<T>(call.in[1]);
  if (call.in[1].panels) g.b_form = Form::panels_of_transpose;
  if (call.attrs.trans_a) g.a = g.a.transposed();
  if (call.attrs.trans_b) g.b = g.b.transposed();
  if (call.out.panels) {  // dW = dz^T x, made as its transpose x^T dz
    std::swap(g.a, g.b);
    g.a = g.a.transposed();
    g.b = g.b.transposed();
    g.c_form = Form::panels;
    if (call.in[1].listed) list_a(g, Form::listed_columns);
  }
  if (call.in.size() > 2) {
    g.saved = call.in[2].as<const T>();
    g.act = call.attrs.act;
    g.slope = static_cast<T>(call.attrs.slope);
  }
  g.precision = call.attrs.precision;
  return g;
}

template <class T>
void dense(const OpCall& call) {
  run_gemm<T>(call, dense_gemm<T>(call));
}

// The optimizer's step on a stretch of a parameter, `count` elements from `offset` on, whose gradient was
// just made.
template <class T>
void update_stretch(const UpdateCall& call, Index offset, Index count, const T* grad) {
  const auto at = [&](std::byte* base) { return base ? reinterpret_cast<T*>(base) + offset : nullptr; };
  T* slots[max_slots];
  for (int k = 0; k < max_slots; ++k) slots[k] = at(call.target.slots[k]);
  call.reach = std::max(call.reach, kernels<T>().element.update(call.rule, call.args, count,
                                                                at(call.target.value), grad, slots));
}

template <class T>
struct Updater : Listener<T> {
  explicit Updater(const UpdateCall& wanted)
      : Listener<T>{[](const Listener<T>& self, Index offset, Index count, const T* grad) {
                      update_stretch(static_cast<const Updater&>(self).call, offset, count, grad);
                    },
                    wanted.keep_gradient, reinterpret_cast<const T*>(wanted.target.value)},
        call(wanted) {}
  const UpdateCall& call;
};

template <class T>
void matmul(const OpCall& call) {
  Gemm<T> g = matmul_gemm<T>(call);
  if (!call.update) return run_gemm<T>(call, g);
  if (gemm_tells(kernels<T>(), g)) {
    const Updater<T> updater(*call.update);
    g.listener = &updater;
    return run_gemm<T>(call, g);
  }
  // Other paths cut C in their own ways, and are those of small gradients.
  run_gemm<T>(call, g);
  call.team.barrier();
  const Span part = call.team.share(call.out.count(), line);
  update_stretch(*call.update, part.begin, part.size(), call.out.as<const T>() + part.begin);
}

template <class T>
void sum_rows(const OpCall& call) {
  const Operand& x = call.in[0];
  const Index n = call.out.count();
  const Span cols = call.team.share(n, line);
  kernels<T>().element.sum_rows(n > 0 ? x.count() / n : 0, cols.size(), x.as<const T>() + cols.begin, n,
                                call.out.as<T>() + cols.begin, adds(call));
  if (call.update) update_stretch(*call.update, cols.begin, cols.size(), call.out.as<const T>() + cols.begin);
}

template <class T>
void activation(const OpCall& call) {
  const Span part = call.team.share(call.out.count(), line);
  kernels<T>().element.activation(call.attrs.act, static_cast<T>(call.attrs.slope), part.size(),
                                  call.in[0].as<const T>() + part.begin, call.out.as<T>() + part.begin);
}

template <class T>
void activation_grad(const OpCall& call) {
  const Span part = call.team.share(call.out.count(), line);
  kernels<T>().element.activation_grad(call.attrs.act, static_cast<T>(call.attrs.slope), part.size(),
                                       call.in[0].as<const T>() + part.begin,
                                       call.in[1].as<const T>() + part.begin, call.out.as<T>() + part.begin);
}

template <class T>
void softmax(const OpCall& call) {
  const Index cols = call.out.inner;
  const Span rows = call.team.share(cols > 0 ? call.out.count() / cols : 0);
  kernels<T>().element.softmax(rows.size(), cols, call.in[0].as<const T>() + rows.begin * cols,
                               call.out.as<T>() + rows.begin * cols);
}

template <class T>
void softmax_grad(const OpCall& call) {
  const Index cols = call.out.inner;
  const Span rows = call.team.share(cols > 0 ? call.out.count() / cols : 0);
  const Index at = rows.begin * cols;
  kernels<T>().element.softmax_grad(rows.size(), cols, call.in[0].as<const T>() + at,
                                    call.in[1].as<const T>() + at, call.out.as<T>() + at);
}

template <class T>
void dropout(const OpCall& call) {
  const Index cols = call.out.cols;
  const Span rows = call.team.share(call.out.rows);
  DropoutArgs args;
  args.key = call.scalars.key;
  args.step = call.scalars.step;
  args.layer = call.attrs.layer;
  args.rate = call.attrs.rate;
  kernels<T>().element.dropout(args, call.scalars.before + rows.begin, rows.size(), cols,
                               call.in[0].as<const T>() + rows.begin * cols,
                               call.out.as<T>() + rows.begin * cols);
}

template <class T>
void add(const OpCall& call) {
  const Span part = call.team.share(call.out.count(), line);
  const T* other = call.in[1].as<const T>() + part.begin;
  if (call.attrs.accumulate && !adds(call))  // to a gradient that begins here
    std::copy_n(other, std::max<Index>(part.size(), 0), call.out.as<T>() + part.begin);
  else
    kernels<T>().element.add(part.size(), call.in[0].as<const T>() + part.begin, other,
                             call.out.as<T>() + part.begin);
}

// A member's rows of prediction and target.
template <class T>
LossArgs<T> loss_args(const OpCall& call, Span rows) {
  const Operand &pred = call.in[0], &target = call.in[1];
  const bool labels = target.type == DType::i64;
  const Index at = rows.begin * (labels ? 1 : target.cols);
  LossArgs<T> args;
  args.loss = call.attrs.loss;
  args.parameter = static_cast<T>(call.attrs.parameter);
  args.rows = rows.size();
  args.cols = pred.cols;
  args.pred = pred.as<const T>() + rows.begin * pred.cols;
  args.target = static_cast<const std::byte*>(target.data) + at * size_of(target.type);
  args.labels = labels;
  return args;
}

template <class T>
void loss(const OpCall& call) {
  const Span rows = call.team.share(call.in[0].rows);
  kernels<T>().element.loss(loss_args<T>(call, rows), call.out.as<double>() + rows.begin);
}

template <class T>
void loss_grad(const OpCall& call) {
  const Operand& pred = call.in[0];
  const Span rows = call.team.share(pred.rows);
  const T* shares = call.in.size() > 2 ? call.in[2].as<const T>() + rows.begin : nullptr;
  const T mean = T(1) / static_cast<T>(call.scalars.samples(pred.rows));
  kernels<T>().element.loss_grad(loss_args<T>(call, rows), mean, shares,
                                 call.out.as<T>() + rows.begin * pred.cols);
}

void nothing(const OpCall&) {}  // a reshape is its input under another name

template <class T>
CpuOp op_of(OpKind op) {
  constexpr auto dense_workspace = [](const OpCall& call) {
    return gemm_workspace(kernels<T>(), dense_gemm<T>(call));
  };
  constexpr auto dense_path = [](const OpCall& call) { return gemm_path(kernels<T>(), dense_gemm<T>(call)); };
  constexpr auto matmul_workspace = [](const OpCall& call) {
    return gemm_workspace(kernels<T>(), matmul_gemm<T>(call));
  };
  constexpr auto matmul_path = [](const OpCall& call) {
    return gemm_path(kernels<T>(), matmul_gemm<T>(call));
  };
  switch (op) {
    case OpKind::dense:
      return {dense<T>, dense_workspace, dense_path};
    case OpKind::matmul:
      return {matmul<T>, matmul_workspace, matmul_path};
    case OpKind::sum_rows:
      return {sum_rows<T>};
    case OpKind::activation:
      return {activation<T>};
    case OpKind::activation_grad:
      return {activation_grad<T>};
    case OpKind::softmax:
      return {softmax<T>};
    case OpKind::softmax_grad:
      return {softmax_grad<T>};
    case OpKind::dropout:
      return {dropout<T>};
    case OpKind::add:
      return {add<T>};
    case OpKind::loss:
      return {loss<T>};
    case OpKind::loss_grad:
      return {loss_grad<T>};
    case OpKind::reshape:
      return {nothing, nullptr, [](const OpCall&) { return "view"; }};
    case OpKind::python:
    case OpKind::python_grad:
    case OpKind::python_loss:
    case OpKind::python_loss_grad:
      return {};  // the plan's own
    default:
      break;
  }
  for (const auto family : {image_op<T>, norm_op<T>, group_norm_op<T>})
    if (const CpuOp found = family(op); found.run) return found;
  return layout_op<T>(op);
}

CpuOp op_of(OpKind op, DType type) { return type == DType::f64 ? op_of<double>(op) : op_of<float>(op); }

template <class T>
double max_abs(const Operand& x, const Team& team) {
  if (x.listed) {
    const Span part = team.share(x.rows);
    double size = 0;
    for (Index i = part.begin; i < part.end; ++i)
      size = std::max(size, kernels<T>().element.max_abs(x.cols, x.as<const T* const>()[i]));
    return size;
  }
  const Span part = team.share(x.count(), line);
  return kernels<T>().element.max_abs(part.size(), x.as<const T>() + part.begin);
}

template <class T>
void scale_bytes(Index count, const std::uint8_t* src, double scale, std::byte* dst) {
  kernels<T>().element.scale_bytes(count, src, static_cast<T>(scale), reinterpret_cast<T*>(dst));
}

// Weights (rows, cols) are the transpose of what multiplies.
template <class T>
void weights_to_panels(Index rows, Index cols, const void* matrix, void* panels, const Team& team) {
  to_panels(kernels<T>().gemm, team, {static_cast<const T*>(matrix), cols, rows, 1, cols},
            static_cast<T*>(panels));
}

template <class T>
void weights_from_panels(Index rows, Index cols, const void* panels, void* matrix, const Team& team) {
  from_panels_of_transpose(kernels<T>().gemm, team, cols, rows, static_cast<const T*>(panels),
                           static_cast<T*>(matrix));
}

}  // namespace

const Backend backend = {
    "cpu",
    [](OpKind op, DType type) { return op_of(op, type).run; },
    [](OpKind op, DType type, const OpCall& call) {
      const auto workspace = op_of(op, type).workspace;
      return workspace ? workspace(call) : 0;
    },
    [](OpKind op, DType type, const OpCall& call) {
      const auto path = op_of(op, type).path;
      return path ? path(call) : "vector";
    },
    [] { return active().name; },
    update,
    rehearse,
    sum_squares,
    axpby,
    max_gradient,
    [](const Operand& x, const Team& team) {
      return x.type == DType::f64 ? max_abs<double>(x, team) : max_abs<float>(x, team);
    },
    [](DType type, Index count, const std::uint8_t* src, double scale, std::byte* dst) {
      (type == DType::f64 ? scale_bytes<double> : scale_bytes<float>)(count, src, scale, dst);
    },
    [](DType type, Index cols) {
      return type == DType::f64 ? most_columns_of_listed<double>(cols) : most_columns_of_listed<float>(cols);
    },
    [](DType type, Index rows, Index cols, const void* matrix, void* panels, const Team& team) {
      (type == DType::f64 ? weights_to_panels<double> : weights_to_panels<float>)(rows, cols, matrix, panels,
                                                                                  team);
    },
    [](DType type, Index rows, Index cols, const void* panels, void* matrix, const Team& team) {
      (type == DType::f64 ? weights_from_panels<double> : weights_from_panels<float>)(rows, cols, panels,
                                                                                      matrix, team);
    },
    [](DType type, Index rows, Index cols) {
      return type == DType::f64 ? panel_elements(kernels<double>().gemm, cols, rows)
                                : panel_elements(kernels<float>().gemm, cols, rows);
    },
};

}  // namespace gemmule::cpu
