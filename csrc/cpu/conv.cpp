#include "cpu/conv.h"

#include <numeric>

#include "cpu/conv_parts.h"
#include "cpu/gemm.h"
#include "cpu/panels.h"

namespace gemmule::cpu {
namespace {

// The rows of an image that a member has at hand, padding included: half of a 512 KB L2, the rest is for the
// filters that stream through.
inline constexpr Index band_bytes = 256 * 1024;

template <class T>
Index aligned(Index elements) {
  return round_up(elements, 64 / static_cast<Index>(sizeof(T)));
}

// out[n, i, j, :] = sum over the window's elements at (i, j) times filters in panels. An image's gradient is
// made of these too, then with flipped filters and outputs that lie some pixels apart.
template <class T>
struct Sliding {
  const T* x;
  Index images, height, width, channels, groups;
  Window window;  // `before` may be negative: `after` is not read
  const T* panels;
  Index filters;  // of all groups
  T* out;
  Index out_height, out_width;
  Index image_step, row_step, pixel_step;  // of out
  const T* bias;
  Act act;
  T slope;
  const T* saved;  // where out lies in it, act' is taken
};

template <class T>
class Slider {
 public:
  Slider(const Kernels<T>& kernels, const Sliding<T>& call, T* buffer)
      : kernels_(kernels), k_(kernels.gemm), call_(call), buffer_(buffer) {
    filters_ = call.filters / call.groups;
    channels_ = call.channels / call.groups;
    depth_ = call.window.taps() * channels_;
    width_ = panel_width(k_, filters_);
    bands_ = pieces(call.out_height, band_rows(call));
    flat_ = is_flat(k_, call);
    list_ = reinterpret_cast<const T**>(buffer + buffer_size(call));
  }

  // Output rows whose windows fit a band; one at least.
  static Index band_rows(const Sliding<T>& call) {
    const Index row = covered(call.window.x, call.out_width) * call.channels * static_cast<Index>(sizeof(T));
    const Index rows = (band_bytes / std::max<Index>(row, 1) - call.window.y.extent()) / call.window.y.stride;
    return std::clamp<Index>(rows + 1, 1, std::max<Index>(call.out_height, 1));
  }
  static Index buffer_size(const Sliding<T>& call) {
    const Index row = checked_mul(covered(call.window.x, call.out_width), call.channels);
    return aligned<T>(checked_mul(covered(call.window.y, band_rows(call)), row));
  }
  // Narrow images: tiles go on from one row of outputs to the next, their rows of A listed. That takes each
  // row of the window for itself, so it must make fewer sums in registers: 14 x 14 pixels of 256 channels are
  // 33 tiles of 6, row by row 42 of 5 and 4.
  static bool is_flat(const GemmKernels<T>& k, const Sliding<T>& call) {
    const Index run = call.window.x.kernel * call.channels;
    const bool fits = call.groups == 1 && call.window.x.dilation == 1 &&
                      call.row_step == call.out_width * call.pixel_step && call.out_width > 0;
    return fits && pieces(call.out_height * call.out_width, k.rows) * call.window.y.kernel *
                           pieces(run, k.depth_block) <
                       call.out_height * pieces(call.out_width, k.rows) *
                           pieces(call.window.y.kernel * run, k.depth_block);
  }
  static Index workspace_size(const GemmKernels<T>& k, const Sliding<T>& call) {
    const Index list = is_flat(k, call) ? band_rows(call) * call.out_width : 0;
    return checked_add(buffer_size(call), list * static_cast<Index>(sizeof(void*) / sizeof(T)));
  }

  void run(const Team& team) {
    if (call_.out_height <= 0 || call_.out_width <= 0 || call_.filters <= 0) return;
    team.deal(call_.images * bands_, [&](Index item) {
      const Index image = item / bands_, band = item % bands_;
      make({cut(call_.out_height, bands_, band), cut(call_.out_height, bands_, band + 1)}, image);
    });
  }

