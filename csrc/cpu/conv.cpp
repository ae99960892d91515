#include "cpu/conv.h"

#include <numeric>

#include "cpu/conv_slide.h"
#include "cpu/panels.h"
#include "cpu/winograd.h"

namespace gemmule::cpu {
namespace {

// ---- forward ----

template <class T>
Sliding<T> sliding(const ConvForward<T>& call, const T* panels) {
  const ConvSizes& s = call.sizes;
  const Index row = s.out_width() * s.filters;
  return {call.x,   s.images,  s.height,  s.width,  s.channels,     s.groups,      is_depthwise(s),
          s.window, panels,    s.filters, call.z,   s.out_height(), s.out_width(), s.out_height() * row,
          row,      s.filters, call.bias, call.act, call.slope,     nullptr,       call.residual};
}

template <class T>
Index filters_size(const GemmKernels<T>& k, Index groups, Index depth, Index filters) {
  return whole_lines<T>(checked_mul(groups, panel_elements(k, depth, filters)));
}

// Filters in panels, times their scale. Each member scales what it packed.
template <class T>
void pack_filters(const GemmKernels<T>& k, const Team& team, const ConvForward<T>& call, T* panels) {
  const ConvSizes& s = call.sizes;
  const bool depthwise = is_depthwise(s);
  const Index depth = s.depth(), filters = depthwise ? s.filters : s.group_filters();
  const Index width = panel_width(k, filters);
  const Span mine = team.share(filters, width);
  for (Index first = 0; first < s.filters; first += filters) {
    T* const group = panels + first / filters * panel_elements(k, depth, filters);
    to_panels(k, team, {call.weight + first * depth, depth, filters, 1, depth}, group);
    if (!call.scale) continue;
    for (Index j = mine.begin; j < mine.end; j += width)
      for (Index p = 0; p < depth; ++p)
        for (Index i = 0; i < std::min(width, mine.end - j); ++i)
          group[j * depth + p * width + i] *= call.scale[first + j + i];
  }
}

// With windows of one pixel, rows that lie one behind the other are one longer row, whose tiles have no rests
// at the ends of image rows: as many as a member has in its L2 with their results.
template <class Call>
Call with_long_rows(Call call) {
  constexpr Index most_bytes = 256 * 1024;
  ConvSizes& s = call.sizes;
  if (!is_gemm(s)) return call;
  const Index row = s.width * (s.channels + s.filters) * static_cast<Index>(sizeof(*call.weight));
  for (Index rows = s.height; rows > 1; --rows)
    if (s.height % rows == 0 && rows * row <= most_bytes) {
      s.width *= rows;
      s.height /= rows;
      break;
    }
  return call;
}

// The epilogue of a product has no scale and no residual.
template <class T>
ConvPath path_of(const ConvForward<T>& call) {
  const ConvPath path = forward_path(call.sizes);
  return path == ConvPath::gemm && (call.scale || call.residual) ? ConvPath::direct : path;
}

template <class T>
Gemm<T> as_gemm(const ConvForward<T>& call) {
  const ConvSizes& s = call.sizes;
  Gemm<T> g;
  g.a = {call.x, s.images * s.height * s.width, s.channels, s.channels, 1};
  g.b = {call.weight, s.channels, s.filters, 1, s.channels};
  g.c = call.z;
  g.c_row = s.filters;
  g.bias = call.bias;
  g.act = call.act;
  g.slope = call.slope;
  return g;
}

Index tile_of(ConvPath path) { return path == ConvPath::winograd4 ? 4 : 2; }

template <class T>
WinogradCall<T> as_winograd(const ConvForward<T>& call, ConvPath path) {
  const ConvSizes& s = call.sizes;
  return {tile_of(path),     call.x,        s.images,   s.height, s.width,    s.channels, s.window.y.before,
          s.window.x.before, call.weight,   s.channels, 1,        s.depth(),  s.filters,  call.z,
          s.out_height(),    s.out_width(), call.bias,  call.act, call.slope, nullptr,    call.scale,
          call.residual};
}

// ---- the image's gradient ----

template <class T>
ConvPath path_of(const ConvData<T>& call) {
  const ConvPath path = data_path(call.sizes);
  return path == ConvPath::gemm && call.residual ? ConvPath::direct : path;
}

template <class T>
Gemm<T> as_gemm(const ConvData<T>& call) {
  const ConvSizes& s = call.sizes;
  Gemm<T> g;
  g.a = {call.dz, s.images * s.height * s.width, s.filters, s.filters, 1};
  g.b = {call.weight, s.filters, s.channels, s.channels, 1};
  g.c = call.dx;
  g.c_row = s.channels;
  g.bias = call.bias;
  g.saved = call.saved;
  g.act = call.act;
  g.slope = call.slope;
  return g;
}

// Over dz, its taps backwards.
template <class T>
WinogradCall<T> as_winograd(const ConvData<T>& call, ConvPath path) {
  const ConvSizes& s = call.sizes;
  return {tile_of(path),
          call.dz,
          s.images,
          s.out_height(),
          s.out_width(),
          s.filters,
          2 - s.window.y.before,
          2 - s.window.x.before,
          call.weight + 8 * s.channels,
          -s.channels,
          s.depth(),
          1,
          s.channels,
          call.dx,
          s.height,
          s.width,
          call.bias,
          call.act,
          call.slope,
          call.saved,
          nullptr,
          call.residual};
}

// Along one axis, the pixels of x that meet the same taps are `stride` apart: those at which
// (x + before) mod stride is `residue`. For them dx is a sum over dz without gaps, its taps backwards.
struct Phase {
  Index first_tap = 0, tap_step = 1;  // in W, of the tap that is used last
  Index first = 0, count = 0;         // pixels of x, a stride apart
  WindowAxis axis;                    // over dz; kernel 0: no tap meets them
};

Phase phase_of(const WindowAxis& axis, Index size, Index residue) {
  Phase phase;
  const Index gcd = std::gcd(axis.dilation, axis.stride);
  phase.tap_step = axis.stride / gcd;
  while (phase.first_tap < axis.kernel && phase.first_tap * axis.dilation % axis.stride != residue)
    ++phase.first_tap;
  phase.axis.kernel =
      phase.first_tap < axis.kernel ? (axis.kernel - 1 - phase.first_tap) / phase.tap_step + 1 : 0;
  phase.axis.dilation = axis.dilation / gcd;
  phase.first = ((residue - axis.before) % axis.stride + axis.stride) % axis.stride;
  phase.count = phase.first < size ? (size - 1 - phase.first) / axis.stride + 1 : 0;
  // The first pixel meets its first tap at this output, and its last one before that.
  const Index output = (phase.first + axis.before - phase.first_tap * axis.dilation) / axis.stride;
  phase.axis.before = (phase.axis.kernel - 1) * phase.axis.dilation - output;
  return phase;
}

// Filters of a phase in panels: (r, s, k) x c, taps backwards.
template <class T>
void pack_flipped(const GemmKernels<T>& k, const Team& team, const ConvSizes& s, const T* weight,
                  const Phase& py, const Phase& px, T* panels) {
  const Index channels = s.group_channels(), filters = s.group_filters();
  const Index depth = py.axis.kernel * px.axis.kernel * filters, row = s.depth();
  const auto tap_at = [&](Index r, Index t) {
    const Index tap_y = py.first_tap + (py.axis.kernel - 1 - r) * py.tap_step;
    const Index tap_x = px.first_tap + (px.axis.kernel - 1 - t) * px.tap_step;
    return tap_y * s.window.x.kernel + tap_x;
  };
  if (is_depthwise(s)) {
    const Index width = panel_width(k, s.channels), taps = py.axis.kernel * px.axis.kernel;
    const Span part = team.share(s.channels, width);
    for (Index j = part.begin; j < part.end; j += width)
      for (Index i = 0; i < taps; ++i)
        k.pack_b(1, std::min(width, part.end - j), width,
                 weight + j * row + tap_at(i / px.axis.kernel, i % px.axis.kernel), 0, row,
                 panels + j * taps + i * width);
    return;
  }
  const Index width = panel_width(k, channels);
  const Span part = team.share(channels, width);
  for (Index g = 0; g < s.groups; ++g)
    for (Index j = part.begin; j < part.end; j += width)
      for (Index r = 0; r < py.axis.kernel; ++r)
        for (Index t = 0; t < px.axis.kernel; ++t) {
          const Index tap = tap_at(r, t);
          k.pack_b(filters, std::min(width, part.end - j), width,
                   weight + g * filters * row + tap * channels + j, row, 1,
                   panels + g * panel_elements(k, depth, channels) + j * depth +
                       (r * px.axis.kernel + t) * filters * width);
        }
}

template <class T>
Sliding<T> sliding(const ConvData<T>& call, const Phase& py, const Phase& px, const T* panels) {
  const ConvSizes& s = call.sizes;
  const Index row = s.width * s.channels;
  const Index start = py.first * row + px.first * s.channels;
  return {call.dz,
          s.images,
          s.out_height(),
          s.out_width(),
          s.filters,
          s.groups,
          is_depthwise(s),
          {py.axis, px.axis},
          panels,
          s.channels,
          call.dx + start,
          py.count,
          px.count,
          s.height * row,
          s.window.y.stride * row,
          s.window.x.stride * s.channels,
          call.bias,
          call.act,
          call.slope,
          call.saved ? call.saved + start : nullptr,
          call.residual ? call.residual + start : nullptr};
}

// body(py, px) for all pixels of x, by phases.
template <class Body>
void for_each_phase(const ConvSizes& s, const Body& body) {
  for (Index y = 0; y < s.window.y.stride; ++y)
    for (Index x = 0; x < s.window.x.stride; ++x) {
      const Phase py = phase_of(s.window.y, s.height, y);
      const Phase px = phase_of(s.window.x, s.width, x);
      if (py.count > 0 && px.count > 0) body(py, px);
    }
}

// No window meets these pixels: their sums are empty.
template <class T>
void clear(const Kernels<T>& kernels, const Team& team, const ConvData<T>& call, const Phase& py,
           const Phase& px) {
  const ConvSizes& s = call.sizes;
  const Span part = team.share(s.images);
  for (Index n = part.begin; n < part.end; ++n)
    for (Index i = 0; i < py.count; ++i)
      for (Index j = 0; j < px.count; ++j) {
        const Index y = py.first + i * s.window.y.stride, x = px.first + j * s.window.x.stride;
        const Index at = ((n * s.height + y) * s.width + x) * s.channels;
        T* const dx = call.dx + at;
        if (call.bias)
          std::copy_n(call.bias, s.channels, dx);
        else
          std::fill_n(dx, s.channels, T(0));
        if (call.residual) kernels.element.add(s.channels, dx, call.residual + at, dx);
        if (call.saved)
          kernels.element.activation_grad(call.act, call.slope, s.channels, dx, call.saved + at, dx);
        else if (call.act != Act::identity)
          kernels.element.activation(call.act, call.slope, s.channels, dx, dx);
      }
}

// In bytes, of the elements that the direct path needs and, where so many images go Winograd's way, both of
// his, or of a product: fewer images may go another way.
template <class T, class Call>
Index bytes_of_largest(const Kernels<T>& kernels, const Call& call, ConvPath path, Index elements) {
  if (is_winograd(path))
    for (ConvPath way : {ConvPath::winograd, ConvPath::winograd4})
      elements = std::max(elements, winograd_workspace(kernels, as_winograd(call, way)));
  const Index bytes = checked_mul(elements, static_cast<Index>(sizeof(T)));
  return is_gemm(call.sizes) ? std::max(bytes, gemm_workspace(kernels, as_gemm(call))) : bytes;
}

}  // namespace

template <class T>
const char* conv_path(const ConvForward<T>& call) {
  return describe(path_of(call));
}

template <class T>
const char* conv_path(const ConvData<T>& call) {
  return describe(path_of(call));
}

template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvForward<T>& given) {
  const ConvPath path = path_of(given);
  if (path == ConvPath::gemm) return gemm_workspace(kernels, as_gemm(given));
  const ConvForward<T> call = with_long_rows(given);
  const ConvSizes& s = call.sizes;
  const Index filters = filters_size(kernels.gemm, s.groups, s.depth(), s.group_filters());
  const Index direct = checked_add(
      filters, whole_lines<T>(Slider<T>::workspace_size(kernels.gemm, sliding<T>(call, nullptr))));
  return bytes_of_largest<T>(kernels, call, path, direct);
}

