#include "plan/square_sum.h"

#include <algorithm>

namespace gemmule {

void SquareSum::take(const Team& team, std::size_t first, DType type, Index count, double limit,
                     const std::byte* x) {
  const Span mine = team.share(static_cast<Index>(pieces_of(count)));
  for (Index i = mine.begin; i < mine.end; ++i)
    sums_[first + static_cast<std::size_t>(i)] =
        backend_.sum_squares(type, std::min(piece, count - i * piece), limit, x + i * piece * size_of(type));
}

double SquareSum::total(std::size_t pieces) const {
  double sum = 0;
  for (std::size_t i = 0; i < pieces; ++i) sum += sums_[i];
  return sum;
}

}  // namespace gemmule
