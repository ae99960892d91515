#include "core/arena.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "core/tensor.h"

namespace gemmule {
namespace {
std::atomic<int> allocations_until_failure{-1};

bool failure_is_due() {
  int left = allocations_until_failure.load(std::memory_order_relaxed);
  return left >= 0 && allocations_until_failure.fetch_sub(1) == 0;
}

#ifdef __linux__
// From this size on (NumPy's arrays too) memory comes from the system as it is: zeroed page by page by the
// threads that first touch it, and on huge pages where there are some. One thread fills 67 MB, the weights of
// four layers of 2048 x 2048, in 30 ms on small pages and 9 on huge ones.
constexpr Index mapped_from = 4 << 20;

void* map(Index bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  void* block = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  madvise(block, size, MADV_HUGEPAGE);  // a wish: small pages serve as well
  return block;
}
void unmap(void* block, Index bytes) { munmap(block, static_cast<std::size_t>(bytes)); }
#else
constexpr Index mapped_from = std::numeric_limits<Index>::max();
void* map(Index) { return nullptr; }
void unmap(void*, Index) {}
#endif

void* allocate(Index bytes) {
  if (bytes >= mapped_from) return map(bytes);
  const auto size = static_cast<std::size_t>(bytes);
  void* block = ::operator new(size, std::align_val_t{alignment}, std::nothrow);
  // Zeroed here, so that the first step meets no page fault.
  return block ? std::memset(block, 0, size) : nullptr;
}

}  // namespace

void fail_allocation_after(int count) { allocations_until_failure = count; }

Arena::Arena(Index bytes) : bytes_(round_up(bytes > 0 ? bytes : 1, alignment)) {
  data_ = failure_is_due() ? nullptr : static_cast<std::byte*>(allocate(bytes_));
  if (!data_) fail(ErrorKind::memory, "cannot allocate ", bytes_, " bytes");
}

Arena::~Arena() {
  if (!data_) return;
  if (bytes_ >= mapped_from)
    unmap(data_, bytes_);
  else
    ::operator delete(data_, std::align_val_t{alignment});
}

}  // namespace gemmule
