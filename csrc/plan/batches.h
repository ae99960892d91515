// How the rows of an epoch are cut into batches, and which batches make an update together.
#pragma once
#include <span>
#include <vector>

#include "core/tensor.h"

namespace gemmule {

struct Batch {
  Index at, rows;           // samples of the epoch before it, and in it
  Index before, of_update;  // samples of its update in earlier batches, and in all
  bool first, last;         // of its update
};

class Batches {
 public:
  // `sizes`: the rows of each batch, at most `size`; empty: `size` each, and what is left for the last.
  Batches(Index rows, Index size, Index per_update, std::span<const Index> sizes);

  Index count() const { return count_; }
  Index updates() const { return (count_ + per_update_ - 1) / per_update_; }
  Batch operator[](Index number) const;
  // The batch with which an update begins at this sample; ErrorKind::value where none does.
  Index beginning_at(Index at) const;

 private:
  Index start(Index number) const;

  Index rows_, size_, per_update_, count_;
  std::vector<Index> starts_;  // of each batch and behind the last, where sizes are given
};

}  // namespace gemmule
