// How the pixels along one axis of an image are made from those along another, of another size. The rules are
// PyTorch's, of interpolate and of adaptive pooling.
#pragma once
#include "core/tensor.h"

namespace gemmule {

enum class Resize : std::uint8_t {
  nearest,
  linear,   // the centres of the first and last pixels lie inside the others' (align_corners=False)
  corners,  // and here upon them
  mean,     // over the pixels that a result's share of the axis touches
};

struct ResizeAxis {
  Index size = 1, outputs = 1;
  double scale = 0;  // results per pixel where that is not outputs / size; 0: it is. nearest and linear only
};

// Result o is the sum over pixels i in [begin, end) of x[i] weight(i). Both grow with o; pixels of weight 0
// are not in it.
struct Taps {
  Index begin, end;
  double first, other;  // the weight of pixel `begin`, and of those behind it
  double weight(Index pixel) const { return pixel == begin ? first : other; }
};

Taps taps_of(Resize kind, const ResizeAxis& axis, Index output);

// Errors that begin with `op`: of kind shape for an image that is not (H, W, C) with pixels, of kind value
// for a scale that is none.
void check_resize(const char* op, Resize kind, const Shape& image, const Shape& result, double scale_y,
                  double scale_x);

Resize resize_of(const std::string& name);
const char* name_of(Resize kind);

}  // namespace gemmule
