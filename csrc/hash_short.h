/*
 * The hashes of keys of up to 32 bytes, without loops over bytes.
 *
 * Written once in the operations of hash_lanes.h. Include with LANES defined (1 or 16);
 * all keys of a call have the same length n, so that lanes never part ways.
 */
#define DIN_JOIN_(name, lanes) din_##name##_##lanes
#define DIN_JOIN(name, lanes) DIN_JOIN_(name, lanes)
#define L(name) DIN_JOIN(name, LANES)
#define W L(lanes)

/* ----------------------------------------------------------------------------- XXH64 */

DIN_INLINE W L(xxh64_mix8)(W h, W word) {
  const W round = L(mul)(L(turn)(L(mul)(word, DIN_PRIME_2), 31), DIN_PRIME_1);
  h = L(turn)(L(xor)(h, round), 27);
  return L(add)(L(mul)(h, DIN_PRIME_1), L(same)(DIN_PRIME_4));
}

DIN_INLINE W L(xxh64_mix4)(W h, W word32) {
  h = L(turn)(L(xor)(h, L(mul32)(word32, DIN_PRIME_1)), 23);
  return L(add)(L(mul)(h, DIN_PRIME_2), L(same)(DIN_PRIME_3));
}

DIN_INLINE W L(xxh64_mix1)(W h, W byte) {
  h = L(turn)(L(xor)(h, L(mul32)(byte, DIN_PRIME_5)), 11);
  return L(mul)(h, DIN_PRIME_1);
}

DIN_INLINE W L(xxh64_avalanche)(W h) {
  h = L(mul)(L(xor)(h, L(right)(h, 33)), DIN_PRIME_2);
  h = L(mul)(L(xor)(h, L(right)(h, 29)), DIN_PRIME_3);
  return L(xor)(h, L(right)(h, 32));
}

/* @pre n < 32 */
DIN_INLINE W L(xxh64)(din_places p, int64_t n, uint64_t seed) {
  W h = L(same)(seed + DIN_PRIME_5 + (uint64_t)n);
  if (n >= 8) h = L(xxh64_mix8)(h, L(load64)(p, 0));
  if (n >= 16) h = L(xxh64_mix8)(h, L(load64)(p, 8));
  if (n >= 24) h = L(xxh64_mix8)(h, L(load64)(p, 16));
  const int rest = (int)(n & 7);
  if (rest > 0) {
    /* the last bytes: from the last eight, so that nothing behind the key is read */
    W x = n >= 8 ? L(right)(L(load64)(p, n - 8), 64 - 8 * rest) : L(load_few)(p, n);
    if (rest & 4) {
      h = L(xxh64_mix4)(h, L (and)(x, DIN_LOW32));
      x = L(right)(x, 32);
    }
    if (rest & 2) {
      h = L(xxh64_mix1)(h, L (and)(x, 255));
      h = L(xxh64_mix1)(h, L (and)(L(right)(x, 8), 255));
      x = L(right)(x, 16);
    }
    if (rest & 1) h = L(xxh64_mix1)(h, x);
  }
  return L(xxh64_avalanche)(h);
}

DIN_INLINE W L(xxh64_int)(W key, uint64_t seed) {
  return L(xxh64_avalanche)(L(xxh64_mix8)(L(same)(seed + DIN_PRIME_5 + 8), key));
}

/* ------------------------------------------------------------------------------ XXH3 */

DIN_INLINE W L(xxh3_avalanche)(W h) {
  h = L(mul)(L(xor)(h, L(right)(h, 37)), DIN_XXH3_AVALANCHE);
  return L(xor)(h, L(right)(h, 32));
}

/* Of 4 to 8 bytes: the first four in the high half of `words`, the last in the low. */
DIN_INLINE W L(xxh3_4to8)(W words, int64_t n, uint64_t seed) {
  seed ^= din_swap_bytes_1(seed & DIN_LOW32);
  const uint64_t flip = (din_xxh3_secret(8) ^ din_xxh3_secret(16)) - seed;
  W h = L(xor)(words, L(same)(flip));
  h = L(xor)(h, L(xor)(L(turn)(h, 49), L(turn)(h, 24)));
  h = L(mul)(h, DIN_XXH3_RRMXMX);
  h = L(xor)(h, L(add)(L(right)(h, 35), L(same)((uint64_t)n)));
  h = L(mul)(h, DIN_XXH3_RRMXMX);
  return L(xor)(h, L(right)(h, 28));
}

