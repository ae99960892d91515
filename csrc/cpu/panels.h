// Between a matrix and its panels (Form::panels in cpu/gemm.h). Each member of the team moves its share.
#pragma once
#include "cpu/gemm.h"

namespace gemmule::cpu {

// `panels` holds panel_elements(b.rows, b.cols).
template <class T>
void to_panels(const GemmKernels<T>& k, const Team& team, const MatrixView<const T>& b, T* panels);

// Row by row into a C-contiguous matrix (rows, cols), and, as the transpose, into one (cols, rows).
template <class T>
void from_panels(const GemmKernels<T>& k, const Team& team, Index rows, Index cols, const T* panels,
                 T* matrix);
template <class T>
void from_panels_of_transpose(const GemmKernels<T>& k, const Team& team, Index rows, Index cols,
                              const T* panels, T* matrix);

}  // namespace gemmule::cpu
