// Aligned memory. An arena is one block whose parts are offsets, laid out before it is allocated.
#pragma once
#include <cstddef>
#include <utility>

#include "core/lines.h"

namespace gemmule {

// A cache line, and the widest vector: parts that start here never share a line between threads.
inline constexpr Index alignment = line_bytes;

class Arena {
 public:
  Arena() = default;
  explicit Arena(Index bytes);  // zeroed; ErrorKind::memory where there is none
  ~Arena();
  Arena(Arena&& other) noexcept { swap(other); }
  Arena& operator=(Arena&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() const { return data_; }
  Index bytes() const { return bytes_; }

 private:
  void swap(Arena& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  std::byte* data_ = nullptr;
  Index bytes_ = 0;
};

// Test hook: the count-th next Arena fails (0: the very next); negative: none does.
void fail_allocation_after(int count);

}  // namespace gemmule