DIN_INLINE W L(xxh3_mix16)(din_places p, int64_t at, int secret, uint64_t seed) {
  return L(fold)(
      L(xor)(L(load64)(p, at), L(same)(din_xxh3_secret(secret) + seed)),
      L(xor)(L(load64)(p, at + 8), L(same)(din_xxh3_secret(secret + 8) - seed)));
}

/* @pre n <= 32 */
DIN_INLINE W L(xxh3)(din_places p, int64_t n, uint64_t seed) {
  if (n > 16) {
    W h = L(same)((uint64_t)n * DIN_PRIME_1);
    h = L(add)(h, L(xxh3_mix16)(p, 0, 0, seed));
    return L(xxh3_avalanche)(L(add)(h, L(xxh3_mix16)(p, n - 16, 16, seed)));
  }
  if (n > 8) {
    const uint64_t first = (din_xxh3_secret(24) ^ din_xxh3_secret(32)) + seed;
    const uint64_t second = (din_xxh3_secret(40) ^ din_xxh3_secret(48)) - seed;
    const W low = L(xor)(L(load64)(p, 0), L(same)(first));
    const W high = L(xor)(L(load64)(p, n - 8), L(same)(second));
    const W h = L(add)(L(add)(L(same)((uint64_t)n), L(swap_bytes)(low)),
                       L(add)(high, L(fold)(low, high)));
    return L(xxh3_avalanche)(h);
  }
  if (n >= 4) {
    const W words = L(add)(L(load32)(p, n - 4), L(left)(L(load32)(p, 0), 32));
    return L(xxh3_4to8)(words, n, seed);
  }
  if (n == 0) {
    const uint64_t flip = din_xxh3_secret(56) ^ din_xxh3_secret(64);
    return L(xxh64_avalanche)(L(same)(seed ^ flip));
  }
  const W first = L(left)(L(load8)(p, 0), 16);
  const W middle = L(left)(L(load8)(p, n >> 1), 24);
  const W last = L(load8)(p, n - 1);
  const uint64_t secret = din_xxh3_secret(0);
  const uint64_t flip = ((secret & DIN_LOW32) ^ (secret >> 32)) + seed;
  const W joined = L(xor)(L(xor)(first, middle), last);
  return L(xxh64_avalanche)(L(xor)(joined, L(same)(flip ^ (uint64_t)n << 8)));
}

DIN_INLINE W L(xxh3_int)(W key, uint64_t seed) {
  return L(xxh3_4to8)(L(turn)(key, 32), 8, seed);
}

/* --------------------------------------------------- MurmurHash3, in 64-bit lanes */

DIN_INLINE W L(murmur3_turn)(W x32, int bits) {
  return L (and)(L (xor)(L(left)(x32, bits), L(right)(x32, 32 - bits)), DIN_LOW32);
}

DIN_INLINE W L(murmur3_scramble)(W word32) {
  word32 = L (and)(L(mul32x32)(word32, DIN_MURMUR3_1), DIN_LOW32);
  word32 = L(mul32x32)(L(murmur3_turn)(word32, 15), DIN_MURMUR3_2);
  return L (and)(word32, DIN_LOW32);
}

DIN_INLINE W L(murmur3_mix4)(W h, W word32) {
  h = L(murmur3_turn)(L(xor)(h, L(murmur3_scramble)(word32)), 13);
  h = L(add)(L(mul32x32)(h, 5), L(same)(DIN_MURMUR3_3));
  return L (and)(h, DIN_LOW32);
}

DIN_INLINE W L(murmur3_finish)(W h, int64_t n) {
  h = L(xor)(h, L(same)((uint64_t)n));
  h = L(xor)(h, L(right)(h, 16));
  h = L (and)(L(mul32x32)(h, DIN_MURMUR3_4), DIN_LOW32);
  h = L(xor)(h, L(right)(h, 13));
  h = L (and)(L(mul32x32)(h, DIN_MURMUR3_5), DIN_LOW32);
  return L(xor)(h, L(right)(h, 16));
}

