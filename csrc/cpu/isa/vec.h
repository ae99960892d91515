// The vector type that kernels are written over: GCC/Clang vector extensions of GEMMULE_VECTOR_BYTES, set by
// the ISA file that includes this. Operators + - * / < & ^ >> and the ternary act per lane; a * b + c
// contracts to an FMA where the ISA has one. Everything lives in namespace GEMMULE_ISA and leaves no shared
// symbol behind.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/inline.h"
#include "core/kinds.h"
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace gemmule::cpu::GEMMULE_ISA {

template <class T>
struct VecOf;

template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(GEMMULE_VECTOR_BYTES), aligned(4), may_alias));
  typedef std::int32_t mask
      __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));  // comparison result, same-width integer
  typedef std::uint32_t bits __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));
};

template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(GEMMULE_VECTOR_BYTES), aligned(8), may_alias));
  typedef std::int64_t mask __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));
  typedef std::uint64_t bits __attribute__((vector_size(GEMMULE_VECTOR_BYTES)));
};

template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using Mask = typename VecOf<T>::mask;
template <class T>
using Bits = typename VecOf<T>::bits;

// As many bytes, and 32-bit integers, as a vector of T has lanes.
template <class T>
struct Narrow {
  typedef std::uint8_t bytes __attribute__((vector_size(GEMMULE_VECTOR_BYTES / sizeof(T))));
  typedef std::int32_t words __attribute__((vector_size(GEMMULE_VECTOR_BYTES / sizeof(T) * 4)));
};

template <class T>
inline constexpr int lanes = GEMMULE_VECTOR_BYTES / int(sizeof(T));

template <class T>
GM_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}
template <class T>
GM_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}
template <class T>
GM_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};  // 0 + x would make 0 of -0, and so be an addition
}

// v, loaded once: where registers seem short GCC reads memory again for every use.
template <class V>
GM_INLINE V in_register(V v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__) || defined(_M_X64)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// Lanes 0 .. n - 1.
template <class T>
GM_INLINE Mask<T> first_lanes(Index n) {
  Mask<T> lane;
  for (int i = 0; i < lanes<T>; ++i) lane[i] = i;
  return lane < Mask<T>{} + decltype(lane[0] + 0)(n);
}

// The first n lanes (0 < n < lanes) of memory, zeros beyond; nothing past p + n is touched. Masked moves are
// what the language has no word for.
template <class T>
GM_INLINE Vec<T> load_first(const T* p, Index n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p));
  else
    return Vec<T>(_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(_mm256_maskload_ps(p, __m256i(first_lanes<T>(n))));
  else
    return Vec<T>(_mm256_maskload_pd(p, __m256i(first_lanes<T>(n))));
#else
  Vec<T> v{};
  for (int i = 0; i + 1 < lanes<T>; ++i)
    if (i < n) v[i] = p[i];
  return v;
#endif
}
// The last lanes of a vector at p, zeros in the first n (0 <= n < lanes); nothing before p + n is touched.
template <class T>
GM_INLINE Vec<T> load_from(const T* p, Index n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(_mm512_maskz_loadu_ps(__mmask16(~0u << n), p));
  else
    return Vec<T>(_mm512_maskz_loadu_pd(__mmask8(~0u << n), p));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(_mm256_maskload_ps(p, __m256i(~first_lanes<T>(n))));
  else
    return Vec<T>(_mm256_maskload_pd(p, __m256i(~first_lanes<T>(n))));
#else
  Vec<T> v{};
  for (int i = 0; i < lanes<T>; ++i)
    if (i >= n) v[i] = p[i];
  return v;
#endif
}
// Lanes n, n + 1, ... of two vectors, one behind the other (0 <= n < lanes).
template <class T>
GM_INLINE Vec<T> lanes_from(Vec<T> low, Vec<T> high, Index n) {
  Mask<T> lane;
  for (int i = 0; i < lanes<T>; ++i) lane[i] = i;
  lane += decltype(lane[0] + 0)(n);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Vec<T>(_mm512_permutex2var_ps(__m512(low), __m512i(lane), __m512(high)));
  else
    return Vec<T>(_mm512_permutex2var_pd(__m512d(low), __m512i(lane), __m512d(high)));
#elif defined(__AVX2__)
  // Halves of 128 bits do not meet but by index, and those are of 4 bytes.
  Mask<T> words = lane;
  if constexpr (sizeof(T) == 8) words = lane * 2 + ((lane * 2 + 1) << 32);
  const Vec<T> a = Vec<T>(_mm256_permutevar8x32_ps(__m256(low), __m256i(words))),
               b = Vec<T>(_mm256_permutevar8x32_ps(__m256(high), __m256i(words)));
  return lane < lanes<T> ? a : b;
#else
  T both[2 * lanes<T>];
  store(both, low);
  store(both + lanes<T>, high);
  return load(both + n);
#endif
}
template <class T>
GM_INLINE void store_first(T* p, Vec<T> v, Index n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v);
  else
    _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v);
