#include "cpu/pool.h"

#include "cpu/dispatch.h"

namespace gemmule::cpu {
namespace {

// body(image, row) for this member's part of all rows of all images.
template <class Body>
void for_rows(const Team& team, Index images, Index rows, const Body& body) {
  const Span mine = team.share(images * rows);
  for (Index i = mine.begin; i < mine.end; ++i) body(i / rows, i % rows);
}

PoolAxis axis_of(const WindowAxis& axis, Index size) {
  return {size, axis.outputs(size), axis.kernel, axis.stride, axis.before};
}

// Elements of a row, and of an image, before and after pooling.
struct Strides {
  explicit Strides(const PoolShape& shape)
      : row(shape.x.size * shape.channels),
        image(shape.y.size * row),
        out_row(shape.x.outputs * shape.channels),
        out_image(shape.y.outputs * out_row) {}
  Index row, image, out_row, out_image;
};

}  // namespace

PoolShape pool_shape(const Window& window, std::span<const Index> image, bool count_padding) {
  return {axis_of(window.y, image[0]), axis_of(window.x, image[1]), image[2], count_padding};
}

template <class T>
void max_pool(const Team& team, const PoolShape& shape, Index images, const T* x, T* y,
              std::uint8_t* places) {
  const Strides at(shape);
  const auto kernel = kernels<T>().pool.max;
  for_rows(team, images, shape.y.outputs, [&](Index image, Index row) {
    const Index out = image * at.out_image + row * at.out_row;
    kernel(shape, row, x + image * at.image, y + out, places ? places + out : nullptr);
  });
}

template <class T>
void max_pool_grad(const Team& team, const PoolShape& shape, Index images, const T* dy,
                   const std::uint8_t* places, T* dx) {
  const Strides at(shape);
  const auto kernel = kernels<T>().pool.max_grad;
  for_rows(team, images, shape.y.size, [&](Index image, Index row) {
    const Index out = image * at.out_image;
    kernel(shape, row, dy + out, places + out, dx + image * at.image + row * at.row);
  });
}

template <class T>
void avg_pool(const Team& team, const PoolShape& shape, Index images, const T* x, T* y) {
  const Strides at(shape);
  const auto kernel = kernels<T>().pool.avg;
  for_rows(team, images, shape.y.outputs, [&](Index image, Index row) {
    kernel(shape, row, x + image * at.image, y + image * at.out_image + row * at.out_row);
  });
}

template <class T>
void avg_pool_grad(const Team& team, const PoolShape& shape, Index images, const T* dy, T* dx) {
  const Strides at(shape);
  const auto kernel = kernels<T>().pool.avg_grad;
  for_rows(team, images, shape.y.size, [&](Index image, Index row) {
    kernel(shape, row, dy + image * at.out_image, dx + image * at.image + row * at.row);
  });
}

#define GEMMULE_POOL(T)                                                                                 \
  template void max_pool(const Team&, const PoolShape&, Index, const T*, T*, std::uint8_t*);            \
  template void max_pool_grad(const Team&, const PoolShape&, Index, const T*, const std::uint8_t*, T*); \
  template void avg_pool(const Team&, const PoolShape&, Index, const T*, T*);                           \
  template void avg_pool_grad(const Team&, const PoolShape&, Index, const T*, T*);
GEMMULE_POOL(float)
GEMMULE_POOL(double)
#undef GEMMULE_POOL

}  // namespace gemmule::cpu
