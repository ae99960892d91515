// Lines of the cache, of 64 bytes on every CPU there are kernels for. Plain data: ISA files include this
// header.
#pragma once
#include "core/kinds.h"

namespace gemmule {

inline constexpr Index line_bytes = 64;
template <class T>
inline constexpr Index in_a_line = line_bytes / static_cast<Index>(sizeof(T));  // elements

}  // namespace gemmule
