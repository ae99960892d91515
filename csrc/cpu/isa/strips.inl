// Strips: a few rows of A times B row by row, both as they lie. Contracts: cpu/gemm_kernels.h.
#pragma once
#include "cpu/isa/gemm.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// R x V accumulators, a register for each load of B and one to broadcast into. Three where two leave eight
// registers idle: 8 x 784 x 256 takes 0.94 of the time (Emerald Rapids).
template <int R>
inline constexpr int strip_vectors = [] {
  int vectors = 1;
  while (vectors < 8 && (R + 1) * 2 * vectors < GEMMULE_REGISTERS) vectors *= 2;
  return vectors == 2 && (R + 1) * 3 < GEMMULE_REGISTERS ? 3 : vectors;
}();

// Lines of C that the block after the next will write.
template <class T, int R, int V>
GM_INLINE void fetch_ahead(const TileArgs<T>& g) {
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) __builtin_prefetch(g.c + i * g.c_row + (v + 2 * V) * lanes<T>, 1);
}

// Rows of B are fetched so many ahead: the hardware does not follow strides of more than 2 KB. 2 x 512 x 512
// takes 0.90 of the time so, 2 x 784 x 256 0.88, 8 x 1024 x 1024 0.91 (Emerald Rapids); with the line in
// which a row's part ends 8 x 512 x 512 0.87. One row alone reads whole rows of B, and took 1.1.
template <int R>
inline constexpr int rows_ahead = GEMMULE_VECTOR_BYTES == 64 && R > 1 ? 4 : 0;

// `steps` of the depth from p on. Accumulators that are not complete wait in memory. A function of its own:
// where several are put into one GCC may leave the accumulators on the stack, as it did those of 2 x 8 (512 x
// 512 took 1.8 times as long).
template <class T, int R, int V, bool full>
__attribute__((noinline)) static void strip_block(const TileArgs<T>& g, Index p, Index steps, T* waiting,
                                                  Index waiting_row) {
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      acc[i][v] = p == 0 ? Vec<T>{} : load(waiting + i * waiting_row + v * lanes<T>);
  if (g.fetch) fetch_ahead<T, R, V>(g);
  const Index a_row = g.a_row, a_step = g.a_step, b_step = g.b_step;
  const T* a = g.a + p * a_step;
  const T* b = g.b + p * b_step;
  const Index ahead = g.depth > 4 * rows_ahead<R> ? rows_ahead<R> * b_step : 0;
  const auto step = [&]() __attribute__((always_inline)) {
    Vec<T> bv[V];
    if constexpr (rows_ahead<R> > 0)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) __builtin_prefetch(b + ahead + v * lanes<T>);
    if constexpr (rows_ahead<R> > 0) __builtin_prefetch(b + ahead + V * lanes<T> - 1);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      bv[v] =
          full || v < V - 1 ? load(b + v * lanes<T>) : load_first(b + v * lanes<T>, g.cols - v * lanes<T>);
    // Else the compiler loads them again for each row.
    if constexpr (R > 1)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) bv[v] = in_register(bv[v]);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const T ai = a[i * a_row];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[i][v] += ai * bv[v];
    }
    a += a_step;
    b += b_step;
  };
  for (Index left = steps; left > 0; --left) step();
  if (p + steps == g.depth) return finish_tile<T, R, V, full>(g, g.c, acc);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(waiting + i * waiting_row + v * lanes<T>, acc[i][v]);
}

// A B as large comes from memory, whatever the caches hold.
inline constexpr Index from_memory = 12 * 1024 * 1024;

template <class T>
GM_INLINE void move_right(TileArgs<T>& g, Index cols) {
  g.b += cols;
  g.c += cols;
  if (g.bias) g.bias += cols;
}

