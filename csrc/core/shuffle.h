// Random numbers in sequence, and random orders. Not for ISA files: these functions are shared.
#pragma once
#include "core/philox.h"

namespace gemmule {

// The draws of one stream, in order.
struct PhiloxStream {
  std::uint64_t key;
  std::uint32_t tag;     // what the stream is for; 0xFFFFFFFF is shuffling
  std::uint64_t number;  // which of them, say the epoch
  std::uint64_t drawn = 0;
  std::uint64_t words[4] = {};

  std::uint32_t next_u32() {
    if (drawn % 4 == 0) {
      words[0] = drawn / 4;
      words[1] = number >> 32;
      words[2] = tag;
      words[3] = number;
      philox<ScalarWords>(words, key);
    }
    return std::uint32_t(words[drawn++ % 4]);
  }

  std::uint64_t next_u64() {
    const std::uint64_t low = next_u32();
    return std::uint64_t(next_u32()) << 32 | low;
  }

  // Uniform on [0, n), n > 0, without bias: the high half of n times a draw, draws again where the low half
  // falls into the 2^64 mod n products too many (Lemire, "Fast random integer generation in an interval",
  // 2019).
  std::uint64_t below(std::uint64_t n) {
    __extension__ using Product = unsigned __int128;
    for (;;) {
      const Product product = Product(next_u64()) * n;
      const auto low = std::uint64_t(product);
      if (low >= n || low >= -n % n) return std::uint64_t(product >> 64);
    }
  }
};

inline constexpr std::uint32_t shuffle_tag = 0xFFFFFFFF;

// A random order of n things: order[i] = i, then each, from the last, swapped with one not after it (Fisher
// and Yates).
inline void shuffle(Index n, std::int64_t* order, std::uint64_t key, std::uint64_t epoch) {
  for (Index i = 0; i < n; ++i) order[i] = i;
  PhiloxStream stream{key, shuffle_tag, epoch};
  for (Index i = n - 1; i > 0; --i) {
    const auto j = Index(stream.below(std::uint64_t(i) + 1));
    const std::int64_t last = order[i];
    order[i] = order[j];
    order[j] = last;
  }
}

}  // namespace gemmule
