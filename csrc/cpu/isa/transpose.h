// A square of vectors is transposed in registers. Included by the ISA files.
#pragma once
#include "cpu/isa/vec.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <int... I>
struct Indices {};
template <int N, int... I>
struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <int... I>
struct UpTo<0, I...> {
  using type = Indices<I...>;
};

// Elements of a block of 16 bytes: shuffles within blocks, and of whole blocks, are one instruction each.
template <class T>
inline constexpr int block_lanes = 16 / int(sizeof(T));

// Half of a and half of b in one vector. Distances within a block: a0 b0 a1 b1 ... from the lower (half 0) or
// upper (half 1) half of each block. Greater ones: the even or the odd blocks of a, then those of b.
template <class T, int half, int distance, int... I>
GM_INLINE Vec<T> halves(Vec<T> a, Vec<T> b, Indices<I...>) {
  constexpr int n = lanes<T>, q = block_lanes<T>;
  if constexpr (distance < q)
    return __builtin_shufflevector(a, b, (I / q * q + half * q / 2 + I % q / 2 + I % 2 * n)...);
  else
    return __builtin_shufflevector(a, b, ((I % (n / 2) / q * 2 + half) * q + I % q + (I < n / 2 ? 0 : n))...);
}

// A round for every bit of a row's number: the rows that differ in it meet, and it changes places with a bit
// of the column's number. `meet` is given the two rows, and their halves. Within a block the highest bit is
// first.
template <class T, int distance = block_lanes<T> / 2, class Meet>
GM_INLINE void meet_by_halves(Vec<T> (&row)[lanes<T>], Meet meet) {
  constexpr int n = lanes<T>, q = block_lanes<T>;
  using Order = typename UpTo<n>::type;
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    if (i & distance) continue;
    const Vec<T> a = row[i], b = row[i + distance];
    meet(row[i], row[i + distance], halves<T, 0, distance>(a, b, Order{}),
         halves<T, 1, distance>(a, b, Order{}));
  }
  constexpr int next = distance == 1 ? q : distance < q ? distance / 2 : distance * 2;
  if constexpr (next < n) meet_by_halves<T, next>(row, meet);
}

// Transposes lanes x lanes in log2(lanes) rounds of one instruction a vector.
template <class T>
GM_INLINE void transpose(Vec<T> (&row)[lanes<T>]) {
  meet_by_halves<T>(row, [](Vec<T>& a, Vec<T>& b, Vec<T> lower, Vec<T> upper) {
    a = lower;
    b = upper;
  });
}

}  // namespace gemmule::cpu::GEMMULE_ISA