// Blocks of V vectors, at least 2, while they fit into the columns left, then of half as many.
template <class T, int R, int V>
GM_INLINE void strip_blocks(TileArgs<T>& g, Index left, Index p, Index steps, T* waiting, Index waiting_row) {
  for (g.cols = V * lanes<T>; left >= g.cols; left -= g.cols) {
    strip_block<T, R, V, true>(g, p, steps, waiting, waiting_row);
    move_right(g, g.cols);
    waiting += g.cols;
  }
  if constexpr (V > 2) {
    strip_blocks<T, R, V == 3 ? 2 : V / 2>(g, left, p, steps, waiting, waiting_row);
  } else if (left > lanes<T>) {
    g.cols = left;
    strip_block<T, R, 2, false>(g, p, steps, waiting, waiting_row);
  } else if (left > 0) {
    g.cols = left;
    left == lanes<T> ? strip_block<T, R, 1, true>(g, p, steps, waiting, waiting_row)
                     : strip_block<T, R, 1, false>(g, p, steps, waiting, waiting_row);
  }
}

// Strips of so few rows load more than they multiply: 2 x 512 x 512 takes 0.92 of the time by vectors in
// lines, 2 x 256 x 784 0.86, 3 x 512 x 512 0.94; four rows 1.0 to 1.07 (Zen 4).
inline constexpr int few_in_lines = 3;

template <class T>
GM_INLINE bool pays_by_lines(const TileArgs<T>& g) {
  return g.alpha == T(1) && g.beta == T(0) && g.cols >= 16 * lanes<T>;
}

// The first and the last vector of columns, which lie across lines, and V - 1 between them from the first
// line on. Columns may be made twice; `past`: elements of B's rows in the line before.
template <class T, int R, int V>
__attribute__((noinline)) static void strip_ends(const TileArgs<T>& g, Index past) {
  constexpr int n = lanes<T>;
  Vec<T> first[R][1], inner[R][V - 1], last[R][1];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    first[i][0] = last[i][0] = Vec<T>{};
#pragma GCC unroll 16
    for (int v = 0; v < V - 1; ++v) inner[i][v] = Vec<T>{};
  }
  const Index inside = n - past, end = g.cols - n, a_row = g.a_row, a_step = g.a_step, b_step = g.b_step;
  const T *a = g.a, *b = g.b, *b_inside = b + inside, *b_end = b + end;
  const T* soon = b_inside + (g.depth > 4 * rows_ahead<R> ? rows_ahead<R> * b_step : 0);
  for (Index left = g.depth; left > 0; --left) {
    if constexpr (rows_ahead<R> > 0)
#pragma GCC unroll 16
      for (int v = -1; v < V - 1; ++v) __builtin_prefetch(soon + v * n);
    Vec<T> bv[V - 1];
    const Vec<T> b_first = in_register(load(b)), b_last = in_register(load(b_end));
#pragma GCC unroll 16
    for (int v = 0; v < V - 1; ++v) bv[v] = in_register(load(b_inside + v * n));
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const T ai = a[i * a_row];
      first[i][0] += ai * b_first;
#pragma GCC unroll 16
      for (int v = 0; v < V - 1; ++v) inner[i][v] += ai * bv[v];
      last[i][0] += ai * b_last;
    }
    a += a_step;
    b += b_step, b_inside += b_step, b_end += b_step, soon += b_step;
  }
  const auto finish = [&](Index column, auto& acc) __attribute__((always_inline)) {
    TileArgs<T> part = g;
    if (part.bias) part.bias += column;
    finish_tile<T, R, sizeof acc[0] / sizeof acc[0][0], true>(part, g.c + column, acc);
  };
  finish(0, first);
  finish(inside, inner);
  finish(end, last);
}

// All columns so.
template <class T, int R, int V>
__attribute__((noinline)) static void strip_in_lines(TileArgs<T> g, Index past) {
  strip_ends<T, R, V>(g, past);
  const Index begin = V * lanes<T> - past, whole = (g.cols - begin) / lanes<T> * lanes<T>;
  move_right(g, begin);
  strip_blocks<T, R, V>(g, whole, 0, g.depth, nullptr, 0);
}

// S rows of B, each times an element of A, added to sums.
template <class T, int S, bool fetches>
GM_INLINE void add_rows(Index head, Index cols, const T* a, Index a_step, const T* b, Index b_step,
                        bool first, T* sums) {
  Vec<T> x[S];
#pragma GCC unroll 4
  for (int q = 0; q < S; ++q) x[q] = splat(a[q * a_step]);
  for_each_vector_from<T>(head, cols, [&](Index j, auto span) __attribute__((always_inline)) {
    Vec<T> sum = first ? Vec<T>{} : span.load(sums + j);
#pragma GCC unroll 4
    for (int q = 0; q < S; ++q) {
      sum += x[q] * span.load(b + q * b_step + j);
      if constexpr (fetches) __builtin_prefetch(b + (q + 2 * S) * b_step + j, 0, 2);
    }
    span.store(sums + j, sum);
  });
}

