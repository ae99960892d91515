// Winograd's transforms: channels are the lanes, so a tile of pixels is a matrix of vectors. Contracts:
// cpu/kernels.h; the mathematics: docs/kernels.md.
#pragma once
#include "cpu/isa/gemm.inl"
#include "cpu/isa/loops.h"

namespace gemmule::cpu::GEMMULE_ISA {

// One axis of F(M x M, 3 x 3): B^T x, G w and A^T m of vectors, and A e and G^T u, which carry gradients
// back. `fetch(i)` gives the i-th, `put(i, v)` takes it.
template <class T, int M>
struct Winograd;

// The points 0, 1, -1 and infinity.
template <class T>
struct Winograd<T, 2> {
  static constexpr int size = 4;

  template <class Fetch, class Put>
  GM_INLINE void input(const Fetch& x, const Put& put) {
    const Vec<T> x1 = x(1), x2 = x(2);
    put(0, x(0) - x2);
    put(1, x1 + x2);
    put(2, x2 - x1);
    put(3, x(3) - x1);
  }
  template <class Fetch, class Put>
  GM_INLINE void filter(const Fetch& w, const Put& put) {
    const Vec<T> w0 = w(0), w1 = w(1), w2 = w(2), ends = w0 + w2;
    put(0, w0);
    put(1, T(0.5) * (ends + w1));
    put(2, T(0.5) * (ends - w1));
    put(3, w2);
  }
  template <class Fetch, class Put>
  GM_INLINE void output(const Fetch& m, const Put& put) {
    const Vec<T> m1 = m(1), m2 = m(2);
    put(0, m(0) + m1 + m2);
    put(1, m1 - m2 + m(3));
  }
  template <class Fetch, class Put>
  GM_INLINE void output_grad(const Fetch& e, const Put& put) {
    const Vec<T> e0 = e(0), e1 = e(1);
    put(0, e0);
    put(1, e0 + e1);
    put(2, e0 - e1);
    put(3, e1);
  }
  template <class Fetch, class Put>
  GM_INLINE void filter_grad(const Fetch& u, const Put& put) {
    const Vec<T> u1 = T(0.5) * u(1), u2 = T(0.5) * u(2);
    put(0, u(0) + (u1 + u2));
    put(1, u1 - u2);
    put(2, (u1 + u2) + u(3));
  }
};

// The points 0, a, -a, b, -b and infinity with a = 5/8, b = 3/2: their powers are exact, and rounding errors
// half of those of the usual 1 and 2 (docs/kernels.md).
template <class T>
struct Winograd<T, 4> {
  static constexpr int size = 6;
  static constexpr double a = 0.625, b = 1.5, aa = a * a, bb = b * b;
  static constexpr double of_a = 1 / (2 * aa * (aa - bb)), of_b = 1 / (2 * bb * (bb - aa));

