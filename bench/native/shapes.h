// The shape sets of python/gemmule/bench/shapes.txt, as python/gemmule/bench/shapes.py reads them.
#pragma once
#include <string>
#include <vector>

#include "core/kinds.h"

namespace gemmule::bench {

// C (m, n) = op(A) op(B) over a depth of k; a transposed operand lies in memory the other way round.
struct Shape {
  std::string name;  // "square/512", "dense/dW_64:784-256", "skinny/1x512x512"
  Index m, n, k;
  bool trans_a = false, trans_b = false;
};

// ErrorKind::value where the file cannot be read or lacks a set.
std::vector<Shape> shapes();

}  // namespace gemmule::bench