// A row times a B that is wider than registers hold sums. It waits for B whatever it does, and reads it four
// whole rows at a time, as prefetchers follow them, while the sums wait in L1. The rows that follow are
// fetched into L2, eight ahead, where B comes from memory: 1 x 4096 x 1024 takes 250 us so, 340 to 380
// without, but 1 x 2048 x 1024, 8 MB, 106 and 101; sums of half as many columns 1 x 4096 x 1024 1.08 of the
// time (Zen 4).
template <class T, bool fetches>
static void row(const TileArgs<T>& g) {
  constexpr int rows_at_once = 4;
  constexpr Index width = 16384 / sizeof(T);
  alignas(GEMMULE_VECTOR_BYTES) T all_sums[width + lanes<T>];
  for (Index j = 0, cols; j < g.cols; j += cols) {
    const T *a = g.a, *b = g.b + j;
    const Index past = into_line(b, g.b_step), head = (lanes<T> - past) % lanes<T>;
    cols = g.cols - j < width ? g.cols - j : width;
    T* const sums = all_sums + past;
    Index p = 0;
    for (; p + rows_at_once <= g.depth;
         p += rows_at_once, a += rows_at_once * g.a_step, b += rows_at_once * g.b_step)
      add_rows<T, rows_at_once, fetches>(head, cols, a, g.a_step, b, g.b_step, p == 0, sums);
    for (; p < g.depth; ++p, a += g.a_step, b += g.b_step)
      add_rows<T, 1, false>(head, cols, a, g.a_step, b, g.b_step, p == 0, sums);
    finish_columns(g, cols, sums, g.c + j, [&](Index i, auto span) { return span.load(g.bias + j + i); });
  }
}

// Three rows and more, where B does not stay in L2 and nothing is fetched ahead, read it 16 rows at a time: 8
// x 4096 x 1024 takes 0.86 ms and not 1.2. Otherwise accumulators stay in registers to the end: 2 x 256 x 784
// takes 11 us, eight rows of B at a time 19; with rows a page apart they are left all the same: 2 x 4096 x
// 1024 takes 0.78 ms and not 1.5 (Zen 3).
template <class T, int R>
static void strip(const TileArgs<T>& g) {
  if (R == 1 && g.depth > 0 && g.cols > strip_vectors<R> * lanes<T>)
    return g.depth * g.b_step > from_memory / Index(sizeof(T)) ? row<T, true>(g) : row<T, false>(g);
  constexpr Index width = 8192 / sizeof(T) / R / 64 * 64;
  const bool pages = g.b_step >= Index(4096 / sizeof(T));  // one a row of B
  const bool waits = ((R > 2 && rows_ahead<R> == 0) || (R > 1 && pages)) &&
                     g.depth * g.b_step > Index(GEMMULE_COLUMN_BLOCK_BYTES / sizeof(T)) &&
                     g.cols > strip_vectors<R> * lanes<T>;
  const Index pass = waits ? 16 : g.depth, block = waits ? width : g.cols;
  // A vector more than a block has: where registers are enough for it.
  if constexpr (R > 1 && R <= few_in_lines && (R + 1) * (strip_vectors<R> + 1) < GEMMULE_REGISTERS) {
    const Index past = into_line(g.b, g.b_step);
    if (past > 0 && !waits && pays_by_lines(g)) return strip_in_lines<T, R, strip_vectors<R>>(g, past);
  }
  T waiting[R * width];
  TileArgs<T> rest = g;
  for (Index left = g.cols; left > 0; left -= block) {
    const Index cols = left < block ? left : block;
    Index p = 0;
    do {
      const Index steps = g.depth - p < pass ? g.depth - p : pass;
      TileArgs<T> part = rest;
      strip_blocks<T, R, strip_vectors<R>>(part, cols, p, steps, waiting, width);
      p += steps;
    } while (p < g.depth);
    move_right(rest, cols);
  }
}

}  // namespace gemmule::cpu::GEMMULE_ISA
