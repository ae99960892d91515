// Normalization within a sample: groups of its channels, over all pixels, have a mean and a variance each.
// Wu and He 2018; with one pixel and one group it is that of Ba, Kiros and Hinton 2016, by layer.
//   stats (samples, groups, 2): mean, 1 / sqrt(variance + eps)
#pragma once
#include "core/threads.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// x (samples, pixels, groups, channels); gamma and beta (groups, channels).
struct GroupNormSizes {
  Index samples = 0, pixels = 1, groups = 1, channels = 1;
  Index width() const { return groups * channels; }
};

// y = act(gamma (x - mean) / sqrt(variance + eps) + beta), act identity, relu or leaky_relu.
template <class T>
struct GroupNorm {
  GroupNormSizes sizes;
  const T* x;
  const T *gamma = nullptr, *beta = nullptr;  // nullptr both: 1 and 0
  double eps = 0;
  Act act = Act::identity;
  T slope = 1;
  T* y = nullptr;
  T* stats = nullptr;  // nullptr: not wanted
};

// dx from d = dy act'(saved).
template <class T>
struct GroupNormGrad {
  GroupNormSizes sizes;
  const T *dy, *x, *stats, *gamma = nullptr, *saved = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* dx = nullptr;
};

// sums (2, groups channels): of d and of d (x - mean) / sqrt(variance + eps), over samples and pixels.
template <class T>
struct GroupNormSums {
  GroupNormSizes sizes;
  const T *dy, *x, *stats, *saved = nullptr;
  Act act = Act::identity;
  T slope = 1;
  T* sums = nullptr;
};

// Bytes of workspace that one member needs for this many samples or fewer; `sums`: for GroupNormSums.
template <class T>
Index group_norm_workspace(const GroupNormSizes& sizes, bool sums);

// Called by every member of the team; `workspace` is the member's own. A sample is one member's; sums over
// samples are made by blocks of a size that the shape gives, and of blocks in order, in double. Ends without
// a barrier.
template <class T>
void norm(const Team& team, const GroupNorm<T>& call, void* workspace);
template <class T>
void norm(const Team& team, const GroupNormGrad<T>& call, void* workspace);
template <class T>
void norm(const Team& team, const GroupNormSums<T>& call, void* workspace);

}  // namespace gemmule::cpu
