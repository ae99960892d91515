// What a network does: ops in single-assignment form. A node reads values and makes one, some also a second
// that their adjoints read; nodes stand in the order they run. Shapes never count the batch: a batched value
// has `rows` of them at run time.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/kinds.h"
#include "core/resize.h"
#include "core/store.h"
#include "core/tensor.h"
#include "core/window.h"

namespace gemmule {

enum class OpKind : std::uint8_t {
  dense,
  matmul,
  conv2d,
  conv2d_data,
  conv2d_weights,
  sum_rows,
  activation,
  activation_grad,
  softmax,
  softmax_grad,
  dropout,
  channel_dropout,
  reshape,
  add,
  max_pool,
  max_pool_grad,
  avg_pool,
  avg_pool_grad,
  pad,
  crop,
  resize,
  resize_grad,
  concat,
  slice,
  batch_stats,
  running_stats,
  track,
  batch_norm,
  batch_norm_sums,
  batch_norm_grad,
  fold_norm,
  group_norm,
  group_norm_sums,
  group_norm_grad,
  row,
  python,
  python_grad,
  loss,
  loss_grad,
  python_loss,
  python_loss_grad,
};

using ValueId = int;
inline constexpr ValueId no_value = -1;

// What an op needs beside its inputs. Each op reads its own fields; graph/ops/ says which.
struct Attrs {
  Act act = Act::identity;
  double slope = 1;
  bool trans_a = false, trans_b = false;
  Precision precision = Precision::full;
  double rate = 0;
  std::uint32_t layer = 0;
  Loss loss = Loss::mse;
  double parameter = 0;  // of the loss
  int callback = -1;
  std::vector<Index> dims;  // of a reshape's or resize's result, or of the image that an adjoint makes
  Window window;
  Index groups = 1;
  bool strict = false;        // a convolution: plain sums of products alone
  bool count_padding = true;  // whether an average is taken over a window's padding too
  bool accumulate = false;    // add to what `out` holds, unless a step begins: StepScalars::first
  double eps = 0, momentum = 0;
  Index row = 0;
  Index axes = 0;  // the last ones, over which a sample is normalized
  Resize resize = Resize::nearest;
  std::array<double, 2> scale{};  // ResizeAxis::scale, down and across
  Index first = 0;                // channel of a slice
  // Which inputs of a normalization, or of what it was folded into, there are; see graph/ops/batch_norm.cpp.
  bool affine = false, residual = false, constant = false, scaled = false;
  // A conv2d_data that is a layer's op: its third input may be a bias, and `act` is applied to what it makes.
  bool transposed = false;
};

struct ValueInfo {
  Shape dims;
  bool batched = true;
  DType type = DType::f32;
};

// Where a value lives.
enum class Home : std::uint8_t {
  arena,       // within a step
  external,    // bound by the caller, or gathered (or listed) by the training loop
  parameter,   // in a Store
  gradient,    // beside it
  next_state,  // in the place of the gradient of what is not trained but moved along, see StateUpdate
};

struct Value {
  ValueInfo info;
  std::string name;
  Home home = Home::arena;
  int parameter = -1;   // index into Graph::parameters for the homes parameter, gradient and next_state
  bool listed = false;  // its rows lie apart, bound as a table of their addresses, see prefer_listed
};

struct Node {
  OpKind op;
  std::vector<ValueId> in;
  ValueId out;
  Attrs attrs;
  ValueId also = no_value;  // the second value, where the op has one and somebody reads it
};

struct ParameterRef {
  std::shared_ptr<Store> store;
  int segment;
  bool trainable;
  ValueId value;
  bool panels = false;  // it and its gradient lie in the backend's panels, see prefer_panels
};

// A whole batch through Python: rows and the arrays' addresses. Entered with no team alive; may throw.
struct PythonOp {
  std::function<void(Index rows, const void* x, void* y)> forward;
  std::function<void(Index rows, const void* dy, const void* x, const void* y, void* dx)> backward;
  Shape dims;  // of y
};

// A loss in Python: of each sample, and its derivative in the prediction. `target` is labels or like `pred`.
struct PythonLoss {
  std::function<void(Index rows, const void* pred, const void* target, bool labels, double* losses)> value;
  std::function<void(Index rows, const void* pred, const void* target, bool labels, void* dpred)> gradient;
};

struct Graph {
  explicit Graph(DType dtype) : type(dtype) {}

  ValueId input(Shape dims, std::string name, DType dtype);
  ValueId parameter(std::shared_ptr<Store> store, int segment, Shape dims, bool trainable, std::string name);
  // Appends a node; its op's shape rule checks the inputs.
  ValueId apply(OpKind op, std::vector<ValueId> in, Attrs attrs, std::string name);

  const ValueInfo& info(ValueId id) const { return values[static_cast<std::size_t>(id)].info; }
  Value& value(ValueId id) { return values[static_cast<std::size_t>(id)]; }
  const Value& value(ValueId id) const { return values[static_cast<std::size_t>(id)]; }
  int producer(ValueId id) const;             // node index, -1 for a leaf
  int readers(ValueId id) const;              // how many nodes read it
  Index count(ValueId id, Index rows) const;  // elements

  DType type;
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<ParameterRef> parameters;
  std::vector<PythonOp> callbacks;
  PythonLoss custom_loss;  // of Loss::custom
};

}  // namespace gemmule
