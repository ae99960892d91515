// Where parameters live: one flat buffer of values and one of gradients, cut into segments that start on
// cache lines. The padding between segments is zero and stays zero under every optimizer, so an update, a
// checkpoint or an all-reduce is one walk over the whole buffer.
#pragma once
#include <vector>

#include "core/arena.h"
#include "core/tensor.h"

namespace gemmule {

class Store {
 public:
  Store(DType type, const std::vector<Index>& counts);

  DType type() const { return type_; }
  Index size() const { return size_; }  // elements, padding included
  const std::vector<Index>& offsets() const { return offsets_; }
  const std::vector<Index>& counts() const { return counts_; }
  std::byte* values() const { return values_.data(); }
  std::byte* grads() const { return grads_.data(); }

 private:
  DType type_;
  Index size_ = 0;
  std::vector<Index> offsets_, counts_;
  Arena values_, grads_;
};

}  // namespace gemmule