  template <class Fetch, class Put>
  GM_INLINE void input(const Fetch& x, const Put& put) {
    const Vec<T> x1 = x(1), x2 = x(2), x3 = x(3), x4 = x(4);
    put(0, (x4 - T(aa + bb) * x2) + T(aa * bb) * x(0));
    put(5, (x(5) - T(aa + bb) * x3) + T(aa * bb) * x1);
    const Vec<T> even_a = x4 - T(bb) * x2, odd_a = x3 - T(bb) * x1;
    put(1, even_a + T(a) * odd_a);
    put(2, even_a - T(a) * odd_a);
    const Vec<T> even_b = x4 - T(aa) * x2, odd_b = x3 - T(aa) * x1;
    put(3, even_b + T(b) * odd_b);
    put(4, even_b - T(b) * odd_b);
  }
  template <class Fetch, class Put>
  GM_INLINE void filter(const Fetch& w, const Put& put) {
    const Vec<T> w0 = w(0), w1 = w(1), w2 = w(2);
    put(0, T(1 / (aa * bb)) * w0);
    const Vec<T> ends_a = T(of_a) * w0 + T(of_a * aa) * w2, ends_b = T(of_b) * w0 + T(of_b * bb) * w2;
    put(1, ends_a + T(of_a * a) * w1);
    put(2, ends_a - T(of_a * a) * w1);
    put(3, ends_b + T(of_b * b) * w1);
    put(4, ends_b - T(of_b * b) * w1);
    put(5, w2);
  }
  template <class Fetch, class Put>
  GM_INLINE void output(const Fetch& m, const Put& put) {
    const Vec<T> m1 = m(1), m2 = m(2), m3 = m(3), m4 = m(4);
    const Vec<T> sum_a = m1 + m2, sum_b = m3 + m4, gap_a = m1 - m2, gap_b = m3 - m4;
    put(0, m(0) + sum_a + sum_b);
    put(1, T(a) * gap_a + T(b) * gap_b);
    put(2, T(aa) * sum_a + T(bb) * sum_b);
    put(3, m(5) + T(a * aa) * gap_a + T(b * bb) * gap_b);
  }
  template <class Fetch, class Put>
  GM_INLINE void output_grad(const Fetch& e, const Put& put) {
    const Vec<T> e0 = e(0), e1 = e(1), e2 = e(2), e3 = e(3);
    put(0, e0);
    const Vec<T> even_a = e0 + T(aa) * e2, odd_a = e1 + T(aa) * e3;
    put(1, even_a + T(a) * odd_a);
    put(2, even_a - T(a) * odd_a);
    const Vec<T> even_b = e0 + T(bb) * e2, odd_b = e1 + T(bb) * e3;
    put(3, even_b + T(b) * odd_b);
    put(4, even_b - T(b) * odd_b);
    put(5, e3);
  }
  template <class Fetch, class Put>
  GM_INLINE void filter_grad(const Fetch& u, const Put& put) {
    const Vec<T> u1 = u(1), u2 = u(2), u3 = u(3), u4 = u(4);
    const Vec<T> sum_a = u1 + u2, sum_b = u3 + u4, gap_a = u1 - u2, gap_b = u3 - u4;
    put(0, T(1 / (aa * bb)) * u(0) + T(of_a) * sum_a + T(of_b) * sum_b);
    put(1, T(of_a * a) * gap_a + T(of_b * b) * gap_b);
    put(2, u(5) + T(of_a * aa) * sum_a + T(of_b * bb) * sum_b);
  }
};

#define GEMMULE_FOR(i, count) _Pragma("GCC unroll 8") for (int i = 0; i < (count); ++i)

// The arguments are copied: a vector that is stored might else change them.
template <class T, int M>
static void winograd_input(const WinogradInputArgs<T>& args) {
  const WinogradInputArgs<T> g = args;
  using W = Winograd<T, M>;
  constexpr int n = W::size;
  for_each_vector<T>(g.channels, [&](Index c, auto span) {
    Vec<T> t[n][n];
    GEMMULE_FOR(j, n)
    W::input([&](int i) { return span.load(g.pixels[i * n + j] + c); },
             [&](int i, Vec<T> v) { t[i][j] = v; });
    GEMMULE_FOR(i, n)
    W::input([&](int j) { return t[i][j]; },
             [&](int j, Vec<T> v) {
               T* const to = g.v + (i * n + j) * g.v_step + c;
               store(to, v);
             });
  });
}

template <class T, int M>
static void winograd_filters(const WinogradFilterArgs<T>& args) {
  const WinogradFilterArgs<T> g = args;
  using W = Winograd<T, M>;
  constexpr int n = W::size;
  for (Index c = 0; c < g.count; c += lanes<T>) {
    Vec<T> t[n][3];
    GEMMULE_FOR(j, 3)
    W::filter([&](int i) { return load(g.taps + (i * 3 + j) * g.tap_step + c); },
              [&](int i, Vec<T> v) { t[i][j] = v; });
    GEMMULE_FOR(i, n)
    W::filter([&](int j) { return t[i][j]; },
              [&](int j, Vec<T> v) { store(g.u + (i * n + j) * g.u_step + c, v); });
  }
}

template <class T, int M>
static void winograd_output(const WinogradOutputArgs<T>& args) {
  const WinogradOutputArgs<T> g = args;
  using W = Winograd<T, M>;
  constexpr int n = W::size;
  for_each_vector<T>(g.filters, [&](Index k, auto span) {
    Vec<T> t[M][n];
    GEMMULE_FOR(j, n)
    W::output([&](int i) { return load(g.m + (i * n + j) * g.m_step + k); },
              [&](int i, Vec<T> v) { t[i][j] = v; });
    const Vec<T> bias = g.bias ? span.load(g.bias + k) : Vec<T>{};
    GEMMULE_FOR(i, M) {
      if (i >= g.rows) break;
      T* const row = g.out + i * g.row_step + k;
      W::output([&](int j) { return t[i][j]; },
                [&](int j, Vec<T> v) {
                  if (j < g.cols)
                    span.store(row + j * g.pixel_step, activate_in_register<T>(v + bias, g.act, g.slope));
                });
    }
  });
}

template <class T, int M>
static void winograd_output_grad(const WinogradInputArgs<T>& args) {
  const WinogradInputArgs<T> g = args;
  using W = Winograd<T, M>;
  constexpr int n = W::size;
  for_each_vector<T>(g.channels, [&](Index c, auto span) {
    Vec<T> t[n][M];
    GEMMULE_FOR(j, M)
    W::output_grad([&](int i) { return span.load(g.pixels[i * M + j] + c); },
                   [&](int i, Vec<T> v) { t[i][j] = v; });
    GEMMULE_FOR(i, n)
    W::output_grad([&](int j) { return t[i][j]; },
                   [&](int j, Vec<T> v) { store(g.v + (i * n + j) * g.v_step + c, v); });
  });
}

template <class T, int M>
static void winograd_filters_grad(const WinogradFilterGradArgs<T>& args) {
  const WinogradFilterGradArgs<T> g = args;
  using W = Winograd<T, M>;
  constexpr int n = W::size;
  for (Index c = 0; c < g.count; c += lanes<T>) {
    Vec<T> t[3][n];
    GEMMULE_FOR(j, n)
    W::filter_grad([&](int i) { return load(g.u + (i * n + j) * g.u_step + c); },
                   [&](int i, Vec<T> v) { t[i][j] = v; });
    GEMMULE_FOR(i, 3)
    W::filter_grad([&](int j) { return t[i][j]; },
                   [&](int j, Vec<T> v) {
                     T* const to = g.taps + (i * 3 + j) * g.tap_step + c;
                     store(to, g.add ? load(to) + v : v);
                   });
  }
}

#undef GEMMULE_FOR

template <class T, int M>
constexpr WinogradKernels<T> winograd_kernels() {
  return {winograd_input<T, M>, winograd_filters<T, M>, winograd_output<T, M>, winograd_output_grad<T, M>,
          winograd_filters_grad<T, M>};
}

}  // namespace gemmule::cpu::GEMMULE_ISA
