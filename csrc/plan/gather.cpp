#include "plan/gather.h"

#include <cstring>

namespace gemmule {

Gather::Gather(const Backend& backend, DType type, const Samples& samples, bool listed, Index x_bytes,
               Index y_bytes, Index most_rows, int members)
    : backend_(backend),
      type_(type),
      samples_(samples),
      listed_(listed),
      x_bytes_(x_bytes),
      y_bytes_(y_bytes),
      features_(x_bytes / size_of(type)),
      image_bytes_(samples.bytes && samples.augmenter ? round_up(features_, alignment) : 0),
      x_(lie_apart() ? 0 : checked_mul(most_rows, x_bytes)),
      y_(checked_mul(most_rows, y_bytes)),
      images_(checked_mul(members, image_bytes_)),
      list_(listed ? static_cast<std::size_t>(most_rows) : 0) {
  // Converted bytes and changed images lie side by side, and are listed all the same: a list is what the
  // program reads, so that they give the bits of samples converted or changed beforehand.
  if (!lie_apart())
    for (std::size_t i = 0; i < list_.size(); ++i) list_[i] = x_.data() + static_cast<Index>(i) * x_bytes_;
}

// Samples that follow one another in the data set too, as all of an unshuffled batch, go at once: one by one,
// 200 samples of 2-10-1 took a fifth of its step.
void Gather::take(const Team& team, const std::int64_t* order, Index rows, const StepScalars& scalars) {
  const Span part = team.share(rows);
  for (Index i = part.begin, run = 1; i < part.end; i += run) {
    const std::int64_t row = order[i];
    for (run = 1; i + run < part.end && order[i + run] == row + run;) ++run;
    if (samples_.augmenter)
      for (Index k = 0; k < run; ++k) take_changed(team.rank(), row + k, i + k, scalars);
    else if (samples_.bytes)
      backend_.scale_bytes(type_, run * features_,
                           reinterpret_cast<const std::uint8_t*>(samples_.x) + row * features_,
                           samples_.scale, x_.data() + i * x_bytes_);
    else if (listed_)
      for (Index k = 0; k < run; ++k)
        list_[static_cast<std::size_t>(i + k)] = samples_.x + (row + k) * x_bytes_;
    else
      std::memcpy(x_.data() + i * x_bytes_, samples_.x + row * x_bytes_,
                  static_cast<std::size_t>(run * x_bytes_));
    std::memcpy(y_.data() + i * y_bytes_, samples_.y + row * y_bytes_,
                static_cast<std::size_t>(run * y_bytes_));
  }
}

void Gather::take_changed(int rank, Index row, Index i, const StepScalars& scalars) {
  const auto sample = static_cast<std::uint64_t>(scalars.before + i);
  const std::byte* image = samples_.x + row * samples_.augmenter->bytes();
  std::byte* x = x_.data() + i * x_bytes_;
  std::byte* changed = samples_.bytes ? images_.data() + rank * image_bytes_ : x;
  samples_.augmenter->apply(scalars.key, scalars.step, sample, image, changed);
  if (samples_.bytes)
    backend_.scale_bytes(type_, features_, reinterpret_cast<const std::uint8_t*>(changed), samples_.scale, x);
}

}  // namespace gemmule
