// XXH64, https://github.com/Cyan4973/xxHash, for machines with little-endian integers.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

inline uint64_t xxh64(std::string_view key, uint64_t seed) {
  constexpr uint64_t P1 = 0x9e3779b185ebca87, P2 = 0xc2b2ae3d27d4eb4f;
  constexpr uint64_t P3 = 0x165667b19e3779f9, P4 = 0x85ebca77c2b2ae63;
  constexpr uint64_t P5 = 0x27d4eb2f165667c5;
  auto turn = [](uint64_t x, int bits) { return x << bits | x >> (64 - bits); };
  auto round = [&](uint64_t a, uint64_t w) { return turn(a + w * P2, 31) * P1; };
  const char *at = key.data(), *end = at + key.size();
  auto take = [&](size_t size) {
    uint64_t word = 0;
    std::memcpy(&word, at, size);
    at += size;
    return word;
  };
  uint64_t h = seed + P5;
  if (key.size() >= 32) {
    uint64_t v[] = {seed + P1 + P2, seed + P2, seed, seed - P1};
    while (end - at >= 32)
      for (auto &a : v) a = round(a, take(8));
    h = turn(v[0], 1) + turn(v[1], 7) + turn(v[2], 12) + turn(v[3], 18);
    for (auto a : v) h = (h ^ round(0, a)) * P1 + P4;
  }
  h += key.size();
  while (end - at >= 8) h = turn(h ^ round(0, take(8)), 27) * P1 + P4;
  while (end - at >= 4) h = turn(h ^ take(4) * P1, 23) * P2 + P3;
  while (at < end) h = turn(h ^ take(1) * P5, 11) * P1;
  h = (h ^ h >> 33) * P2;
  h = (h ^ h >> 29) * P3;
  return h ^ h >> 32;
}