 private:
  void make(Span rows, Index image) {
    const Index size = call_.height * call_.width * call_.channels;
    const Band<T> band = band_of(call_.x + image * size, call_.height, call_.width, call_.channels,
                                 call_.window, rows, {0, call_.out_width}, buffer_);
    const Strands strands(call_.window, call_.channels, channels_, band.pitch, flat_);
    if (flat_) list_windows(band, rows.size());
    T* const out = call_.out + image * call_.image_step + rows.begin * call_.row_step;
    for (Index g = 0; g < call_.groups; ++g)
      for (Index j = 0; j < filters_; j += width_)
        make_panel(band, strands, rows.size(), g, j, out + g * filters_ + j);
    finish(rows.size(), out);
  }

  // A panel of filters: all depths of it while its outputs are in cache.
  void make_panel(const Band<T>& band, const Strands& strands, Index rows, Index group, Index j, T* out) {
    const Index cols = std::min(width_, filters_ - j);
    const Index vectors = pieces(cols, k_.lanes);
    TileArgs<T> tile;
    tile.alpha = 1;
    tile.slope = call_.slope;
    tile.cols = cols;
    tile.b_step = width_;
    tile.a_row = call_.window.x.stride * call_.channels;
    tile.a_step = 1;
    tile.c_row = call_.pixel_step;
    const T* const filters = call_.panels + group * panel_elements(k_, depth_, filters_) + j * depth_;
    const T* const origin = band.data + group * channels_;
    for (Index s = 0; s < strands.count(); ++s) {
      const Strand strand = strands[s];
      const Index length = strand.end - strand.begin,
                  blocks = std::max<Index>(1, pieces(length, k_.depth_block));
      for (Index block = 0; block < blocks; ++block) {
        const Index begin = cut(length, blocks, block), end = cut(length, blocks, block + 1);
        const bool first = s == 0 && block == 0, last = s + 1 == strands.count() && block + 1 == blocks;
        tile.depth = end - begin;
        tile.a_run = strand.run - begin % strand.run;
        tile.a_chunk = strand.run;
        tile.a_jump = strand.apart;
        tile.b = filters + (strand.begin + begin) * width_;
        tile.beta = first ? T(0) : T(1);
        tile.bias = last && call_.bias ? call_.bias + group * filters_ + j : nullptr;
        tile.act = last && in_registers() ? call_.act : Act::identity;
        if (flat_) {
          tile.a_first = strand.offset + begin;
          make_tiles(tile, k_.kernel_listed_rows, rows * call_.out_width, vectors, nullptr, list_, out);
          continue;
        }
        for (Index i = 0; i < rows; ++i)
          make_tiles(tile, k_.kernel_rows, call_.out_width, vectors,
                     origin + place_in(strand, begin) + i * call_.window.y.stride * band.pitch, nullptr,
                     out + i * call_.row_step);
      }
    }
  }

  void list_windows(const Band<T>& band, Index rows) const {
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < call_.out_width; ++j)
        list_[i * call_.out_width + j] =
            band.data + i * call_.window.y.stride * band.pitch + j * call_.window.x.stride * call_.channels;
  }

  // Outputs one behind the other, in tiles whose heights differ by one at most.
  void make_tiles(TileArgs<T>& tile, const TileKernel<T> (*kernel)[max_tile_vectors], Index outputs,
                  Index vectors, const T* a, const T* const* list, T* c) const {
    const Index tiles = pieces(outputs, k_.rows), higher = outputs % tiles;
    for (Index pass = 0; pass < 2; ++pass) {
      const Index height = outputs / tiles + (pass == 0), count = pass == 0 ? higher : tiles - higher;
      if (count == 0) continue;
      tile.tiles = count;
      tile.a = a;
      tile.a_next = height * tile.a_row;
      tile.a_list = list;
      tile.c = c;
      kernel[height - 1][vectors - 1](tile);
      if (list)
        list += count * height;
      else
        a += count * tile.a_next;
      c += count * height * tile.c_row;
    }
  }

