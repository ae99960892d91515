// Sums of squares over many elements, bitwise the same for any number of threads: fixed pieces, each added in
// double by one member, and the pieces in their order.
#pragma once
#include <vector>

#include "backend.h"

namespace gemmule {

class SquareSum {
 public:
  static constexpr Index piece = 4096;  // small beside a cache, large beside a call

  SquareSum(const Backend& backend, Index elements) : backend_(backend), sums_(pieces_of(elements)) {}

  // How many of its pieces a stretch takes, and with all others before it, where the next one's begin.
  static std::size_t pieces_of(Index elements) {
    return static_cast<std::size_t>((elements + piece - 1) / piece);
  }

  // This member's pieces of clamp(x, -limit, limit), the first of them numbered `first`.
  void take(const Team& team, std::size_t first, DType type, Index count, double limit, const std::byte* x);
  // The sum of the first `pieces`; behind a barrier.
  double total(std::size_t pieces) const;

 private:
  const Backend& backend_;
  std::vector<double> sums_;
};

}  // namespace gemmule
