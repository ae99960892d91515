#include "shapes.h"

#include <fstream>
#include <map>
#include <sstream>

#include "core/error.h"

namespace gemmule::bench {
namespace {

using Lists = std::map<std::string, std::vector<std::string>>;

Lists read() {
  std::ifstream file(GEMMULE_SHAPES);
  require(file.is_open(), ErrorKind::value, "no shapes at ", GEMMULE_SHAPES);
  Lists lists;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name, word;
    if (!(words >> name)) continue;
    while (words >> word) lists[name].push_back(word);
  }
  return lists;
}

const std::vector<std::string>& list(const Lists& lists, const std::string& name) {
  const auto found = lists.find(name);
  require(found != lists.end(), ErrorKind::value, "no '", name, "' in ", GEMMULE_SHAPES);
  return found->second;
}

// "784x256"
std::pair<Index, Index> pair(const std::string& text) {
  return {std::stoll(text), std::stoll(text.substr(text.find('x') + 1))};
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

void add_dense(std::vector<Shape>& shapes, Index batch, Index n_in, Index n_out) {
  const std::string layer = text(batch, ":", n_in, "-", n_out);
  shapes.push_back({text("dense/Z_", layer), batch, n_out, n_in, false, true});
  shapes.push_back({text("dense/dX_", layer), batch, n_in, n_out});
  shapes.push_back({text("dense/dW_", layer), n_out, n_in, batch, true, false});
}

void add_skinny(std::vector<Shape>& shapes, Index m, Index n, Index k) {
  shapes.push_back({text("skinny/", m, "x", n, "x", k), m, n, k});
}

}  // namespace

std::vector<Shape> shapes() {
  const Lists lists = read();
  std::vector<Shape> shapes;
  for (const std::string& size : list(lists, "square")) {
    const Index n = std::stoll(size);
    shapes.push_back({"square/" + size, n, n, n});
  }
  for (const std::string& batch : list(lists, "batches"))
    for (const std::string& widths : list(lists, "widths")) {
      const auto [n_in, n_out] = pair(widths);
      add_dense(shapes, std::stoll(batch), n_in, n_out);
    }
  for (const std::string& size : list(lists, "skinny"))
    for (const std::string& rest : list(lists, "skinny-rest")) {
      const Index s = std::stoll(size);
      const auto [p, q] = pair(rest);
      add_skinny(shapes, s, p, q);
      add_skinny(shapes, p, s, q);
      add_skinny(shapes, p, q, s);
    }
  return shapes;
}

}  // namespace gemmule::bench
