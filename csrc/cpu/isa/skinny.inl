// Kernels for products with few rows, few columns or little depth, which read every operand as it lies.
// Contracts: cpu/gemm_kernels.h.
#pragma once
#include "cpu/isa/gemm.inl"
#include "cpu/isa/loops.h"
#include "cpu/isa/outer.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// ---- strips: a few rows of A times B row by row ----

// NumPy's arrays begin 16 bytes into a line of the cache, and then a load of 64 bytes takes two of its lines
// and twice the time: where operands are read as they lie and loads are much of the work, vectors are taken
// from where lines begin. How many elements of a row come before its first one then does; 0 where the rows
// begin each elsewhere. SSE's vectors lie in one line at any rate.
template <class T>
GM_INLINE Index into_line(const T* rows, Index stride) {
  if (GEMMULE_VECTOR_BYTES == 16 || stride % lanes<T> != 0) return 0;
  return Index(reinterpret_cast<std::uintptr_t>(rows) / sizeof(T) % lanes<T>);
}

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

// Strips of so few rows load more than they multiply: 2 x 512 x 512 takes 0.86 of the time by vectors in
// lines, 2 x 256 x 784 0.88, 3 x 512 x 512 0.91; four rows 1.0 to 1.07 (Zen 4).
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

// Columns of C from sums of products: act(alpha sum + beta C + bias).
template <class T, class Args, class Bias>
GM_INLINE void finish_columns(const Args& g, Index count, const T* sums, T* c, const Bias& bias) {
  for_each_vector<T>(count, [&](Index j, auto span) __attribute__((always_inline)) {
    Vec<T> z = g.alpha * span.load(sums + j);
    if (g.beta != T(0)) z += g.beta * span.load(c + j);
    if (g.bias) z += bias(j, span);
    span.store(c + j, activate_in_register<T>(z, g.act, g.slope));
  });
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
// fetched into L2 where B comes from memory: 1 x 4096 x 1024 takes 250 us so, 340 to 380 without, but 1 x
// 2048 x 1024, 8 MB, 106 and 101; sums of half as many columns 1 x 4096 x 1024 1.08 of the time (Zen 4).
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

// ---- dots: rows of A times rows of B^T ----

// Lane i of the result: the sum of the lanes of row[i], added in one order for all i.
template <class T>
GM_INLINE Vec<T> sums_of(Vec<T> (&row)[lanes<T>]) {
  meet_by_halves<T>(row, [](Vec<T>& a, Vec<T>&, Vec<T> lower, Vec<T> upper) { a = lower + upper; });
  return row[0];
}

// Pointers to `count` rows from `first` on, `stride` apart; the last again in place of those beyond it.
template <class T, int N>
GM_INLINE void point(const T* (&rows)[N], const T* data, Index stride, Index first, Index count) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) rows[i] = data + (first + i < count ? first + i : count - 1) * stride;
}

// From so many vectors of depth on: 32 x 512 x 8 takes 0.90 of the time, 8 x 784 x 8 0.80, 1 x 784 x 256
// 0.85, a column of 784 elements 0.86, but 4 x 128 x 4, in L1, 1.1 (Zen 4).
inline constexpr Index fewest_in_lines = 16;

// sums[i * S + j]: the products of row i of a and row j of b, by lanes. Where a tile of rows is small, U
// steps at once have accumulators of their own. `in_lines`: by vectors of which the first ends after lanes<T>
// - `past` elements; the lanes turn back afterwards, so that the sums are the same to the bit.
template <class T, int R, int S, int U, bool in_lines>
GM_INLINE void accumulate_dots(Index depth, Index past, const T* const (&a)[R], const T* const (&b)[S],
                               Vec<T>* sums) {
  constexpr int n = lanes<T>;
  if constexpr (U > 1)
    if (depth < 2 * n) return accumulate_dots<T, R, S, 1, in_lines>(depth, past, a, b, sums);
  Vec<T> acc[U][R * S];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 16
    for (int i = 0; i < R * S; ++i) acc[u][i] = Vec<T>{};
  // The shorter side waits in registers; the other passes, each load of it once: two rows of 784 by 256 take
  // 9.9 us so, 14.5 where the compiler folds the loads into the FMAs.
  constexpr int few = R < S ? R : S, many = R < S ? S : R;
  const auto step = [&](auto span, Index p, Vec<T>(&into)[R* S]) __attribute__((always_inline)) {
    Vec<T> held[few];
#pragma GCC unroll 8
    for (int i = 0; i < few; ++i) held[i] = span.load((R < S ? a[i % R] : b[i % S]) + p);
#pragma GCC unroll 8
    for (int j = 0; j < many; ++j) {
      const Vec<T> passing = in_register(span.load((R < S ? b[j % S] : a[j % R]) + p));
#pragma GCC unroll 8
      for (int i = 0; i < few; ++i) into[R < S ? i * S + j : j * S + i] += held[i] * passing;
    }
  };
  Index p = 0;
  const Index whole = depth / (U * n) * (U * n);
  if (in_lines && whole > 0) {
    step(Rest<T>{past}, -past, acc[0]);
    for (p = n - past; p + U * n <= whole; p += U * n)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) step(Whole<T>{}, p + u * n, acc[(u + 1) % U]);
#pragma GCC unroll 8
    for (int u = 0; u + 1 < U; ++u) step(Whole<T>{}, p + u * n, acc[u + 1]);
    step(First<T>{past}, whole - past, acc[0]);
#pragma GCC unroll 16
    for (int i = 0; i < R * S; ++i) {
      const Vec<T> first = acc[0][i];
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
        acc[u][i] = lanes_from<T>(acc[u][i], u + 1 < U ? acc[(u + 1) % U][i] : first, past);
    }
    p = whole;
  }
  for (; p < whole; p += U * n)
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) step(Whole<T>{}, p + u * n, acc[u]);
  if constexpr (U > 1)
    for (; p + n <= depth; p += n) step(Whole<T>{}, p, acc[0]);
  if (p < depth) step(First<T>{depth - p}, p, acc[0]);
