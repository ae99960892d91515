// Which way a convolution is made: by its sizes alone, unless a test or GEMMULE_CONV says so.
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "cpu/conv.h"

namespace gemmule::cpu {
namespace {

constexpr const char* names[] = {"gemm", "depthwise", "direct", "winograd", "winograd4"};

const char* name_of(ConvPath path) { return names[static_cast<int>(path)]; }

// GEMMULE_CONV, or the wish of a test: a path that is taken where it can be, and elsewhere the direct one.
enum class Wish : int { unread, none, direct, winograd, winograd4 };
std::atomic<Wish> wish{Wish::unread};

Wish wish_of(const std::string& name, const char* what) {
  if (name.empty()) return Wish::none;
  for (ConvPath path : {ConvPath::direct, ConvPath::winograd, ConvPath::winograd4})
    if (name == name_of(path))
      return static_cast<Wish>(static_cast<int>(path) - static_cast<int>(ConvPath::direct) +
                               static_cast<int>(Wish::direct));
  fail(ErrorKind::value, what, " is '", name, "'; known are direct, winograd, winograd4");
}

Wish wished() {
  Wish now = wish.load(std::memory_order_relaxed);
  if (now != Wish::unread) return now;
  const char* name = std::getenv("GEMMULE_CONV");
  now = wish_of(name ? name : "", "GEMMULE_CONV");
  wish.store(now, std::memory_order_relaxed);
  return now;
}

// 3 x 3 windows that move by one pixel over all channels.
bool fits_winograd(const ConvSizes& s) {
  const auto fits = [](const WindowAxis& a) { return a.kernel == 3 && a.stride == 1 && a.dilation == 1; };
  return s.groups == 1 && fits(s.window.y) && fits(s.window.x);
}

// What a convolution makes: images of so many pixels, from `channels` to `filters`.
struct Made {
  Index images, height, width, channels, filters;
};

// What else takes time, in multiplications, of which a core does 16 a cycle with AVX2: instructions, and for
// the larger half misses of the cache. From times on Zen 3, 16 to 512 channels, 1 to 128 images;
// docs/kernels.md.
struct Transforms {
  double pixels;   // a tile's of one channel, and as much for its outputs of one filter
  double filters;  // of one channel
};
constexpr Transforms transforms2{300, 400}, transforms4{560, 850};
constexpr double packing = 400;  // the direct path's, of one channel of a filter
// Elements of transformed filters that L3 does not hold, and what each of those costs that go to memory and
// back.
constexpr double many_filters = 3 * 1024 * 1024, filter_from_memory = 100;

double pairs_of(const Made& m) { return double(m.channels) * double(m.filters); }
double pixels_of(const Made& m) { return double(m.images) * double(m.height) * double(m.width); }
double tiles_of(const Made& m, Index outputs) {
  const auto pieces = [&](Index size) { return double((size + outputs - 1) / outputs); };
  return double(m.images) * pieces(m.height) * pieces(m.width);
}
double components_of(Index outputs) { return double((outputs + 2) * (outputs + 2)); }

double cost_of_images(const Made& m, Index outputs) {
  const double pairs = pairs_of(m);
  if (outputs == 0) return (9 * pixels_of(m) + packing) * pairs;
  const Transforms& t = outputs == 2 ? transforms2 : transforms4;
  const double tiles = tiles_of(m, outputs), components = components_of(outputs);
  const bool many = components * pairs > many_filters;
  return tiles * (components * pairs + t.pixels * double(m.channels + m.filters)) +
         pairs * (t.filters + (many ? components * filter_from_memory : 0));
}

// Sums over pixels or over tiles; what a chunk of others needs is transformed for each.
double cost_of_weights(const Made& m, Index outputs) {
  const double pairs = pairs_of(m);
  if (outputs == 0) return 9 * pixels_of(m) * pairs;
  const Transforms& t = outputs == 2 ? transforms2 : transforms4;
  return tiles_of(m, outputs) * (components_of(outputs) * pairs + t.pixels * double(m.channels + m.filters)) +
         pairs * t.filters;
}

// Of Winograd's way with so many outputs along a tile, and of the direct path with 0.
using Cost = double (*)(const Made&, Index outputs);

// Winograd's where it should take less than 1 / 1.3 of the direct path's time: `cost` is an estimate, and
// plain sums have the smaller errors.
ConvPath winograd_or_direct(const ConvSizes& s, const Made& made, Cost cost) {
  if (!fits_winograd(s) || s.strict) return ConvPath::direct;
  switch (wished()) {
    case Wish::direct:
      return ConvPath::direct;
    case Wish::winograd:
      return ConvPath::winograd;
    case Wish::winograd4:
      return ConvPath::winograd4;
    default:
      break;
  }
  const double direct = cost(made, 0), by2 = cost(made, 2), by4 = cost(made, 4);
  if (1.3 * std::min(by2, by4) > direct) return ConvPath::direct;
  return by4 < by2 ? ConvPath::winograd4 : ConvPath::winograd;
}

// 1 x 1: many pixels of few channels are read where they lie, `terms` of each. A product would pack them,
// which pays where they are read again for further terms; of few pixels it shares out columns too.
ConvPath product_or_direct(const ConvSizes& s, Index terms) {
  constexpr Index one_pass = 384, many_pixels = 4096;
  return terms <= one_pass && s.images * s.height * s.width >= many_pixels ? ConvPath::direct
                                                                           : ConvPath::gemm;
}

}  // namespace

ConvPath forward_path(const ConvSizes& s) {
  if (is_gemm(s)) return product_or_direct(s, s.channels);
  if (is_depthwise(s)) return ConvPath::depthwise;
  return winograd_or_direct(s, {s.images, s.out_height(), s.out_width(), s.channels, s.filters},
                            cost_of_images);
}

ConvPath data_path(const ConvSizes& s) {
  if (is_gemm(s)) return product_or_direct(s, s.filters);
  if (is_depthwise(s)) return ConvPath::depthwise;
  return winograd_or_direct(s, {s.images, s.height, s.width, s.filters, s.channels}, cost_of_images);
}

// Of 1 x 1 filters as of others: few sums are made by parts of the images, which a product does not cut.
ConvPath weights_path(const ConvSizes& s) {
  constexpr Index few_sums = 32 * 1024;
  if (is_gemm(s) && s.filters * s.channels > few_sums) return ConvPath::gemm;
  if (is_depthwise(s)) return ConvPath::depthwise;
  return winograd_or_direct(s, {s.images, s.out_height(), s.out_width(), s.channels, s.filters},
                            cost_of_weights);
}

const char* describe(ConvPath path) { return name_of(path); }

void force_conv(const std::string& name) {
  wish.store(wish_of(name, "conv path"), std::memory_order_relaxed);
}

std::string forced_conv() {
  const Wish now = wished();
  if (now == Wish::none) return "";
  return name_of(static_cast<ConvPath>(static_cast<int>(now) - static_cast<int>(Wish::direct) +
                                       static_cast<int>(ConvPath::direct)));
}

}  // namespace gemmule::cpu
