// AVX512_BF16: vdpbf16ps multiplies pairs of bfloat16 and adds both products to a float32, twice the work of
// an FMA; vcvtne2ps2bf16 rounds 32 floats. The language has no word for either. All else is that of avx512.
#define GEMMULE_ISA avx512_bf16
#define GEMMULE_VECTOR_BYTES 64
#define GEMMULE_TILE_ROWS 12
#define GEMMULE_TILE_VECTORS 2
#include "cpu/isa/gemm.inl"

namespace gemmule::cpu::avx512_bf16 {

// 16 pairs of bfloat16 travel as the bits of 16 floats.
using Pairs = Vec<float>;
inline constexpr Index in_vector = lanes<float>, terms_in_vector = 2 * lanes<float>;

// bfloat16 of 32 floats, in order: neighbours become pairs.
GM_INLINE Pairs pair_up(Vec<float> low, Vec<float> high) {
  return Pairs(_mm512_cvtne2ps_pbh(__m512(high), __m512(low)));
}

// (low[0], high[0]) (low[1], high[1]) ...
GM_INLINE Pairs zip(Vec<float> low, Vec<float> high) {
  typedef std::int16_t Words __attribute__((vector_size(64)));
  constexpr Words order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return Pairs(_mm512_permutexvar_epi16(__m512i(order), __m512i(pair_up(low, high))));
}

// ---- micro-kernel ----

template <int R, int V>
GM_INLINE void multiply_pairs(const TileArgs<float>& g, Index begin, Index steps, Vec<float> (&acc)[R][V]) {
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<float>{};
  const Index a_step = g.a_step, b_step = g.b_step;
  const float* a = g.a + begin * a_step;
  const float* b = g.b + begin * b_step;
  for (Index s = steps; s > 0; --s) {
    Pairs bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * in_vector);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const __m512 ai = _mm512_set1_ps(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[i][v] = Vec<float>(_mm512_dpbf16_ps(__m512(acc[i][v]), (__m512bh)ai, (__m512bh)bv[v]));
    }
    a += a_step;
    b += b_step;
  }
}

template <int R, int V>
static void tile_of_pairs(const TileArgs<float>& g) {
  Vec<float> acc[R][V];
  multiply_pairs(g, 0, g.depth, acc);
  if (g.cols == V * in_vector)
    finish_tile<float, R, V, true>(g, g.c, acc);
  else
    finish_tile<float, R, V, false>(g, g.c, acc);
}

template <int R, int V>
static void tile_of_chains_of_pairs(const TileArgs<float>& g) {
  for_each_chain<float, R, V>(g, g.c,
                              [&](Index begin, Index steps, Vec<float>(&acc)[R][V])
                                  __attribute__((always_inline)) { multiply_pairs(g, begin, steps, acc); });
}

// ---- packing ----

// The first `count` floats, zeros beyond; count may be 0 or more than a vector.
GM_INLINE Vec<float> load_up_to(const float* p, Index count) {
  return count >= in_vector ? load(p) : count > 0 ? load_first(p, count) : Vec<float>{};
}

// Up to 16 rows that lie along the depth, `terms` <= 32 of it: dst[s * width + j] = step s of row j.
template <bool whole>
GM_INLINE void pack_pairs_block(Index rows, Index terms, const float* src, Index stride, float* dst,
                                Index width) {
  Pairs block[in_vector];
#pragma GCC unroll 16
  for (Index j = 0; j < in_vector; ++j) {
    block[j] = whole ? pair_up(load(src), load(src + in_vector))
                     : pair_up(load_up_to(src, terms), load_up_to(src + in_vector, terms - in_vector));
    if (j + 1 < rows) src += stride;  // beyond the last row: the last again
  }
  transpose<float>(block);
  if (whole && rows >= in_vector) {
#pragma GCC unroll 16
    for (Index s = 0; s < in_vector; ++s) store(dst + s * width, block[s]);
  } else if (whole) {
#pragma GCC unroll 16
    for (Index s = 0; s < in_vector; ++s) store_first(dst + s * width, block[s], rows);
  } else {
    for (Index s = 0; 2 * s < terms; ++s)
      if (rows >= in_vector)
        store(dst + s * width, block[s]);
      else
        store_first(dst + s * width, block[s], rows);
  }
}

