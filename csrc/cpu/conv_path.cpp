// Which way a convolution is made: by its sizes alone, unless a test or GEMMULE_CONV says so.
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

// Of a convolution from so many channels to so many filters that makes such images.
ConvPath winograd_or_direct(const ConvSizes& s, Index channels, Index filters, Index height, Index width) {
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
  (void)channels, (void)filters, (void)height, (void)width;
  return ConvPath::direct;
}

}  // namespace

ConvPath forward_path(const ConvSizes& s) {
  if (is_gemm(s)) return ConvPath::gemm;
  if (is_depthwise(s)) return ConvPath::depthwise;
  return winograd_or_direct(s, s.channels, s.filters, s.out_height(), s.out_width());
}

ConvPath data_path(const ConvSizes& s) {
  if (is_gemm(s)) return ConvPath::gemm;
  if (is_depthwise(s)) return ConvPath::depthwise;
  return winograd_or_direct(s, s.filters, s.channels, s.height, s.width);
}

ConvPath weights_path(const ConvSizes& s) {
  return is_gemm(s) ? ConvPath::gemm : is_depthwise(s) ? ConvPath::depthwise : ConvPath::direct;
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
