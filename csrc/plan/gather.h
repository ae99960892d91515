// A batch of a data set: its samples side by side, or a list of where they are.
#pragma once
#include <vector>

#include "backend.h"
#include "core/arena.h"
#include "plan/augment.h"

namespace gemmule {

// A data set as it lies: samples one after the other.
struct Samples {
  const std::byte* x = nullptr;
  const std::byte* y = nullptr;
  bool bytes = false;  // x is uint8, and what the network takes of it is scale * x
  double scale = 1;
  const Augmenter* augmenter = nullptr;  // samples are images, and each is changed whenever it is taken
};

class Gather {
 public:
  // `listed`: the network reads its input from a list of addresses. x_bytes, y_bytes: of a sample, in the
  // network's type. members: the most of a team.
  Gather(const Backend& backend, DType type, const Samples& samples, bool listed, Index x_bytes,
         Index y_bytes, Index most_rows, int members);

  // What the network's input and target are bound to.
  void* x() { return listed_ ? static_cast<void*>(list_.data()) : x_.data(); }
  void* y() { return y_.data(); }

  // This member's samples of a batch of these rows; `scalars` say of which step they are, and where in it.
  void take(const Team& team, const std::int64_t* order, Index rows, const StepScalars& scalars);

 private:
  bool lie_apart() const { return listed_ && !samples_.bytes && !samples_.augmenter; }
  void take_changed(int rank, Index row, Index i, const StepScalars& scalars);

  const Backend& backend_;
  const DType type_;
  const Samples& samples_;
  const bool listed_;
  const Index x_bytes_, y_bytes_;
  const Index features_;
  const Index image_bytes_;  // of an image of bytes that is yet to be scaled, one for each member; 0: none
  const Arena x_, y_, images_;
  std::vector<const std::byte*> list_;
};

}  // namespace gemmule