  bool in_registers() const {
    return !call_.saved && (call_.act == Act::relu || call_.act == Act::leaky_relu);
  }

  // The activations that cost more, or the derivative, over what was just made.
  void finish(Index rows, T* out) const {
    if (call_.act == Act::identity || in_registers()) return;
    const bool dense = call_.pixel_step == call_.filters;
    const Index stretch = (dense ? call_.out_width : 1) * call_.filters;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < call_.out_width; j += dense ? call_.out_width : 1) {
        T* at = out + i * call_.row_step + j * call_.pixel_step;
        if (call_.saved)
          kernels_.element.activation_grad(call_.act, call_.slope, stretch, at,
                                           call_.saved + (at - call_.out), at);
        else
          kernels_.element.activation(call_.act, call_.slope, stretch, at, at);
      }
  }

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const Sliding<T>& call_;
  T* buffer_;
  Index filters_, channels_, depth_;  // of a group
  Index width_;                       // of a panel
  Index bands_;
  bool flat_;
  const T** list_;  // of a flat band: where each output's window begins
};

// ---- forward ----

template <class T>
Sliding<T> sliding(const ConvForward<T>& call, const T* panels) {
  const ConvSizes& s = call.sizes;
  const Index row = s.out_width() * s.filters;
  return {call.x,
          s.images,
          s.height,
          s.width,
          s.channels,
          s.groups,
          s.window,
          panels,
          s.filters,
          call.z,
          s.out_height(),
          s.out_width(),
          s.out_height() * row,
          row,
          s.filters,
          call.bias,
          call.act,
          call.slope,
          nullptr};
}

template <class T>
Index filters_size(const GemmKernels<T>& k, Index groups, Index depth, Index filters) {
  return aligned<T>(checked_mul(groups, panel_elements(k, depth, filters)));
}

template <class T>
void pack_filters(const GemmKernels<T>& k, const Team& team, const ConvSizes& s, const T* weight, T* panels) {
  const Index depth = s.depth(), filters = s.group_filters();
  for (Index g = 0; g < s.groups; ++g)
    to_panels(k, team, {weight + g * filters * depth, depth, filters, 1, depth},
              panels + g * panel_elements(k, depth, filters));
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

// ---- the image's gradient ----

template <class T>
Gemm<T> as_gemm(const ConvData<T>& call) {
  const ConvSizes& s = call.sizes;
  Gemm<T> g;
  g.a = {call.dz, s.images * s.height * s.width, s.filters, s.filters, 1};
  g.b = {call.weight, s.filters, s.channels, s.channels, 1};
  g.c = call.dx;
  g.c_row = s.channels;
  g.saved = call.saved;
  g.act = call.saved ? call.act : Act::identity;
  g.slope = call.slope;
  return g;
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
  const Index width = panel_width(k, channels);
  const Span part = team.share(channels, width);
  for (Index g = 0; g < s.groups; ++g)
    for (Index j = part.begin; j < part.end; j += width)
      for (Index r = 0; r < py.axis.kernel; ++r)
        for (Index t = 0; t < px.axis.kernel; ++t) {
          const Index tap_y = py.first_tap + (py.axis.kernel - 1 - r) * py.tap_step;
          const Index tap_x = px.first_tap + (px.axis.kernel - 1 - t) * px.tap_step;
          const Index tap = tap_y * s.window.x.kernel + tap_x;
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
          {py.axis, px.axis},
          panels,
          s.channels,
          call.dx + start,
          py.count,
          px.count,
          s.height * row,
          s.window.y.stride * row,
          s.window.x.stride * s.channels,
          nullptr,
          call.saved ? call.act : Act::identity,
          call.slope,
          call.saved ? call.saved + start : nullptr};
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

// No window meets these pixels.
template <class T>
void clear(const Team& team, const ConvData<T>& call, const Phase& py, const Phase& px) {
  const ConvSizes& s = call.sizes;
  const Span part = team.share(s.images);
  for (Index n = part.begin; n < part.end; ++n)
    for (Index i = 0; i < py.count; ++i)
      for (Index j = 0; j < px.count; ++j)
        std::fill_n(call.dx + ((n * s.height + py.first + i * s.window.y.stride) * s.width + px.first +
                               j * s.window.x.stride) *
                                  s.channels,
                    s.channels, T(0));
}

}  // namespace

const char* conv_path(const ConvSizes& sizes) { return is_gemm(sizes) ? "gemm" : "direct"; }

template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvForward<T>& call) {
  if (is_gemm(call.sizes)) return gemm_workspace(kernels, as_gemm(call));
  const ConvSizes& s = call.sizes;
  const Index filters = filters_size(kernels.gemm, s.groups, s.depth(), s.group_filters());
  return checked_mul(
      checked_add(filters, aligned<T>(Slider<T>::workspace_size(kernels.gemm, sliding<T>(call, nullptr)))),
      static_cast<Index>(sizeof(T)));
}

