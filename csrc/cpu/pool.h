// Pooling of images (N, H, W, C), by a member of a team: what the kernels of kernels.h make, row by row. Rows
// of all images are divided over the team, and every row is made by one member alone: results do not depend
// on how many they are.
#pragma once
#include <span>

#include "core/threads.h"
#include "core/window.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// A window that check_pool has passed, over images of these (H, W, C).
PoolShape pool_shape(const Window& window, std::span<const Index> image, bool count_padding);

// x (images, H, W, C), y and places (images, H', W', C); places may be nullptr.
template <class T>
void max_pool(const Team& team, const PoolShape& shape, Index images, const T* x, T* y, std::uint8_t* places);
template <class T>
void max_pool_grad(const Team& team, const PoolShape& shape, Index images, const T* dy,
                   const std::uint8_t* places, T* dx);
template <class T>
void avg_pool(const Team& team, const PoolShape& shape, Index images, const T* x, T* y);
template <class T>
void avg_pool_grad(const Team& team, const PoolShape& shape, Index images, const T* dy, T* dx);

}  // namespace gemmule::cpu
