// The GEMM micro-kernels of one ISA. Contracts: cpu/gemm_kernels.h; pictures: docs/kernels.md.
#pragma once
#include "cpu/isa/loops.h"
#include "cpu/isa/pack.inl"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

// ---- micro-kernel ----

// The activations that cost an instruction. `0 > z ? 0 : z` and not `z > 0 ? z : 0`: NaN must stay.
template <class T>
GM_INLINE Vec<T> activate_in_register(Vec<T> z, Act act, T slope) {
  if (act == Act::relu) return select(Vec<T>{} > z, Vec<T>{}, z);
  if (act == Act::leaky_relu) return select(Vec<T>{} > z, slope * z, z);
  return z;
}

// Where a chain stands among those of a tile, and where the sums so far wait for the next: in L1, apart from
// C, whose lines may meet there.
template <class T>
struct Chain {
  T* waiting = nullptr;
  bool first = true, last = true;
};

// alpha acc + beta C + bias, activation, store: every accumulator still in its register. `full` tiles move
// whole vectors; the others end inside the last vector. Loops over a tile's rows and vectors, unrolled to the
// last: an accumulator that is indexed at run time lives on the stack.
#define GEMMULE_FOR_ROWS _Pragma("GCC unroll 16") for (int i = 0; i < R; ++i)
#define GEMMULE_FOR_VECTORS _Pragma("GCC unroll 4") for (int v = 0; v < V; ++v)

template <class T, int R, int V, bool full, class Row>
GM_INLINE void finish_rows(const TileArgs<T>& g, const Row& row, Vec<T> (&acc)[R][V],
                           const Chain<T>& chain = {}) {
  const Index tail = g.cols - (V - 1) * lanes<T>;
  const auto last = [](int v) { return !full && v == V - 1; };
  if (g.alpha != T(1)) GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS acc[i][v] *= g.alpha;
  if (!chain.first)
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS acc[i][v] += load(chain.waiting + (i * V + v) * lanes<T>);
  else if (g.beta == T(1))
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS {
      const T* c = row(i) + v * lanes<T>;
      acc[i][v] += last(v) ? load_first(c, tail) : load(c);
    }
  else if (g.beta != T(0))
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS {
      const T* c = row(i) + v * lanes<T>;
      acc[i][v] += g.beta * (last(v) ? load_first(c, tail) : load(c));
    }
  if (!chain.last) {
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS store(chain.waiting + (i * V + v) * lanes<T>, acc[i][v]);
    return;
  }
  if (g.bias) GEMMULE_FOR_VECTORS {
      const T* bias = g.bias + v * lanes<T>;
      const Vec<T> b = last(v) ? load_first(bias, tail) : load(bias);
      GEMMULE_FOR_ROWS acc[i][v] += b;
    }
  if (g.act != Act::identity)
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS acc[i][v] = activate_in_register<T>(acc[i][v], g.act, g.slope);
  GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS {
    T* c = row(i) + v * lanes<T>;
    if (last(v))
      store_first(c, acc[i][v], tail);
    else
      store(c, acc[i][v]);
  }
}
template <class T, int R, int V, class Row>
GM_INLINE void finish(const TileArgs<T>& g, const Row& row, Vec<T> (&acc)[R][V]) {
  if (g.cols == V * lanes<T>)
    finish_rows<T, R, V, true>(g, row, acc);
  else
    finish_rows<T, R, V, false>(g, row, acc);
}
template <class T, int R, int V, bool full>
GM_INLINE void finish_tile(const TileArgs<T>& g, T* to, Vec<T> (&acc)[R][V]) {
  finish_rows<T, R, V, full>(g, [&g, to](int i) { return to + i * g.c_row; }, acc);
}

