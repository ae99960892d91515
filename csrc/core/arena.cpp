#include "core/arena.h"

#include <atomic>
#include <cstring>
#include <new>

#include "core/tensor.h"

namespace gemmule {
namespace {
std::atomic<int> allocations_until_failure{-1};

bool failure_is_due() {
  int left = allocations_until_failure.load(std::memory_order_relaxed);
  return left >= 0 && allocations_until_failure.fetch_sub(1) == 0;
}
}  // namespace

void fail_allocation_after(int count) { allocations_until_failure = count; }

Arena::Arena(Index bytes) : bytes_(round_up(bytes > 0 ? bytes : 1, alignment)) {
  void* block = failure_is_due() ? nullptr
                                 : ::operator new(static_cast<std::size_t>(bytes_),
                                                  std::align_val_t{alignment}, std::nothrow);
  if (!block) fail(ErrorKind::memory, "cannot allocate ", bytes_, " bytes");
  // Zeroed here, so that the first step meets no page fault.
  data_ = static_cast<std::byte*>(std::memset(block, 0, static_cast<std::size_t>(bytes_)));
}

Arena::~Arena() {
  if (data_) ::operator delete(data_, std::align_val_t{alignment});
}

}  // namespace gemmule
