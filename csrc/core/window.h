// How a window slides over an image (H, W): that of a convolution or of a pooling layer.
#pragma once
#include "core/tensor.h"

namespace gemmule {

// Along one axis the window at output o covers the places o stride - before + t dilation, t < kernel, of an
// axis that is zero outside.
struct WindowAxis {
  Index kernel = 1, stride = 1, before = 0, after = 0, dilation = 1;

  Index extent() const { return (kernel - 1) * dilation + 1; }
  // floor((size + before + after - extent) / stride) + 1; meaningful once `check` has passed.
  Index outputs(Index size) const { return (size + before + after - extent()) / stride + 1; }
  bool operator==(const WindowAxis&) const = default;
};

struct Window {
  WindowAxis y, x;

  Index taps() const { return y.kernel * x.kernel; }
  bool operator==(const Window&) const = default;
};

// Errors of kind value, or shape for an image (H, W, C) that is no image or smaller than the window; they
// begin with `op`.
void check_window(const char* op, const Window& window, const Shape& image);

// Filters (K, kh, kw, C / groups) for so many channels: errors of kind shape, or value for the groups.
void check_filters(const char* op, Index channels, const Shape& weight, Index groups);
// What check_window does, for pooling, whose windows have adjacent taps and hold at least one pixel each:
// padding is narrower than the kernel.
void check_pool(const char* op, const Window& window, const Shape& image);
// And few enough taps that a byte numbers them.
void check_max_pool(const char* op, const Window& window, const Shape& image);

// (H, W, C) -> (outputs, outputs, channels).
Shape slide(const Window& window, const Shape& image, Index channels);

}  // namespace gemmule
