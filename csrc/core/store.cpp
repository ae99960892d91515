#include "core/store.h"

namespace gemmule {

Store::Store(DType type, const std::vector<Index>& counts) : type_(type), counts_(counts) {
  const Index line = alignment / size_of(type);
  for (Index count : counts) {
    require(count >= 0, ErrorKind::value, "store: a segment of ", count, " elements");
    offsets_.push_back(size_);
    size_ = checked_add(size_, round_up(count, line));
  }
  const Index bytes = checked_mul(size_, size_of(type));
  values_ = Arena(bytes);
  grads_ = Arena(bytes);
}

}  // namespace gemmule
