// Raw values to ids, by the rules of docs/without-python.md.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>

#include "json.h"
#include "xxh64.h"

struct Tensor { std::vector<int64_t> shape, ids; std::vector<float> numbers; };
using IdOf = std::function<int64_t(const Json &)>;  // of a raw value; of null 0

inline std::string bytes(const Json &v) {
  if (v.kind == Json::TEXT) return v.text;
  std::string out;  // of {"hex": ".."}
  for (size_t i = 0; i < v["hex"].text.size(); i += 2)
    out += static_cast<char>(std::stoi(v["hex"].text.substr(i, 2), nullptr, 16));
  return out;
}
inline int64_t offset(const Json &v, uint64_t buckets, uint64_t seed) {
  return v.is_null() ? 0 : 1 + static_cast<int64_t>(xxh64(bytes(v), seed) % (buckets - 1));
}
inline int64_t user(const Json &v) { return offset(v, 1000, 42); }
inline int64_t goods(const Json &v) { return offset(v, 5000, 0); }
inline int64_t shop(const Json &v) {  // pmod: of the signed hash, never negative
  if (v.is_null()) return 0;
  const uint64_t key = v.text[0] == '-' ? std::stoll(v.text) : std::stoull(v.text);
  const std::string_view view(reinterpret_cast<const char *>(&key), 8);
  return (static_cast<int64_t>(xxh64(view, 0)) % 500 + 500) % 500;
}
inline int64_t slot(const Json &v) {
  const std::string t = v.is_null() ? "" : bytes(v);
  return v.is_null() ? 0 : t == "top" ? 1 : t == "side" ? 2 : t == "bottom" ? 3 : 4;
}
inline float scale(double x) { return static_cast<float>((x - 20.0) / 7.5); }
inline float price(const Json &v) {
  const double x = v.is_null() ? NAN : v.kind == Json::TEXT ? std::stod(v.text) : v.number;
  return std::isfinite(scale(x)) ? scale(x) : scale(20.0);
}
inline Tensor column(const Json &rows, const char *name, IdOf id_of) {
  Tensor made{{static_cast<int64_t>(rows.list.size())}, {}, {}};
  for (const auto &row : rows.list) made.ids.push_back(id_of(row[name]));
  return made;
}
inline Tensor lists(const Json &rows, const char *name, IdOf id_of, Tensor *lengths) {
  *lengths = column(rows, name, [](const Json &v) { return std::min<int64_t>(v.list.size(), 20); });
  int64_t width = 0, row = 0;
  for (int64_t n : lengths->ids) width = std::max(width, n);
  Tensor made{{lengths->shape[0], width}, std::vector<int64_t>(lengths->shape[0] * width), {}};
  for (const auto &r : rows.list) {  // the newest, zeros on the right
    const int64_t n = lengths->ids[row], first = r[name].list.size() - n;
    for (int64_t t = 0; t < n; ++t) made.ids[row * width + t] = id_of(r[name].list[first + t]);
    ++row;
  }
  return made;
}