template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvForward<T>& call, void* workspace) {
  if (is_gemm(call.sizes)) return gemm(kernels, team, as_gemm(call), workspace);
  const ConvSizes& s = call.sizes;
  T* const panels = static_cast<T*>(team.common(workspace));
  T* const buffer =
      static_cast<T*>(workspace) + filters_size(kernels.gemm, s.groups, s.depth(), s.group_filters());
  pack_filters(kernels.gemm, team, s, call.weight, panels);
  team.barrier();
  Slider<T>(kernels, sliding<T>(call, panels), buffer).run(team);
  team.barrier();  // the leading member's workspace is its own again
}

template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvData<T>& call) {
  if (is_gemm(call.sizes)) return gemm_workspace(kernels, as_gemm(call));
  const ConvSizes& s = call.sizes;
  const Index filters =
      filters_size(kernels.gemm, s.groups, s.window.taps() * s.group_filters(), s.group_channels());
  Index buffer = 0;
  for_each_phase(s, [&](const Phase& py, const Phase& px) {
    if (py.axis.kernel > 0 && px.axis.kernel > 0)
      buffer = std::max(buffer, Slider<T>::workspace_size(kernels.gemm, sliding<T>(call, py, px, nullptr)));
  });
  return checked_mul(checked_add(filters, aligned<T>(buffer)), static_cast<Index>(sizeof(T)));
}

template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvData<T>& call, void* workspace) {
  if (is_gemm(call.sizes)) return gemm(kernels, team, as_gemm(call), workspace);
  const ConvSizes& s = call.sizes;
  T* const panels = static_cast<T*>(team.common(workspace));
  T* const buffer =
      static_cast<T*>(workspace) +
      filters_size(kernels.gemm, s.groups, s.window.taps() * s.group_filters(), s.group_channels());
  for_each_phase(s, [&](const Phase& py, const Phase& px) {
    if (py.axis.kernel == 0 || px.axis.kernel == 0) return clear(team, call, py, px);
    pack_flipped(kernels.gemm, team, s, call.weight, py, px, panels);
    team.barrier();
    Slider<T>(kernels, sliding<T>(call, py, px, panels), buffer).run(team);
    team.barrier();  // the panels are free for the next phase, the workspace for the next op
  });
}

#define GEMMULE_INSTANTIATE(T)                                                         \
  template Index conv_workspace<T>(const Kernels<T>&, const ConvForward<T>&);          \
  template Index conv_workspace<T>(const Kernels<T>&, const ConvData<T>&);             \
  template void conv<T>(const Kernels<T>&, const Team&, const ConvForward<T>&, void*); \
  template void conv<T>(const Kernels<T>&, const Team&, const ConvData<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
