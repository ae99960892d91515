// Normalization over the batch: the elements of a channel, over all samples and pixels, share a mean and a
// variance. Ioffe and Szegedy 2015.
//   stats (3, C): mean, 1 / sqrt(variance + eps), and the unbiased variance (-1 of a single element)
#pragma once
#include "core/threads.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// x (pixels, channels), whatever axes the pixels come from.
struct NormSizes {
  Index pixels = 0, channels = 0;
};

template <class T>
struct BatchStats {
  NormSizes sizes;
  const T* x;
  double eps;
  T* stats;
};

// y = act(gamma (x - mean) / sqrt(variance + eps) + beta + residual), act identity, relu or leaky_relu.
template <class T>
struct BatchNorm {
  NormSizes sizes;
  const T *x, *stats;
  const T *gamma = nullptr, *beta = nullptr;  // nullptr: 1 and 0
  const T* residual = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* y = nullptr;
};

// sums (2, C): of d and of d (x - mean) / sqrt(variance + eps), where d = dy act'(saved).
template <class T>
struct BatchNormSums {
  NormSizes sizes;
  const T *dy, *x, *stats, *saved = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* sums = nullptr;
};

// dx; `sums` are nullptr where the statistics are not those of x.
template <class T>
struct BatchNormGrad {
  NormSizes sizes;
  const T *dy, *x, *stats, *gamma = nullptr, *sums = nullptr, *saved = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* dx = nullptr;
};

// Bytes of workspace that one member needs for this many pixels or fewer.
template <class T>
Index norm_workspace(const NormSizes& sizes);

// Called by every member of the team; `workspace` is the member's own. Pixels are summed in blocks of a size
// that the channels give, and blocks in order, in double. Ends without a barrier.
template <class T>
void norm(const Team& team, const BatchStats<T>& call, void* workspace);
template <class T>
void norm(const Team& team, const BatchNorm<T>& call, void* workspace);
template <class T>
void norm(const Team& team, const BatchNormSums<T>& call, void* workspace);
template <class T>
void norm(const Team& team, const BatchNormGrad<T>& call, void* workspace);

}  // namespace gemmule::cpu
