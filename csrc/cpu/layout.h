// What only moves elements, or drops them, by a member of a team: zeros around images, columns of matrices
// side by side, whole channels set to zero. Memory bounds them all, so that they need no kernel of an ISA.
#pragma once
#include "core/threads.h"
#include "core/window.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// Images (images, height, width, channels), and how many rows and columns of zeros stand around them: what
// the window has before and after. The padded ones are (images, top + height + bottom, left + width + right,
// channels).
struct Frame {
  Index images, height, width, channels;
  Window around;
};

template <class T>
void pad(const Team& team, const Frame& frame, const T* x, T* padded);
template <class T>
void crop(const Team& team, const Frame& frame, const T* padded, T* x);

// The first `cols` elements of every row, which lie src_row and dst_row apart.
template <class T>
void copy_columns(const Team& team, Index rows, Index cols, const T* src, Index src_row, T* dst,
                  Index dst_row);

// dst = x mask / (1 - rate) for samples (pixels, channels), the mask being that of dropout on the channels
// alone. The workspace holds `channels` elements; dst may be x.
template <class T>
void channel_dropout(const Team& team, const DropoutArgs& args, Index first_sample, Index samples,
                     Index pixels, Index channels, const T* x, T* dst, T* workspace);

}  // namespace gemmule::cpu
