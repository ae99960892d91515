// Convolutions of 3 x 3 by Winograd's algorithm: an image falls into tiles of m x m outputs, each the product
// of transformed pixels and transformed filters, (m + 2)^2 multiplications where 9 m^2 were; see
// docs/kernels.md.
#pragma once
#include "core/threads.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// out[n, i, j, :] = act(sum over r, s, c of x[n, i - before_y + r, j - before_x + s, c] W[r, s, c, :] +
// bias). An image's gradient is one too, with its filters turned about.
template <class T>
struct WinogradCall {
  Index outputs;  // m, along either side of a tile: 2 or 4
  const T* x;
  Index images, height, width, channels;
  Index before_y, before_x;  // may be negative
  const T* weight;           // W[0, 0, 0, 0]
  Index tap_step, channel_step, filter_step;
  Index filters;
  T* out;
  Index out_height, out_width;
  const T* bias;
  Act act;
  T slope;
  const T* saved;     // where given, out is multiplied by act'(saved), which lies as out does
  const T* scale;     // of filters, or nullptr
  const T* residual;  // like out, added before the activation or its derivative, or nullptr
};

// Elements of workspace that one member needs for this call or one with fewer images; addresses are not read.
template <class T>
Index winograd_workspace(const Kernels<T>& kernels, const WinogradCall<T>& call);

// Called by every member of the team; `workspace` is the member's own. Every output is made by one member in
// an order that depends on the sizes alone. Ends with a barrier.
template <class T>
void winograd(const Kernels<T>& kernels, const Team& team, const WinogradCall<T>& call, T* workspace);

// dW[k, r, s, c] = sum over n, i, j of dz[n, i, j, k] x[n, i - before_y + r, j - before_x + s, c], as a
// matrix (9 C, K) of rows (r, s, c).
template <class T>
struct WinogradWeights {
  Index outputs;  // m
  const T* x;
  Index images, height, width, channels;
  Index before_y, before_x;
  const T* dz;
  Index out_height, out_width, filters;
  // Parts of the images make sums of their own: each a matrix in panels, `part_size` elements behind the one
  // before. The first is added to what is there already where `accumulate`.
  T* panels;
  Index parts, part_size;
  bool accumulate;
};

// Parts that keep a team busy; fewer or as many for fewer images.
template <class T>
Index winograd_parts(const Kernels<T>& kernels, const WinogradWeights<T>& call);
// Elements of workspace that one member needs for this call or one with fewer images; addresses and parts are
// not read.
template <class T>
Index winograd_workspace(const Kernels<T>& kernels, const WinogradWeights<T>& call);

// Called by every member of the team; `workspace` is the member's own. Every sum is made by one member in an
// order that depends on the sizes alone. Ends without a barrier.
template <class T>
void winograd(const Kernels<T>& kernels, const Team& team, const WinogradWeights<T>& call, T* workspace);

}  // namespace gemmule::cpu