// The chains of a tile: multiply(begin, depth, acc) adds up each. They differ in length by one at most, the
// longer ones first.
template <class T, int R, int V, class Multiply>
GM_INLINE void for_each_chain(const TileArgs<T>& g, T* c, const Multiply& multiply) {
  alignas(line_bytes) T waiting[R * V * lanes<T>];
  asm("" : "=m"(waiting));  // the first chain sets it, which the compiler does not see
  const auto row = [&g, c](int i) { return c + i * g.c_row; };
  Index begin = 0;
  for (Index count = g.chains; count > 0; --count) {
    const Index depth = (g.depth - begin + count - 1) / count;
    const Chain<T> chain = {waiting, begin == 0, count == 1};
    Vec<T> acc[R][V];
    multiply(begin, depth, acc);
    if (g.cols == V * lanes<T>)
      finish_rows<T, R, V, true>(g, row, acc, chain);
    else
      finish_rows<T, R, V, false>(g, row, acc, chain);
    begin += depth;
  }
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

// How a tile's A lies: column by column (a_row 1), as in a packed strip; row by row (a_step 1), in one piece
// or in panels; or its rows listed.
enum class Lie { columns, rows, listed_rows };

// B is brought into L1 so many steps before it is used: 24 of 12 cycles, about what L3 takes to answer. 1024
// and 2048 on one thread take 0.93 of the time, and 12 steps 0.95 (Emerald Rapids; panels stream from L2
// there at a line in six cycles, and the hardware stops at every page). AVX2's loop has no instruction to
// spare.
inline constexpr int steps_ahead = GEMMULE_VECTOR_BYTES == 64 ? 24 : 0;
// A B in place comes from L2, or is in L1: 31 x 512 x 512 takes 0.92 of the time, 31 x 784 x 256 0.95. The
// line that its row ends in comes too: 16 x 784 x 256 0.7.
inline constexpr int rows_ahead_in_place = 8;

// In so many rows each FMA broadcasts its A from memory: one instruction less for one load more. A step of
// 12 x 2 vectors has 36 instructions then, not 42: beside a busy neighbour on the core's other hardware
// thread it runs at 80 to 95 % of the ceiling, not at 73 to 84 (with all rows loads are the bound), alone
// at 99.5 either way (Emerald Rapids). In place A has indexed addresses, which such an FMA pays with an
// instruction, and a B in place needs the loads: its rows begin inside a line, 16 bytes into it in NumPy.
template <int R>
inline constexpr int rows_loaded_twice = GEMMULE_VECTOR_BYTES == 64 ? R / 2 : 0;

// An address that the compiler cannot tell from any other: what lies there is loaded again.
template <class T>
GM_INLINE const T* hidden(const T* p) {
  asm("" : "+r"(p));
  return p;
}

// One broadcast of A per row and V loads of B per step feed R * V FMAs. The elements of the first rows,
// `twice` of them, come from `again` for all but the first vector. `beside` gets B's vectors before that.
template <class T, int R, int V, int twice, class Row, class Element, class Beside>
GM_INLINE void multiply_step(Vec<T> (&acc)[R][V], const Row& b, const Element& a, const Element& again,
                             const Beside& beside) {
  Vec<T> bv[V];
  GEMMULE_FOR_VECTORS bv[v] = load(b(v));
  beside(bv);
  GEMMULE_FOR_ROWS {
    const T ai = a(i);
    GEMMULE_FOR_VECTORS acc[i][v] += (v > 0 && i < twice ? again(i) : ai) * bv[v];
  }
}
template <class T, int R, int V, class Element>
GM_INLINE void multiply_step(Vec<T> (&acc)[R][V], const T* b, const Element& a) {
  multiply_step<T, R, V, 0>(acc, [b](int v) { return b + v * lanes<T>; }, a, a, [](auto&) {});
}

// Four steps a turn: fewer branches, and no additions where all strides are known. Beside a busy neighbour a
// core shared by two hardware threads then runs the 6 x 16 tile, 20 instructions for six cycles of FMAs, at
// 86 % of the ceiling, and at 76 one step a turn; alone at 98 and 97 (Zen 3). Unrolled by hand GCC spills an
// accumulator.
template <class Step>
GM_INLINE void by_fours(Index steps, const Step& step) {
#pragma GCC unroll 4
  for (Index p = steps; p > 0; --p) step();
}

// How a tile's B lies, and what is done on the way: its rows are b_step apart; or lie in a packed panel of
// the tile's width, whose stride the compiler knows; or are apart and packed at b_kept; or are packed, and a
// line a step of b_soon is fetched into L2.
enum class From { apart, panel, apart_kept, panel_fetching };

// The sums of a tile over `depth` of it. A tile of more vectors than a panel has lies in two.
template <class T, int R, int V, Lie lie, From from>
GM_INLINE void multiply_tile(const TileArgs<T>& g, Index depth, const T* a, const T* const* list, const T* b,
                             const T* soon, Vec<T> (&acc)[R][V]) {
  GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS acc[i][v] = Vec<T>{};
  constexpr int panel = V < GEMMULE_TILE_VECTORS ? V : GEMMULE_TILE_VECTORS;
  constexpr bool packed = from == From::panel || from == From::panel_fetching;
  const T* next = V > panel ? b + g.b_next : b;
  const Index b_step = packed ? panel * lanes<T> : g.b_step;
  const Index ahead = (b_step <= panel * lanes<T> ? steps_ahead : rows_ahead_in_place) * b_step;
  const auto row_of = [](const T* first, const T* second) {
    return
        [first, second](int v) { return v < panel ? first + v * lanes<T> : second + (v - panel) * lanes<T>; };
  };
  T* kept = g.b_kept;
  const auto beside = [&](const Vec<T>(&bv)[V]) {
    if constexpr (from == From::panel_fetching) {
      __builtin_prefetch(soon, 0, 2);
      soon += g.b_step;
    } else if constexpr (steps_ahead > 0) {
      GEMMULE_FOR_VECTORS __builtin_prefetch(row_of(b, next)(v) + ahead);
      if constexpr (!packed) __builtin_prefetch(row_of(b, next)(V - 1) + ahead + lanes<T> - 1);
    }
    if constexpr (from == From::apart_kept) {
      GEMMULE_FOR_VECTORS store(kept + v * lanes<T>, bv[v]);
      kept += V * lanes<T>;
    }
  };
  if constexpr (lie == Lie::listed_rows) {
    const T* row[R];
    GEMMULE_FOR_ROWS row[i] = list[i] + g.a_first;
    Index p = 0;
    by_fours(depth, [&] {
      const auto at = [&](int i) { return row[i][p]; };
      multiply_step<T, R, V, 0>(acc, row_of(b, next), at, at, beside);
      ++p;
      b += b_step, next += b_step;
    });
  } else if constexpr (lie == Lie::rows) {
    // An address is a register, and another times 1, 2 or 4: five rows share a pointer. With a register for
    // each row the compiler keeps some in memory: 12 x 2 vectors ran at 95.5 % of the ceiling, at 99.5 so
    // (Zen 4). Told the multiples beforehand it would give those registers.
    static_assert(R <= 15);
    const char* first = reinterpret_cast<const char*>(a);
    Index once = g.a_row * Index(sizeof(T)), thrice = 3 * once;
    const char *sixth = first + 5 * once, *eleventh = sixth + 5 * once;
    const auto move_along = [&](Index steps) {
      first += steps * Index(sizeof(T)), sixth += steps * Index(sizeof(T));
      eleventh += steps * Index(sizeof(T));
    };
    Index left = depth, run = g.a_run;
    for (;;) {
      if (run > left) run = left;
      by_fours(run, [&] {
        asm("" : "+r"(once), "+r"(thrice));
        const char* const row[] = {
            first,    first + once,    first + 2 * once,    first + thrice,    first + 4 * once,
            sixth,    sixth + once,    sixth + 2 * once,    sixth + thrice,    sixth + 4 * once,
            eleventh, eleventh + once, eleventh + 2 * once, eleventh + thrice, eleventh + 4 * once};
        const auto at = [&row](int i) { return *reinterpret_cast<const T*>(row[i]); };
        multiply_step<T, R, V, 0>(acc, row_of(b, next), at, at, beside);
        move_along(1);
        b += b_step, next += b_step;
      });
      left -= run;
      if (left == 0) break;
      move_along(g.a_jump);
      b += g.b_jump, next += g.b_jump;
      run = g.a_chunk;
    }
  } else {
    // Whoever keeps B has A in strips.
    constexpr bool strip = from != From::apart;
    const Index a_step = strip ? R : g.a_step;
    const auto at = [](const T* p) { return [p](int i) { return p[i]; }; };
    Index left = depth, run = strip ? left : g.a_run;
    for (;;) {
      if (run > left) run = left;
      const T* same = hidden(a);
      by_fours(run, [&] {
        multiply_step<T, R, V, packed ? rows_loaded_twice<R> : 0>(acc, row_of(b, next), at(a), at(same),
                                                                  beside);
        a += a_step, same += a_step;
        b += b_step, next += b_step;
      });
      left -= run;
      if (strip || left == 0) break;
      a += g.a_jump;
      b += g.b_jump, next += g.b_jump;
      run = g.a_chunk;
    }
  }
}

template <class T, int R, int V, Lie lie>
GM_INLINE void write_tile(const TileArgs<T>& g, T* c, T* const* c_list, Vec<T> (&acc)[R][V]) {
  if constexpr (lie == Lie::listed_rows) {
    T* rows[R];
    GEMMULE_FOR_ROWS rows[i] = c_list ? c_list[i] + g.c_first : c + i * g.c_row;
    finish<T, R, V>(g, [&rows](int i) { return rows[i]; }, acc);
  } else {
    finish<T, R, V>(g, [&g, c](int i) { return c + i * g.c_row; }, acc);
  }
}

template <class T, int R, int V>
GM_INLINE void fetch_lines(const TileArgs<T>& g, const T* fetch) {
  if (fetch)
    GEMMULE_FOR_ROWS GEMMULE_FOR_VECTORS __builtin_prefetch(fetch + i * g.fetch_row + v * lanes<T>, 1);
}

template <class T, int R, int V, Lie lie>
GM_INLINE void make_tile(const TileArgs<T>& g, bool packed, const T* a, const T* const* list, T* c,
                         T* const* c_list, const T* fetch) {
  Vec<T> acc[R][V];
  fetch_lines<T, R, V>(g, fetch);
  if (packed)
    multiply_tile<T, R, V, lie, From::panel>(g, g.depth, a, list, g.b, nullptr, acc);
  else
    multiply_tile<T, R, V, lie, From::apart>(g, g.depth, a, list, g.b, nullptr, acc);
  write_tile<T, R, V, lie>(g, c, c_list, acc);
}

template <class T, int R, int V, Lie lie>
static void tile(const TileArgs<T>& g) {
  constexpr bool listed = lie == Lie::listed_rows;
  const bool packed =
      g.b_step == V * lanes<T> && (lie != Lie::columns || (g.a_step == R && g.a_run >= g.depth));
  for (Index t = 0; t < g.tiles; ++t)
    make_tile<T, R, V, lie>(g, packed, listed ? nullptr : g.a + t * g.a_next,
                            listed ? g.a_list + t * R : nullptr, g.c ? g.c + t * R * g.c_row : nullptr,
                            listed && g.c_list ? g.c_list + t * R : nullptr,
                            g.fetch ? g.fetch + t * R * g.fetch_row : nullptr);
}

// Tiles in several chains, from packed strips and panels. Only large products have them: this loop would cost
// every tile 100 cycles, and 64 x 64 x 64 ran at 88 % of the ceiling with it, at 94 without. With rows of A
// in place GCC keeps accumulators in memory (Zen 4).
template <class T, int R, int V>
static void tile_of_chains(const TileArgs<T>& g) {
  constexpr From from = V == GEMMULE_TILE_VECTORS ? From::panel : From::apart;
  for (Index t = 0; t < g.tiles; ++t) {
    const T* a = g.a + t * g.a_next;
    fetch_lines<T, R, V>(g, g.fetch ? g.fetch + t * R * g.fetch_row : nullptr);
    for_each_chain<T, R, V>(g, g.c + t * R * g.c_row,
                            [&](Index begin, Index depth, Vec<T>(&acc)[R][V]) __attribute__((always_inline)) {
                              multiply_tile<T, R, V, Lie::columns, from>(
                                  g, depth, a + begin * R, nullptr, g.b + begin * g.b_step, nullptr, acc);
                            });
  }
}

// Tiles of a whole panel that the first packs on its way, and those below read. While they do, the lines of
// a panel that is soon packed come into L2, one a step.
template <class T, int R>
static void tiles_keeping(const TileArgs<T>& g) {
  constexpr int V = GEMMULE_TILE_VECTORS, line = int(in_a_line<T>), lines = V * lanes<T> / line;
  const T* a = g.a;
  T* c = g.c;
  for (Index t = 0; t < g.tiles; ++t, a += g.a_next, c += R * g.c_row) {
    Vec<T> acc[R][V];
    fetch_lines<T, R, V>(g, g.fetch ? g.fetch + t * R * g.fetch_row : nullptr);
    if (t == 0)
      multiply_tile<T, R, V, Lie::columns, From::apart_kept>(g, g.depth, a, nullptr, g.b, nullptr, acc);
    else if (g.b_soon && t <= lines + 1)
      multiply_tile<T, R, V, Lie::columns, From::panel_fetching>(
          g, g.depth, a, nullptr, g.b_kept, g.b_soon + (t <= lines ? (t - 1) * line : V * lanes<T> - 1), acc);
    else
      multiply_tile<T, R, V, Lie::columns, From::panel>(g, g.depth, a, nullptr, g.b_kept, nullptr, acc);
    write_tile<T, R, V, Lie::columns>(g, c, nullptr, acc);
  }
}

// Tiles of two whole panels; of more than half the rows as an upper and a lower one.
template <class T, int R, Lie lie>
static void tile_of_two(const TileArgs<T>& g) {
  constexpr int V = 2 * GEMMULE_TILE_VECTORS, most = GEMMULE_TILE_ROWS / 2,
                upper = R <= most ? R : (R + 1) / 2;
  constexpr bool listed = lie == Lie::listed_rows;
  const bool packed = g.b_step == GEMMULE_TILE_VECTORS * lanes<T>;
  for (Index t = 0; t < g.tiles; ++t) {
    const T* a = listed ? nullptr : g.a + t * g.a_next;
    const T* const* list = listed ? g.a_list + t * R : nullptr;
    T* c = g.c ? g.c + t * R * g.c_row : nullptr;
    T* const* c_list = listed && g.c_list ? g.c_list + t * R : nullptr;
    const T* fetch = g.fetch ? g.fetch + t * R * g.fetch_row : nullptr;
    make_tile<T, upper, V, lie>(g, packed, a, list, c, c_list, fetch);
    if constexpr (R > upper)
      make_tile<T, R - upper, V, lie>(g, packed, listed ? nullptr : a + upper * g.a_row,
                                      listed ? list + upper : nullptr, c ? c + upper * g.c_row : nullptr,
                                      c_list ? c_list + upper : nullptr,
                                      fetch ? fetch + upper * g.fetch_row : nullptr);
  }
}

#undef GEMMULE_FOR_ROWS
#undef GEMMULE_FOR_VECTORS

// ---- a product computed as its transpose ----

template <class T>
static void transpose_out(Index rows, Index cols, const T* t, Index t_row, T* c, Index c_row, const T* bias,
                          Act act, T slope) {
  constexpr int n = lanes<T>;
  for (Index j = 0; j < cols; j += n) {
    const Index width = cols - j < n ? cols - j : n;
    const Vec<T> shift = !bias ? Vec<T>{} : width == n ? load(bias + j) : load_first(bias + j, width);
    for (Index i = 0; i < rows; i += n) {
      Vec<T> block[n];
      const T* from = t + j * t_row + i;
#pragma GCC unroll 16
      for (int k = 0; k < n; ++k) {
        block[k] = load(from);
        if (k + 1 < width) from += t_row;  // beyond the last column: the last again
      }
      transpose<T>(block);
      T* to = c + i * c_row + j;
      if (width == n && i + n <= rows) {
#pragma GCC unroll 16
        for (int k = 0; k < n; ++k, to += c_row)
          store(to, activate_in_register<T>(block[k] + shift, act, slope));
      } else {
        for (Index k = 0; k < n && i + k < rows; ++k, to += c_row) {
          const Vec<T> h = activate_in_register<T>(block[k] + shift, act, slope);
          if (width == n)
            store(to, h);
          else
            store_first(to, h, width);
        }
      }
    }
  }
}

// ---- table ----

// Where rows lie apart, each of six broadcasts feeds the four vectors of two panels: 41 instructions for 24
// FMAs, and 44 for 12 x 2, whose twelve addresses leave no register for anything else. 1 x 1 convolutions
// take 0.86 to 0.90 of the time, 7 x 7 0.92, 128 x 128 x 128 and 256 x 256 x 784 0.95 (Emerald Rapids).
inline constexpr bool two_panels = GEMMULE_VECTOR_BYTES == 64 && GEMMULE_TILE_VECTORS == 2;

template <class T, int R, int V>
constexpr void fill_kernels(GemmKernels<T>& table) {
  table.kernel[R - 1][V - 1] = tile<T, R, V, Lie::columns>;
  table.kernel_rows[R - 1][V - 1] = tile<T, R, V, Lie::rows>;
  table.kernel_listed_rows[R - 1][V - 1] = tile<T, R, V, Lie::listed_rows>;
  table.kernel_of_chains[R - 1][V - 1] = tile_of_chains<T, R, V>;
  if constexpr (V == GEMMULE_TILE_VECTORS) table.kernel_keeping[R - 1] = tiles_keeping<T, R>;
  if constexpr (two_panels && V == GEMMULE_TILE_VECTORS) {
    table.kernel_rows[R - 1][2 * V - 1] = tile_of_two<T, R, Lie::rows>;
    table.kernel_listed_rows[R - 1][2 * V - 1] = tile_of_two<T, R, Lie::listed_rows>;
  }
  if constexpr (V > 1)
    fill_kernels<T, R, V - 1>(table);
  else if constexpr (R > 1)
    fill_kernels<T, R - 1, GEMMULE_TILE_VECTORS>(table);
}

template <class T>
constexpr GemmKernels<T> gemm_kernels(Index depth_block, Index column_block) {
  GemmKernels<T> table = {};
  table.rows = GEMMULE_TILE_ROWS;
  table.vectors = GEMMULE_TILE_VECTORS;
  table.lanes = lanes<T>;
  table.depth_block = depth_block;
  table.column_block = column_block;
  table.deep_chains = 1;
  table.deep_columns = column_block;
  table.two_panels = two_panels;
  fill_kernels<T, GEMMULE_TILE_ROWS, GEMMULE_TILE_VECTORS>(table);
  table.pack_a = pack_a<T>;
  table.pack_strips = pack_strips<T>;
  table.pack_b = pack_b<T>;
  table.transpose_out = transpose_out<T>;
  return table;
}

// ---- the ceiling ----

// As many chains as the tile has accumulators: more than latency (4-5 cycles) times FMA units (2).
template <class T>
static double fma_chains(Index iterations) {
  constexpr int chains = GEMMULE_TILE_ROWS * GEMMULE_TILE_VECTORS;
  Vec<T> acc[chains];
  // None starts at 1, where 0.999 x + 0.001 stays and the compiler can drop the chain.
  for (int i = 0; i < chains; ++i) acc[i] = splat(T(2) + T(i));
  const Vec<T> scale = splat(T(0.999)), shift = splat(T(0.001));
  for (Index it = 0; it < iterations; ++it)
#pragma GCC unroll 28
    for (int i = 0; i < chains; ++i) acc[i] = acc[i] * scale + shift;
  T keep = 0;
  for (int i = 0; i < chains; ++i) keep += horizontal_sum<T>(acc[i]);
  asm volatile("" : : "m"(keep));  // used, as far as the compiler knows
  return 2.0 * chains * lanes<T> * double(iterations);
}

}  // namespace gemmule::cpu::GEMMULE_ISA
