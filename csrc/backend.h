// The interface between a plan and a device: a table of kernels keyed by op and type. A kernel is called by
// every member of a team with the same arguments, does its member's share and ends without a barrier; it
// may meet the others on the way, and never allocates or throws.
#pragma once
#include <memory>
#include <span>

#include "core/tensor.h"
#include "core/threads.h"
#include "core/updates.h"
#include "graph/graph.h"

namespace gemmule {

// A value at run time, seen as a matrix: a batched value is (rows, features), a parameter (first dimension,
// the rest), or (1, n) for a vector.
struct Operand {
  void* data;
  Index rows, cols;
  Index inner;  // length of the last axis
  DType type;
  bool panels = false;               // the transpose lies in the backend's panels (Backend::to_panels)
  bool listed = false;               // data is a table of the addresses of its rows
  std::span<const Index> dims = {};  // of a sample, or of a parameter

  Index count() const { return rows * cols; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// What changes from step to step.
struct StepScalars {
  std::uint64_t key = 0;   // the network's Philox key
  std::uint64_t step = 0;  // training steps before this one
  // Where several batches make one step:
  Index before = 0;    // the step's samples in earlier batches
  Index of_step = 0;   // its samples in all; 0: those of this batch
  bool first = false;  // gradients are written, even by ops that add to them later

  // What the mean of the losses is taken over, in a batch of so many rows.
  Index samples(Index rows) const { return of_step > 0 ? of_step : rows; }
};

// Where one parameter lies; its gradient and slots are arranged alike.
struct UpdateTarget {
  std::byte* value = nullptr;  // nullptr: it is not updated
  std::byte* slots[max_slots] = {};
};

// One optimizer step on one parameter, taken by the op that makes its gradient, piece by piece while a piece
// is in cache.
struct UpdateCall {
  Rule rule;
  const UpdateArgs& args;
  const UpdateTarget& target;
  double& reach;       // raised to the largest magnitude written
  bool keep_gradient;  // otherwise nobody reads it, and it may pass through the cache alone
};

struct OpCall {
  const Team& team;
  const Attrs& attrs;
  std::span<const Operand> in;
  Operand out;
  void* workspace;  // this member's
  const StepScalars& scalars;
  const UpdateCall* update = nullptr;  // only for matmul and sum_rows that make a gradient
  Operand also{};  // the second value; data is nullptr where nobody reads it or there is none
};

using OpKernel = void (*)(const OpCall& call);

// A parameter that a rule takes as a whole, row by row at `begin` of its store.
struct MatrixPlace {
  Index begin, rows, cols;
  Index end() const { return begin + rows * cols; }
};

// A stretch of parameters that an optimizer walks.
struct ParameterRange {
  std::shared_ptr<Store> store;
  std::byte* slots[max_slots] = {};  // as long as the store each
  Index begin = 0, end = 0;
  std::vector<MatrixPlace> matrices = {};  // within it, in order; for the rules that ask for them
};

struct Backend {
  const char* name;
  // nullptr where the backend lacks the op.
  OpKernel (*kernel)(OpKind op, DType type);
  // Bytes of workspace a member needs for this call; pointers in it are not read.
  Index (*workspace)(OpKind op, DType type, const OpCall& call);
  // The path that the kernel takes for these shapes, for people: "packed", "vector".
  const char* (*path)(OpKind op, DType type, const OpCall& call);
  // The variant of the hardware in use: "avx512".
  const char* (*variant)();
  // This member's part of one optimizer step on a range; the largest magnitude written.
  double (*update)(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range,
                   const Team& team);
  // The same step on copies: what `update` would return, with nothing changed.
  double (*rehearse)(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range,
                     const Team& team);
  // On one thread: the sum of clamp(x, -limit, limit)^2, and y = a x + b y, where b = 0 never reads y.
  double (*sum_squares)(DType type, Index count, double limit, const std::byte* x);
  void (*axpby)(DType type, Index count, double a, const std::byte* x, double b, std::byte* y);
  // The largest magnitude among this member's part of the gradients of a range; infinity for NaN.
  double (*max_gradient)(DType type, const ParameterRange& range, const Team& team);
  // The same of a value.
  double (*max_abs)(const Operand& x, const Team& team);
  // dst = scale * src, on one thread.
  void (*scale_bytes)(DType type, Index count, const std::uint8_t* src, double scale, std::byte* dst);
  // Up to how many outputs a product is best made from rows of so many columns that lie apart, rather than
  // from a gathered copy. Other ops do not read a listed value; max_abs does.
  Index (*most_outputs_of_listed)(DType type, Index cols);
  // A matrix (rows, cols) to the form in which the kernels like weights best, and back; this member's part.
  void (*to_panels)(DType type, Index rows, Index cols, const void* matrix, void* panels, const Team& team);
  void (*from_panels)(DType type, Index rows, Index cols, const void* panels, void* matrix, const Team& team);
  // The elements it then takes, padding included.
  Index (*panel_elements)(DType type, Index rows, Index cols);
};

namespace cpu {
extern const Backend backend;
}

}  // namespace gemmule