#elif defined(__AVX2__)
  // By halves: AMD's masked store is a microprogram of some 40 steps, where one here is an instruction.
  if constexpr (sizeof(T) == 4) {
    __m128 part = _mm256_castps256_ps128(__m256(v));
    if (n & 4) {
      _mm_storeu_ps(p, part);
      part = _mm256_extractf128_ps(__m256(v), 1);
      p += 4;
    }
    if (n & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
      part = _mm_movehl_ps(part, part);
      p += 2;
    }
    if (n & 1) _mm_store_ss(p, part);
  } else {
    __m128d part = _mm256_castpd256_pd128(__m256d(v));
    if (n & 2) {
      _mm_storeu_pd(p, part);
      part = _mm256_extractf128_pd(__m256d(v), 1);
      p += 2;
    }
    if (n & 1) _mm_store_sd(p, part);
  }
#else
  for (int i = 0; i + 1 < lanes<T>; ++i)
    if (i < n) p[i] = v[i];
#endif
}

// As many bytes as a vector has lanes, from and to integers of 0 to 255. GCC takes the general conversion of
// so short vectors to pieces.
template <class T>
GM_INLINE Mask<T> load_bytes(const std::uint8_t* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Mask<T>(_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  else
    return Mask<T>(_mm512_maskz_cvtepu8_epi64(0xFF, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return Mask<T>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  } else {
    int four;
    std::memcpy(&four, p, sizeof four);
    return Mask<T>(_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four)));
  }
#elif defined(__SSE2__)
  int bits = 0;
  std::memcpy(&bits, p, lanes<T>);
  const __m128i zero = _mm_setzero_si128();
  const __m128i words = _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bits), zero), zero);
  return Mask<T>(sizeof(T) == 4 ? words : _mm_unpacklo_epi32(words, zero));
#else
  typename Narrow<T>::bytes bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, typename Narrow<T>::words), Mask<T>);
#endif
}
template <class T>
GM_INLINE void store_bytes(std::uint8_t* p, Mask<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xFFFF, __m512i(v)));
  else
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi64_epi8(0xFF, __m512i(v)));
#elif defined(__SSE2__)
  __m128i words;  // of 16 bits at last
#if defined(__AVX2__)
  const __m128i low = _mm256_castsi256_si128(__m256i(v)), high = _mm256_extracti128_si256(__m256i(v), 1);
  words = sizeof(T) == 4
              ? _mm_packs_epi32(low, high)
              : _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(low), _mm_castsi128_ps(high), 0x88));
  if constexpr (sizeof(T) == 8) words = _mm_packs_epi32(words, words);
#else
  words = sizeof(T) == 4 ? __m128i(v) : _mm_shuffle_epi32(__m128i(v), 0x88);
  words = _mm_packs_epi32(words, words);
#endif
  const __m128i bytes = _mm_packus_epi16(words, words);
  std::memcpy(p, &bytes, lanes<T>);
#else
  const auto bytes = __builtin_convertvector(__builtin_convertvector(v, typename Narrow<T>::words),
                                             typename Narrow<T>::bytes);
  std::memcpy(p, &bytes, sizeof bytes);
#endif
}

// Per lane: mask ? a : b.
template <class M, class V>
GM_INLINE V select(M mask, V a, V b) {
  return mask ? a : b;
}

template <class T>
GM_INLINE T horizontal_sum(Vec<T> v) {
  T sum = v[0];
  for (int i = 1; i < lanes<T>; ++i) sum += v[i];
  return sum;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
