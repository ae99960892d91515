// Packing of one ISA: operands of products into strips and panels. Contracts: cpu/gemm_kernels.h; pictures:
// docs/kernels.md.
#pragma once
#include "cpu/gemm_kernels.h"
#include "cpu/isa/transpose.h"

namespace gemmule::cpu::GEMMULE_ISA {

// Stores the first n lanes, and perhaps those beyond: a masked store of AVX2 takes Zen 12 cycles, one of
// AVX-512 is cheaper than a whole vector across two lines (f64 at 512: 92 % of the ceiling, 89).
template <class T>
GM_INLINE void store_at_least(T* p, Vec<T> v, Index n) {
  if (GEMMULE_VECTOR_BYTES == 64 && n < lanes<T>)
    store_first(p, v, n);
  else
    store(p, v);
}

// Lanes beyond the first n of a column: zeros in a panel, which ends with a whole vector; in a strip
// anything.
template <class T, bool padded>
GM_INLINE void store_rows(T* p, Vec<T> v, Index n) {
  if (padded)
    store(p, n < lanes<T> ? (first_lanes<T>(n) ? v : Vec<T>{}) : v);
  else
    store_at_least<T>(p, v, n);
}

// One block of a transposed panel, lanes steps deep, in registers from end to end. Where it has fewer rows
// than lanes it reads the last again in place of those that it lacks.
template <class T, bool padded>
GM_INLINE void pack_block(Index rows, const T* src, Index stride, T* dst, Index width) {
  constexpr int n = lanes<T>;
  Vec<T> block[n];
#pragma GCC unroll 16
  for (int j = 0; j < n; ++j) {
    block[j] = load(src);
    if (j + 1 < rows) src += stride;
  }
  transpose<T>(block);
#pragma GCC unroll 16
  for (int p = 0; p < n; ++p) store_rows<T, padded>(dst + p * width, block[p], rows);
}

// The last `steps` < lanes of the depth.
template <class T, bool padded>
GM_INLINE void pack_last_block(Index rows, Index steps, const T* src, Index stride, T* dst, Index width) {
  constexpr Index n = lanes<T>;
  Vec<T> block[n];
  for (Index j = 0; j < n; ++j) block[j] = j < rows ? load_first(src + j * stride, steps) : Vec<T>{};
  transpose<T>(block);
  for (Index p = 0; p < steps; ++p) store_rows<T, padded>(dst + p * width, block[p], rows);
}

// Rows that lie along the depth become columns: dst[p * width + j] = src[j * stride + p] for j < count.
// Writes up to lanes - 1 elements more.
template <class T, bool padded = false>
GM_INLINE void pack_transposed(Index depth, Index count, Index width, const T* src, Index stride, T* dst) {
  constexpr Index n = lanes<T>;
  // Along the rows first: `lanes` streams at a time are what the hardware prefetcher follows. The last rows
  // come first: what their vectors hold beyond `count` is written over by the rows before them.
  for (Index j = (count - 1) / n * n; j >= 0; j -= n) {
    const T* from = src + j * stride;
    T* to = dst + j;
    Index p = 0;
    for (; p + n <= depth; p += n)
      if (j + n <= count)
        pack_block<T, padded>(n, from + p, stride, to + p * width, width);
      else
        pack_block<T, padded>(count - j, from + p, stride, to + p * width, width);
    if (p < depth) pack_last_block<T, padded>(count - j, depth - p, from + p, stride, to + p * width, width);
  }
}

// Columns that lie in one piece, copied by whole vectors: what those read and write beyond `height` lies
// before the end of the next column.
template <class T>
GM_INLINE void pack_columns(Index height, Index depth, const T* a, Index step, T* dst) {
  constexpr Index n = lanes<T>;
  Index p = 0;
  for (; step >= n && p + 1 < depth; ++p, a += step, dst += height)
    for (Index i = 0; i < height; i += n) store(dst + i, load(a + i));
  for (; p < depth; ++p, a += step, dst += height)
    for (Index i = 0; i < height; ++i) dst[i] = a[i];
}

// What is read of a column is read together: the columns of a batch that was never gathered lie on a page
// each. Exactly H elements are moved at a time: whole vectors, each written over by the next column's, take
// half as long again.
template <class T, int H>
GM_INLINE void pack_strips_of(const StripsArgs<T>& g) {
  for (Index p = 0; p < g.depth; ++p) {
    const T* from = g.list ? g.list[p] + g.first : g.a + p * g.step;
    T* to = g.dst + p * H;
    for (Index strip = 0; strip < g.count; ++strip, from += H, to += g.apart)
      std::memcpy(to, from, H * sizeof(T));
  }
}

template <class T, int H = GEMMULE_TILE_ROWS>
static void pack_strips(const StripsArgs<T>& g) {
  if (g.height == H) return pack_strips_of<T, H>(g);
  if constexpr (H > 1) pack_strips<T, H - 1>(g);
}

template <class T>
static void pack_a(Index height, Index depth, const T* a, Index row, Index step, T* dst) {
  constexpr Index tallest = GEMMULE_TILE_ROWS;  // a height known to the compiler saves a quarter
  if (step == 1 && height == tallest) {
    pack_transposed<T>(depth, tallest, tallest, a, row, dst);
  } else if (step == 1) {
    pack_transposed<T>(depth, height, height, a, row, dst);
  } else if (row == 1 && height == tallest) {
    pack_columns<T>(tallest, depth, a, step, dst);
  } else if (row == 1) {
    pack_columns<T>(height, depth, a, step, dst);
  } else {
    for (Index p = 0; p < depth; ++p)
      for (Index i = 0; i < height; ++i) dst[p * height + i] = a[i * row + p * step];
  }
}

// `panels` whole panels of a B that lies row by row. Four at a time: one would take a page for each line of
// B, and all of a block write lines that meet in one set of L1 (256 columns of 1024: 0.91 ticks an element
// with all sixteen, 0.54 one by one, 0.38 by fours). Eight rows ahead, as the prefetcher does not cross a
// page.
template <class T, int panels>
GM_INLINE void pack_panels(Index depth, const T* b, Index row, T* dst) {
  constexpr int width = GEMMULE_TILE_VECTORS * lanes<T>, line = int(in_a_line<T>), rows_ahead = 8;
  for (Index p = 0; p < depth; ++p, b += row, dst += width) {
#pragma GCC unroll 16
    for (int j = 0; j < panels * width; j += line) __builtin_prefetch(b + rows_ahead * row + j);
#pragma GCC unroll 4
    for (int k = 0; k < panels; ++k)
#pragma GCC unroll 4
      for (int i = 0; i < width; i += lanes<T>) store(dst + k * width * depth + i, load(b + k * width + i));
  }
}

template <class T>
static void pack_b(Index depth, Index cols, Index width, const T* b, Index row, Index step, T* dst) {
  constexpr Index n = lanes<T>, whole = GEMMULE_TILE_VECTORS * n;
  if (step == 1) {
    Index j = 0;
    for (; width == whole && j + 4 * whole <= cols; j += 4 * whole)
      pack_panels<T, 4>(depth, b + j, row, dst + j * depth);
    for (; width == whole && j + whole <= cols; j += whole)
      pack_panels<T, 1>(depth, b + j, row, dst + j * depth);
    for (; j < cols; j += width) {
      const Index count = cols - j < width ? cols - j : width;
      for (Index p = 0; p < depth; ++p) {
        const T* src = b + p * row + j;
        T* to = dst + j * depth + p * width;
        for (Index i = 0; i < width; i += n)
          store(to + i, i + n <= count ? load(src + i)
                        : i < count    ? load_first(src + i, count - i)
                                       : Vec<T>{});
      }
    }
    return;
  }
  for (Index j = 0; j < cols; j += width) {
    const Index count = cols - j < width ? cols - j : width;
    T* to = dst + j * depth;
    if (row == 1) {
      pack_transposed<T, true>(depth, count, width, b + j * step, step, to);
      for (Index i = (count + n - 1) / n * n; i < width; i += n)
        for (Index p = 0; p < depth; ++p) store(to + p * width + i, Vec<T>{});
    } else {
      for (Index p = 0; p < depth; ++p)
        for (Index i = 0; i < width; ++i) to[p * width + i] = i < count ? b[p * row + (j + i) * step] : T(0);
    }
  }
}

}  // namespace gemmule::cpu::GEMMULE_ISA