/* @pre n <= 32 */
DIN_INLINE W L(murmur3)(din_places p, int64_t n, uint64_t seed) {
  W h = L(same)(seed);
  for (int64_t at = 0; at + 4 <= n; at += 4) {
    h = L(murmur3_mix4)(h, L(load32)(p, at));
  }
  const int rest = (int)(n & 3);
  if (rest > 0) {
    const W x =
        n >= 4 ? L(right)(L(load32)(p, n - 4), 32 - 8 * rest) : L(load_few)(p, n);
    h = L(xor)(h, L(murmur3_scramble)(x));
  }
  return L(murmur3_finish)(h, n);
}

DIN_INLINE W L(murmur3_int)(W key, uint64_t seed) {
  const W h = L(murmur3_mix4)(L(same)(seed), L (and)(key, DIN_LOW32));
  return L(murmur3_finish)(L(murmur3_mix4)(h, L(right)(key, 32)), 8);
}

/* -------------------------------------------------------------------------- FarmHash */

DIN_INLINE W L(farmhash_shift)(W x) { return L(xor)(x, L(right)(x, 47)); }

/* Of two numbers; FarmHash turns to the right. */
DIN_INLINE W L(farmhash_16)(W x, W y, uint64_t k) {
  const W a = L(farmhash_shift)(L(mul)(L(xor)(x, y), k));
  return L(mul)(L(farmhash_shift)(L(mul)(L(xor)(y, a), k)), k);
}

DIN_INLINE W L(farmhash_8to16)(W first, W last, int64_t n) {
  const uint64_t k = DIN_FARMHASH_2 + 2 * (uint64_t)n;
  const W a = L(add)(first, L(same)(DIN_FARMHASH_2));
  const W c = L(add)(L(mul)(L(turn)(last, 27), k), a);
  const W d = L(mul)(L(add)(L(turn)(a, 39), last), k);
  return L(farmhash_16)(c, d, k);
}

/* @pre n <= 32 */
DIN_INLINE W L(farmhash)(din_places p, int64_t n, uint64_t seed) {
  (void)seed;
  const uint64_t k = DIN_FARMHASH_2 + 2 * (uint64_t)n;
  if (n > 16) {
    const W a = L(mul)(L(load64)(p, 0), DIN_FARMHASH_1);
    const W b = L(load64)(p, 8);
    const W c = L(mul)(L(load64)(p, n - 8), k);
    const W d = L(mul)(L(load64)(p, n - 16), DIN_FARMHASH_2);
    const W x = L(add)(L(add)(L(turn)(L(add)(a, b), 21), L(turn)(c, 34)), d);
    const W turned = L(turn)(L(add)(b, L(same)(DIN_FARMHASH_2)), 46);
    return L(farmhash_16)(x, L(add)(L(add)(a, turned), c), k);
  }
  if (n >= 8) return L(farmhash_8to16)(L(load64)(p, 0), L(load64)(p, n - 8), n);
  if (n >= 4) {
    const W x = L(add)(L(same)((uint64_t)n), L(left)(L(load32)(p, 0), 3));
    return L(farmhash_16)(x, L(load32)(p, n - 4), k);
  }
  if (n == 0) return L(same)(DIN_FARMHASH_2);
  const W y = L(add)(L(load8)(p, 0), L(left)(L(load8)(p, n >> 1), 8));
  const W z = L(add)(L(same)((uint64_t)n), L(left)(L(load8)(p, n - 1), 2));
  const W x = L(xor)(L(mul32)(y, DIN_FARMHASH_2), L(mul32)(z, DIN_FARMHASH_0));
  return L(mul)(L(farmhash_shift)(x), DIN_FARMHASH_2);
}

DIN_INLINE W L(farmhash_int)(W key, uint64_t seed) {
  (void)seed;
  return L(farmhash_8to16)(key, key, 8);
}

#undef W
#undef L
#undef DIN_JOIN
#undef DIN_JOIN_
#undef LANES
