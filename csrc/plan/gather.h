// A batch of a data set: its samples side by side, or a list of where they are.
#pragma once
#include <vector>

#include "backend.h"
#include "core/arena.h"

namespace gemmule {

// A data set as it lies: samples one after the other.
struct Samples {
  const std::byte* x = nullptr;
  const std::byte* y = nullptr;
  bool bytes = false;  // x is uint8, and what the network takes of it is scale * x
  double scale = 1;
};

class Gather {
 public:
  // `listed`: the network reads its input from a list of addresses. x_bytes, y_bytes: of a sample, in the
  // network's type.
  Gather(const Backend& backend, DType type, const Samples& samples, bool listed, Index x_bytes,
         Index y_bytes, Index most_rows);

  // What the network's input and target are bound to.
  void* x() { return listed_ ? static_cast<void*>(list_.data()) : x_.data(); }
  void* y() { return y_.data(); }

  // This member's samples of a batch of these rows.
  void take(const Team& team, const std::int64_t* order, Index rows);

 private:
  const Backend& backend_;
  const DType type_;
  const Samples& samples_;
  const bool listed_;
  const Index x_bytes_, y_bytes_;
  const Index features_;
  const Arena x_, y_;
  std::vector<const std::byte*> list_;
};

}  // namespace gemmule
