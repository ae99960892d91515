#include "cpu/panels.h"

#include <algorithm>

namespace gemmule::cpu {

template <class T>
void to_panels(const GemmKernels<T>& k, const Team& team, const MatrixView<const T>& b, T* panels) {
  const Index width = panel_width(k, b.cols);
  const Span part = team.share(b.cols, width);
  k.pack_b(b.rows, part.size(), width, b.data + part.begin * b.col_stride, b.row_stride, b.col_stride,
           panels + part.begin * b.rows);
}

template <class T>
void from_panels(const GemmKernels<T>& k, const Team& team, Index rows, Index cols, const T* panels,
                 T* matrix) {
  const Index width = panel_width(k, cols);
  const Span part = team.share(rows);
  for (Index p = part.begin; p < part.end; ++p)
    for (Index j = 0; j < cols; j += width)
      std::copy_n(panels + j * rows + p * width, std::min(width, cols - j), matrix + p * cols + j);
}

template <class T>
void from_panels_of_transpose(const GemmKernels<T>& k, const Team& team, Index rows, Index cols,
                              const T* panels, T* matrix) {
  const Index width = panel_width(k, cols);
  const Span part = team.share(cols, width);
  for (Index j = part.begin; j < part.end; j += width)
    k.transpose_out(std::min(width, part.end - j), rows, panels + j * rows, width, matrix + j * rows, rows,
                    nullptr, Act::identity, T(1));
}

#define GEMMULE_INSTANTIATE(T)                                                                    \
  template void to_panels<T>(const GemmKernels<T>&, const Team&, const MatrixView<const T>&, T*); \
  template void from_panels<T>(const GemmKernels<T>&, const Team&, Index, Index, const T*, T*);   \
  template void from_panels_of_transpose<T>(const GemmKernels<T>&, const Team&, Index, Index, const T*, T*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
