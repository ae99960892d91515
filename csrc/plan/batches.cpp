#include "plan/batches.h"

#include <algorithm>

namespace gemmule {

Batches::Batches(Index rows, Index size, Index per_update, std::span<const Index> sizes)
    : rows_(rows), size_(size), per_update_(per_update), count_((rows + size - 1) / size) {
  if (sizes.empty()) return;
  count_ = static_cast<Index>(sizes.size());
  starts_.assign(1, 0);
  for (Index n : sizes) {
    require(n >= 1 && n <= size, ErrorKind::value, "fit: a batch of ", n, " samples, the largest may have ",
            size);
    starts_.push_back(checked_add(starts_.back(), n));
  }
  require(starts_.back() == rows, ErrorKind::value, "fit: batches of ", starts_.back(),
          " samples in all, x has ", rows);
}

Index Batches::start(Index number) const {
  return starts_.empty() ? std::min(number * size_, rows_) : starts_[static_cast<std::size_t>(number)];
}

Batch Batches::operator[](Index number) const {
  const Index at = start(number), rows = start(number + 1) - at;
  if (per_update_ == 1) return {at, rows, 0, rows, true, true};
  const Index first = number - number % per_update_, end = std::min(first + per_update_, count_);
  return {at, rows, at - start(first), start(end) - start(first), number == first, number + 1 == end};
}

Index Batches::beginning_at(Index at) const {
  Index number = at / size_;
  if (!starts_.empty()) number = std::lower_bound(starts_.begin(), starts_.end(), at) - starts_.begin();
  require(at >= 0 && at < rows_ && start(number) == at && number % per_update_ == 0, ErrorKind::value,
          "fit: cannot begin at sample ", at, " of ", rows_, " in batches of ", size_, ", ", per_update_,
          " to an update");
  return number;
}

}  // namespace gemmule
