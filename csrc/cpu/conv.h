// Convolutions on channels-last images: forward, and the gradients of the image and of the weights. The
// micro-kernel of the GEMM reads its rows of A from the image itself, so that nothing is unfolded; see
// docs/kernels.md.
#pragma once
#include <string>

#include "core/threads.h"
#include "core/window.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// What z = x * W is made of. Filters (K, kh, kw, C / groups); z (N, H', W', K).
struct ConvSizes {
  Index images = 0;
  Index height = 0, width = 0, channels = 0;  // of x
  Index filters = 0, groups = 1;
  Window window;
  bool strict = false;  // plain sums of products alone: no Winograd

  Index out_height() const { return window.y.outputs(height); }
  Index out_width() const { return window.x.outputs(width); }
  Index group_channels() const { return channels / groups; }
  Index group_filters() const { return filters / groups; }
  // Terms of a sum: elements of one filter.
  Index depth() const { return window.taps() * group_channels(); }
};

// z = act(x * (scale W) + bias + residual), act applied elementwise; scale and bias are by filter, residual
// is like z, each nullptr for none.
template <class T>
struct ConvForward {
  ConvSizes sizes;
  const T* x;
  const T* weight;
  const T* bias = nullptr;
  const T* scale = nullptr;
  const T* residual = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* z = nullptr;
};

// dx from dz, plus residual: times act'(saved), where `saved` is given, else act(dx + bias + residual). Saved
// and residual are like x, bias is by its channels; each nullptr for none.
template <class T>
struct ConvData {
  ConvSizes sizes;
  const T* dz;
  const T* weight;
  const T* bias = nullptr;
  const T* residual = nullptr;
  const T* saved = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* dx = nullptr;
};

// dW, or dW + what was there.
template <class T>
struct ConvWeights {
  ConvSizes sizes;
  const T* dz;
  const T* x;
  T* dweight;
  bool accumulate = false;
};

// Bytes of workspace that one member needs for this call or one with fewer images; addresses are not read.
template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvForward<T>& call);
template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvData<T>& call);
template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvWeights<T>& call);

// How it is computed, for people: "gemm", "direct".
template <class T>
const char* conv_path(const ConvForward<T>& call);
template <class T>
const char* conv_path(const ConvData<T>& call);
template <class T>
const char* conv_path(const ConvWeights<T>& call);

// The ways to compute it. Which one is taken depends on the sizes alone, but that a product (`gemm`) has no
// scale and no residual in its epilogue: `direct` then.
enum class ConvPath { gemm, depthwise, direct, winograd, winograd4 };
ConvPath forward_path(const ConvSizes& sizes);
ConvPath data_path(const ConvSizes& sizes);
ConvPath weights_path(const ConvSizes& sizes);
const char* describe(ConvPath path);  // for people
inline bool is_winograd(ConvPath path) { return path == ConvPath::winograd || path == ConvPath::winograd4; }

// For tests: "direct", "winograd" or "winograd4" is taken wherever it can be, "" chooses. GEMMULE_CONV says
// the same from outside. ErrorKind::value for another name.
void force_conv(const std::string& name);
std::string forced_conv();

// Called by every member of the team; `workspace` is the member's own. Every element is made by one member
// in an order that depends on the sizes alone. Ends without a barrier.
template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvForward<T>& call, void* workspace);
template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvData<T>& call, void* workspace);
template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvWeights<T>& call, void* workspace);

// Every channel has one filter of its own, short enough for a sum in a register.
inline bool is_depthwise(const ConvSizes& s) {
  return s.groups == s.channels && s.groups == s.filters && s.groups > 1 && s.window.taps() <= 128;
}

// A 1 x 1 window that moves by one pixel is a product of matrices (pixels, channels) and W^T.
inline bool is_gemm(const ConvSizes& s) { return s.window == Window{} && s.groups == 1; }

}  // namespace gemmule::cpu