#pragma GCC unroll 16
  for (int i = 0; i < R * S; ++i) {
    Vec<T> sum = acc[0][i];
#pragma GCC unroll 8
    for (int u = 1; u < U; ++u) sum += acc[u][i];
    sums[i] = sum;
  }
}

// S elements again and again. By doubling: GCC takes a shuffle from few lanes to many through memory, where a
// load waits 20 cycles for a shorter store, and where it knows the mask of a masked load and that the other
// lanes are not used, it reads a whole vector.
template <class Short, int... I>
GM_INLINE auto twice(Short v, Indices<I...>) {
  return __builtin_shufflevector(v, v, I...);
}
template <class T, int S, class Short>
GM_INLINE Vec<T> repeated(Short v) {
  if constexpr (S == lanes<T>)
    return v;
  else
    return repeated<T, 2 * S>(twice(v, typename UpTo<2 * S>::type{}));
}
template <class T, int S>
GM_INLINE Vec<T> repeated(const T* p) {
  if constexpr (S == 1) {
    return splat(*p);
  } else {
    typedef T Few __attribute__((vector_size(S * sizeof(T))));
    Few few;
    std::memcpy(&few, p, sizeof few);
    return repeated<T, S, Few>(few);
  }
}

// Rows of S sums, one behind the other, become those of C.
template <class T, int R, int S>
GM_INLINE void finish_dots(const DotArgs<T>& g, T (&sums)[R * S]) {
  constexpr int n = lanes<T>;
  if (g.cols < S || g.beta != T(0)) {
    for (Index i = 0; i < g.rows; ++i)
      finish_columns(g, g.cols, sums + i * S, g.c + i * g.c_row,
                     [&](Index j, auto span) { return span.load(g.bias + j); });
    return;
  }
  // By vectors of some rows: 100 x 4 x 100 takes 0.83 of the time, 8 x 100 x 100 0.84, 97 x 1 x 97, a column
  // of a matrix, 0.67, 8 x 128 x 256 0.92 (Zen 4).
  // One expression, so that the compiler makes one FMA of it in every copy of the loop; -0 is no bias.
  for (int first = 0; first < R * S; first += n) {
    Vec<T> bias = splat(T(-0.0));
    if (g.bias) {
      if constexpr (S < n)
        bias = repeated<T, S>(g.bias);
      else
        bias = load(g.bias + first % S);
    }
    const Vec<T> z = g.alpha * load(sums + first) + bias;
    store(sums + first, activate_in_register<T>(z, g.act, g.slope));
  }
  for (Index i = 0; i < g.rows; ++i) std::memcpy(g.c + i * g.c_row, sums + i * S, S * sizeof(T));
}

template <class T, int R, int S, bool in_lines>
static void dots_of(const DotArgs<T>& g, Index past) {
  constexpr int n = lanes<T>, streams = R == 2 || S == 2 ? 8 : 4;
  constexpr int high = R < streams ? R : streams, wide = S < streams ? S : streams;
  Vec<T> lane_sums[R * S];
  for (int i = 0; i < R; i += high)
    for (int j = 0; j < S; j += wide) {
      const T *a[high], *b[wide];
      point(a, g.a, g.a_row, i, g.rows);
      point(b, g.b, g.b_row, j, g.cols);
      // Where high < R, wide == S, so that the sums of a group lie together.
      accumulate_dots<T, high, wide, R * S / (high * wide), in_lines>(g.depth, past, a, b,
                                                                      lane_sums + i * S + j * high);
    }
  T sums[R * S];
  for (int first = 0; first < R * S; first += n) {
    Vec<T> some[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) some[i] = lane_sums[first + i];
    store(sums + first, sums_of<T>(some));
  }
  if (S == 1 && g.c_row == 1)  // a column is as good as a row
    return finish_columns(g, g.rows, sums, g.c, [&](Index, auto) { return splat(*g.bias); });
  finish_dots<T, R, S>(g, sums);
}