template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvForward<T>& given, void* workspace) {
  const ConvPath path = path_of(given);
  if (path == ConvPath::gemm) return gemm(kernels, team, as_gemm(given), workspace);
  const ConvForward<T> call = with_long_rows(given);
  if (is_winograd(path)) return winograd(kernels, team, as_winograd(call, path), static_cast<T*>(workspace));
  const ConvSizes& s = call.sizes;
  T* const panels = static_cast<T*>(team.common(workspace));
  T* const buffer =
      static_cast<T*>(workspace) + filters_size(kernels.gemm, s.groups, s.depth(), s.group_filters());
  pack_filters(kernels.gemm, team, call, panels);
  team.barrier();
  Slider<T>(kernels, sliding<T>(call, panels), buffer).run(team);
  team.barrier();  // the leading member's workspace is its own again
}

template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvData<T>& given) {
  const ConvPath path = path_of(given);
  if (path == ConvPath::gemm) return gemm_workspace(kernels, as_gemm(given));
  const ConvData<T> call = with_long_rows(given);
  const ConvSizes& s = call.sizes;
  const Index filters =
      filters_size(kernels.gemm, s.groups, s.window.taps() * s.group_filters(), s.group_channels());
  Index buffer = 0;
  for_each_phase(s, [&](const Phase& py, const Phase& px) {
    if (py.axis.kernel > 0 && px.axis.kernel > 0)
      buffer = std::max(buffer, Slider<T>::workspace_size(kernels.gemm, sliding<T>(call, py, px, nullptr)));
  });
  return bytes_of_largest<T>(kernels, call, path, checked_add(filters, whole_lines<T>(buffer)));
}

