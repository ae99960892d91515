// Images of another size, and the gradient of that, by a member of a team. Along both axes a result is a
// weighted sum of few pixels, so rows are combined first, whole, and then the pixels of that one row.
#pragma once
#include "core/resize.h"
#include "core/threads.h"

namespace gemmule::cpu {

// Images (images, y.size, x.size, channels) to (images, y.outputs, x.outputs, channels), both contiguous.
struct Resizing {
  Resize kind;
  Index images, channels;
  ResizeAxis y, x;
};

// Bytes of workspace that one member needs, whatever the number of images.
template <class T>
Index resize_workspace(const Resizing& shape);

// Every row is made by one member alone, in an order that depends on the sizes alone. Ends without a barrier.
// Sums over many rows or columns are those of sum_rows; of a gradient, there are as many terms as results
// that a pixel is in along one axis.
template <class T>
void resize(const Team& team, const Resizing& shape, const T* x, T* y, void* workspace);
template <class T>
void resize_grad(const Team& team, const Resizing& shape, const T* dy, T* dx, void* workspace);

}  // namespace gemmule::cpu