template <class T, int R, int S>
static void dots(const DotArgs<T>& g) {
  const Index past = R > S ? into_line(g.a, g.a_row) : into_line(g.b, g.b_row);
  if (past > 0 && g.depth >= fewest_in_lines * lanes<T>)
    dots_of<T, R, S, true>(g, past);
  else
    dots_of<T, R, S, false>(g, 0);
}

// ---- narrow: many rows of A times a B of a vector or two a row ----

template <class T, int R, int V>
GM_INLINE void multiply_narrow(const TileArgs<T>& g, const T* a, Vec<T> (&acc)[R][V]) {
  const Index a_row = g.a_row;
  const T* b = g.b;
  for (Index p = 0; p < g.depth; ++p, b += g.b_step)
    multiply_step<T, R, V>(acc, b, [&](int i) { return a[i * a_row + p]; });
}

// Rows that end where a vector does, or behind which the next begins and is still to be written: all vectors
// whole. 200 rows of 10 by a depth of 2 take 0.4 us so, 1.0 with the ends of rows stored apart. The bias
// waits in registers; -0 is none.
template <class T, int R, int V>
GM_INLINE void narrow_rows(const TileArgs<T>& g, Index first, const Vec<T> (&bias)[V]) {
  Vec<T> acc[R][V] = {};
  multiply_narrow<T, R, V>(g, g.a + first * g.a_row, acc);
  T* c = g.c + first * g.c_row;
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store(c + i * g.c_row + v * lanes<T>, activate_in_register<T>(acc[i][v] + bias[v], g.act, g.slope));
}

// R rows at a time, then half as many, whose ends are exact.
template <class T, int R, int V, bool full>
GM_INLINE void narrow_ends(const TileArgs<T>& g, Index begin, Index end) {
  for (; begin + R <= end; begin += R) {
    Vec<T> acc[R][V] = {};
    multiply_narrow<T, R, V>(g, g.a + begin * g.a_row, acc);
    finish_tile<T, R, V, full>(g, g.c + begin * g.c_row, acc);
  }
  if constexpr (R > 1) narrow_ends<T, R / 2, V, full>(g, begin, end);
}

// Eight chains hide an FMA's latency of four cycles; SSE and AVX2 have no registers for 8 x 2.
template <int V>
inline constexpr int narrow_height = GEMMULE_REGISTERS >= 32 ? 8 : 8 / V;

template <class T, int V>
static void narrow(const TileArgs<T>& args, Index rows) {
  const TileArgs<T> g = args;  // which no store can change, as far as the compiler knows
  constexpr int R = narrow_height<V>;
  const Index beyond = V * lanes<T> - g.cols;
  // Rows at the end that would write beyond it, rounded up: fewer than R chains take as long as R. Where
  // their number is no multiple rows are made twice instead: 32 x 10 x 128 takes 1.18 us and not 1.43,
  // 64 2.27 and 2.55 (Zen 4).
  const Index exact = ((beyond + g.cols - 1) / g.cols + R - 1) / R * R, whole = rows - exact;
  if (g.alpha != T(1) || g.beta != T(0) || (beyond > 0 && g.c_row != g.cols) || whole < R)
    return beyond == 0 ? narrow_ends<T, R, V, true>(g, 0, rows) : narrow_ends<T, R, V, false>(g, 0, rows);
  Vec<T> bias[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const Index left = g.cols - v * lanes<T>;
    bias[v] = !g.bias           ? splat(T(-0.0))
              : left < lanes<T> ? load_first(g.bias + v * lanes<T>, left)
                                : load(g.bias + v * lanes<T>);
  }
  Index i = 0;
  for (; i + R <= whole; i += R) narrow_rows<T, R, V>(g, i, bias);
  if (i < whole) narrow_rows<T, R, V>(g, whole - R, bias);
  if (beyond > 0) narrow_ends<T, R, V, false>(g, whole, rows);
}

// ---- table ----

template <class T, int R>
constexpr void fill_strips(SkinnyKernels<T>& table) {
  table.strip[R - 1] = strip<T, R>;
  if constexpr (R > 1) fill_strips<T, R - 1>(table);
}

template <class T, int shape, int R>
constexpr void fill_dots(SkinnyKernels<T>& table) {
  table.dots[shape] = dots<T, R, GEMMULE_REGISTERS / 2 / R>;
  if constexpr (2 * R <= GEMMULE_REGISTERS / 2) fill_dots<T, shape + 1, 2 * R>(table);
}

template <class T>
constexpr SkinnyKernels<T> skinny_kernels() {
  SkinnyKernels<T> table = {};
  table.strip_rows = GEMMULE_STRIP_ROWS;
  table.dots_size = GEMMULE_REGISTERS / 2;
  fill_strips<T, GEMMULE_STRIP_ROWS>(table);
  fill_dots<T, 0, 1>(table);
  fill_outer<T, max_outer_depth>(table);
  table.narrow[0] = narrow<T, 1>;
  table.narrow[1] = narrow<T, 2>;
  return table;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