GM_INLINE void pack_transposed_pairs(Index depth, Index count, Index width, const float* src, Index stride,
                                     float* dst) {
  for (Index j = 0; j < count; j += in_vector) {
    const float* from = src + j * stride;
    float* to = dst + j;
    Index p = 0;
    for (; p + terms_in_vector <= depth; p += terms_in_vector)
      pack_pairs_block<true>(count - j, terms_in_vector, from + p, stride, to + p / 2 * width, width);
    if (p < depth) pack_pairs_block<false>(count - j, depth - p, from + p, stride, to + p / 2 * width, width);
  }
}

// One step from two lines of `count` adjacent floats, where `odd` the second of zeros; zeros up to `width`.
GM_INLINE void zip_lines(Index count, Index width, const float* line, Index next, bool odd, float* dst) {
  for (Index i = 0; i < width; i += in_vector) {
    const Vec<float> low = load_up_to(line + i, count - i);
    store(dst + i, zip(low, odd ? Vec<float>{} : load_up_to(line + next + i, count - i)));
  }
}

// One step of any strides.
GM_INLINE float pair_of(const float* p, Index step, bool odd) {
  const Vec<float> first = {p[0], odd ? 0.0f : p[step]};
  return pair_up(first, first)[0];
}

static void pack_a_in_pairs(Index height, Index depth, const float* a, Index row, Index step, float* dst) {
  static_assert(GEMMULE_TILE_ROWS < lanes<float>);
  if (step == 1) {
    pack_transposed_pairs(depth, height, height, a, row, dst);
    return;
  }
  for (Index p = 0; p < depth; p += 2, dst += height) {
    const float* from = a + p * step;
    const bool odd = p + 1 == depth;
    if (row == 1) {
      const Vec<float> low = load_first(from, height);
      store_first(dst, zip(low, odd ? Vec<float>{} : load_first(from + step, height)), height);
    } else {
      for (Index i = 0; i < height; ++i) dst[i] = pair_of(from + i * row, step, odd);
    }
  }
}

static void pack_b_in_pairs(Index depth, Index cols, Index width, const float* b, Index row, Index step,
                            float* dst) {
  const Index steps = (depth + 1) / 2;
  if (step == 1) {
    // Whole rows of B, each spread over the panels: one panel after the other would touch a page a step.
    for (Index p = 0; p < depth; p += 2)
      for (Index j = 0; j < cols; j += width)
        zip_lines(cols - j < width ? cols - j : width, width, b + p * row + j, row, p + 1 == depth,
                  dst + j * steps + p / 2 * width);
    return;
  }
  for (Index j = 0; j < cols; j += width) {
    const Index count = cols - j < width ? cols - j : width;
    float* to = dst + j * steps;
    for (Index s = 0; s < steps; ++s)
      for (Index i = count / in_vector * in_vector; i < width; i += in_vector)
        store(to + s * width + i, Pairs{});
    if (row == 1) {
      pack_transposed_pairs(depth, count, width, b + j * step, step, to);
    } else {
      for (Index s = 0; s < steps; ++s)
        for (Index i = 0; i < count; ++i)
          to[s * width + i] = pair_of(b + 2 * s * row + (j + i) * step, row, 2 * s + 1 == depth);
    }
  }
}

// ---- table ----

template <int R, int V>
constexpr void fill_kernels_of_pairs(Bf16Kernels& table) {
  table.kernel[R - 1][V - 1] = tile_of_pairs<R, V>;
  table.kernel_of_chains[R - 1][V - 1] = tile_of_chains_of_pairs<R, V>;
  if constexpr (V > 1)
    fill_kernels_of_pairs<R, V - 1>(table);
  else if constexpr (R > 1)
    fill_kernels_of_pairs<R - 1, GEMMULE_TILE_VECTORS>(table);
}

constexpr Bf16Kernels kernels_of_pairs() {
  Bf16Kernels table = {};
  table.rows = GEMMULE_TILE_ROWS;
  table.vectors = GEMMULE_TILE_VECTORS;
  table.lanes = lanes<float>;
  table.terms = 2;
  table.depth_block = 384;   // strips of A: 18 KB, about half of L1
  table.row_block = 2048;    // from L3; with 512 (L2) B was packed four times as often, 2 to 4 % slower
  table.column_block = 512;  // 768 KB of L2, as in avx512
  table.deep_chains = 1;
  table.deep_columns = table.column_block;
  fill_kernels_of_pairs<GEMMULE_TILE_ROWS, GEMMULE_TILE_VECTORS>(table);
  table.pack_a = pack_a_in_pairs;
  table.pack_b = pack_b_in_pairs;
  return table;
}

extern const Bf16Kernels kernels;
const Bf16Kernels kernels = kernels_of_pairs();

}  // namespace gemmule::cpu::avx512_bf16
