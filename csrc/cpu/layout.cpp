#include "cpu/layout.h"

#include <algorithm>

#include "cpu/dispatch.h"

namespace gemmule::cpu {

template <class T>
void pad(const Team& team, const Frame& frame, const T* x, T* padded) {
  const WindowAxis &y = frame.around.y, &across = frame.around.x;
  const Index high = y.before + frame.height + y.after;
  const Index row = frame.width * frame.channels;
  const Index left = across.before * frame.channels, right = across.after * frame.channels;
  const Index wide = left + row + right;
  const Span mine = team.share(frame.images * high);
  for (Index r = mine.begin; r < mine.end; ++r) {
    const Index image = r / high, i = r % high - y.before;
    T* to = padded + r * wide;
    if (i < 0 || i >= frame.height) {
      std::fill_n(to, wide, T(0));
      continue;
    }
    std::fill_n(to, left, T(0));
    std::copy_n(x + (image * frame.height + i) * row, row, to + left);
    std::fill_n(to + left + row, right, T(0));
  }
}

template <class T>
void crop(const Team& team, const Frame& frame, const T* padded, T* x) {
  const WindowAxis &y = frame.around.y, &across = frame.around.x;
  const Index high = y.before + frame.height + y.after;
  const Index row = frame.width * frame.channels;
  const Index wide = (across.before + frame.width + across.after) * frame.channels;
  const Span mine = team.share(frame.images * frame.height);
  for (Index r = mine.begin; r < mine.end; ++r) {
    const Index image = r / frame.height, i = r % frame.height + y.before;
    std::copy_n(padded + (image * high + i) * wide + across.before * frame.channels, row, x + r * row);
  }
}

template <class T>
void copy_columns(const Team& team, Index rows, Index cols, const T* src, Index src_row, T* dst,
                  Index dst_row) {
  const Span mine = team.share(rows);
  for (Index r = mine.begin; r < mine.end; ++r) std::copy_n(src + r * src_row, cols, dst + r * dst_row);
}

template <class T>
void channel_dropout(const Team& team, const DropoutArgs& args, Index first_sample, Index samples,
                     Index pixels, Index channels, const T* x, T* dst, T* workspace) {
  const Span mine = team.share(samples);
  for (Index s = mine.begin; s < mine.end; ++s) {
    std::fill_n(workspace, channels, T(1));
    kernels<T>().element.dropout(args, first_sample + s, 1, channels, workspace, workspace);
    for (Index p = s * pixels; p < (s + 1) * pixels; ++p)
      for (Index c = 0; c < channels; ++c) dst[p * channels + c] = x[p * channels + c] * workspace[c];
  }
}

#define GEMMULE_LAYOUT(T)                                                                                 \
  template void pad<T>(const Team&, const Frame&, const T*, T*);                                          \
  template void crop<T>(const Team&, const Frame&, const T*, T*);                                         \
  template void copy_columns<T>(const Team&, Index, Index, const T*, Index, T*, Index);                   \
  template void channel_dropout<T>(const Team&, const DropoutArgs&, Index, Index, Index, Index, const T*, \
                                   T*, T*);
GEMMULE_LAYOUT(float)
GEMMULE_LAYOUT(double)
#undef GEMMULE_LAYOUT

}  // namespace gemmule::cpu