template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvData<T>& given, void* workspace) {
  const ConvPath path = path_of(given);
  if (path == ConvPath::gemm) return gemm(kernels, team, as_gemm(given), workspace);
  const ConvData<T> call = with_long_rows(given);
  if (is_winograd(path)) return winograd(kernels, team, as_winograd(call, path), static_cast<T*>(workspace));
  const ConvSizes& s = call.sizes;
  T* const panels = static_cast<T*>(team.common(workspace));
  T* const buffer =
      static_cast<T*>(workspace) +
      filters_size(kernels.gemm, s.groups, s.window.taps() * s.group_filters(), s.group_channels());
  for_each_phase(s, [&](const Phase& py, const Phase& px) {
    if (py.axis.kernel == 0 || px.axis.kernel == 0) return clear(kernels, team, call, py, px);
    pack_flipped(kernels.gemm, team, s, call.weight, py, px, panels);
    team.barrier();
    Slider<T>(kernels, sliding<T>(call, py, px, panels), buffer).run(team);
    team.barrier();  // the panels are free for the next phase, the workspace for the next op
  });
}

#define GEMMULE_INSTANTIATE(T)                                                         \
  template const char* conv_path<T>(const ConvForward<T>&);                            \
  template const char* conv_path<T>(const ConvData<T>&);                               \
  template Index conv_workspace<T>(const Kernels<T>&, const ConvForward<T>&);          \
  template Index conv_workspace<T>(const Kernels<T>&, const ConvData<T>&);             \
  template void conv<T>(const Kernels<T>&, const Team&, const ConvForward<T>&, void*); \
  template void conv<T>(const Kernels<T>&, const Team&, const ConvData<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
