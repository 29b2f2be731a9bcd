// Just enough JSON to read vectors.jsonl, which no service does: bring your own library.
#pragma once
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

struct Json {
  enum { NOTHING, NUMBER, TEXT, LIST, TABLE } kind = NOTHING;
  double number = 0;
  std::string text;
  std::vector<Json> list;
  std::map<std::string, Json> table;

  bool is_null() const { return kind == NOTHING; }
  std::vector<double> numbers() const {
    std::vector<double> found;
    for (const Json &value : list) found.push_back(value.number);
    return found;
  }
  const Json &operator[](const char *name) const { return table.at(name); }

  static Json read(const char *&p) {
    Json found;
    auto skip = [&] { while (*p == ' ' || *p == ',' || *p == ':') ++p; };
    skip();
    if (*p == '"') {
      found.kind = TEXT;
      found.text = read_text(p);
    } else if (*p == '[') {
      found.kind = LIST;
      for (++p, skip(); *p != ']'; skip()) found.list.push_back(read(p));
      ++p;
    } else if (*p == '{') {
      found.kind = TABLE;
      for (++p, skip(); *p != '}'; skip()) {
        const std::string name = read_text(p);
        found.table[name] = read(p);
      }
      ++p;
    } else if (*p == 'n') {
      p += 4;  // null
    } else {
      char *end;
      found.kind = NUMBER;
      found.number = std::strtod(p, &end);
      p = end;
    }
    return found;
  }

  static std::string read_text(const char *&p) {
    static const std::string from = "bfnrt", to = "\b\f\n\r\t";
    std::string out;
    auto hex = [&] {
      const std::string digits(p + 1, 4);
      p += 4;
      return static_cast<uint32_t>(std::stoul(digits, nullptr, 16));
    };
    for (++p; *p != '"'; ++p) {
      if (*p != '\\') { out += *p; continue; }
      const size_t known = from.find(*++p);
      if (*p != 'u') { out += known == std::string::npos ? *p : to[known]; continue; }
      uint32_t c = hex();
      if (c >= 0xd800 && c < 0xdc00) {  // one of a pair
        p += 2;
        c = 0x10000 + ((c - 0xd800) << 10) + (hex() - 0xdc00);
      }
      if (c < 0x80) out += static_cast<char>(c);
      const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
      if (more) out += static_cast<char>((0xf80 >> more & 0xff) | c >> 6 * more);
      for (int i = more - 1; i >= 0; --i)
        out += static_cast<char>(0x80 | (c >> 6 * i & 0x3f));
    }
    ++p;
    return out;
  }
};
