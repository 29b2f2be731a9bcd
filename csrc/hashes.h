/*
 * The hashes, of keys of any lengths: written once, in the operations of hash_lanes.h.
 * Above 400 lines: four hashes, each with a way of its own for many lengths.
 *
 * Include with LANES defined, 1 or v. Keys begin at the addresses `p` and have n bytes
 * each; where lengths differ, lanes that a step is not for keep what they had, and
 * steps that are for no lane are left out. With one lane these are plain branches.
 */
#define DIN_JOIN_(name, lanes) din_##name##_##lanes
#define DIN_JOIN(name, lanes) DIN_JOIN_(name, lanes)
#define L(name) DIN_JOIN(name, LANES)
#define W L(lanes)
#define M L(mask)
#define H L(halves)
#define S L(short)
#define GROUPS L(groups)
#define EACH DIN_UNROLL for (int g = 0; g < GROUPS; ++g)

/* Work for the lanes m, where n is from `first` to `last`: by rising lengths, and so the
   last for a single lane. */
#if LANES == 1
#define WHERE(first, last, work)   \
  m[0] = n[0] <= (uint64_t)(last); \
  if (m[0]) {                      \
    work;                          \
    return;                        \
  }
#else
#define WHERE(first, last, work)                                   \
  EACH m[g] = L(above)(n[g], (first) - 1) & ~L(above)(n[g], last); \
  if (L(any)(m)) {                                                 \
    work;                                                          \
  }
#endif
#define SET(mixed) EACH h[g] = L(choose)(m[g], mixed, h[g])

/* ----------------------------------------------------------------------------- XXH64 */

DIN_INLINE W L(xxh64_round)(W acc, W word) {
  return L(turn)(acc + word * DIN_PRIME_2, 31) * DIN_PRIME_1;
}

DIN_INLINE W L(xxh64_mix8)(W h, W word) {
  h ^= L(xxh64_round)(L(same)(0), word);
  return L(turn)(h, 27) * DIN_PRIME_1 + DIN_PRIME_4;
}

DIN_INLINE W L(xxh64_mix4)(W h, W word32) {
  return L(turn)(h ^ word32 * DIN_PRIME_1, 23) * DIN_PRIME_2 + DIN_PRIME_3;
}

DIN_INLINE W L(xxh64_mix1)(W h, W byte) {
  return L(turn)(h ^ byte * DIN_PRIME_5, 11) * DIN_PRIME_1;
}

DIN_INLINE W L(xxh64_avalanche)(W h) {
  h = (h ^ h >> 33) * DIN_PRIME_2;
  h = (h ^ h >> 29) * DIN_PRIME_3;
  return h ^ h >> 32;
}

/* Stripes of 32 bytes, of the keys that have one. */
DIN_INLINE void L(xxh64_stripes)(const W *p, const W *n, int room, uint64_t seed,
                                 W *h) {
  const uint64_t start[4] = {seed + DIN_PRIME_1 + DIN_PRIME_2, seed + DIN_PRIME_2, seed,
                             seed - DIN_PRIME_1};
  W acc[GROUPS][4], sum[GROUPS];
  M m[GROUPS];
  EACH for (int k = 0; k < 4; ++k) acc[g][k] = L(same)(start[k]);
  for (int64_t at = 0;; at += 32) {
    EACH m[g] = L(above)(n[g], at + 31);
    if (!L(any)(m)) break;
    EACH {
      W w[4];
      L(stripe)(p[g] + (uint64_t)at, m[g], room, w);
      for (int k = 0; k < 4; ++k) {
        acc[g][k] = L(choose)(m[g], L(xxh64_round)(acc[g][k], w[k]), acc[g][k]);
      }
    }
  }
  EACH {
    const W *a = acc[g];
    sum[g] =
        L(turn)(a[0], 1) + L(turn)(a[1], 7) + L(turn)(a[2], 12) + L(turn)(a[3], 18);
  }
  for (int k = 0; k < 4; ++k) {
    EACH {
      const W round = L(xxh64_round)(L(same)(0), acc[g][k]);
      sum[g] = (sum[g] ^ round) * DIN_PRIME_1 + DIN_PRIME_4;
    }
  }
  EACH h[g] = L(choose)(L(above)(n[g], 31), sum[g], h[g]);
}

/* Words of 8 bytes behind the stripes; `rest` holds what is left behind them. */
DIN_INLINE void L(xxh64_words)(const W *p, const W *n, int room, W *h, W *rest) {
#if LANES == 1
  const uint8_t *key = (const uint8_t *)(uintptr_t)(*p + (*n & ~(uint64_t)31));
  int64_t left = (int64_t)(*n & 31);
  for (; left >= 8; left -= 8, key += 8) *h = din_xxh64_mix8_1(*h, din_read_u64(key));
  if (room) {
    *rest = din_read_u64(key);
  } else if (*n >= 8 && left > 0) {
    *rest = din_read_u64(key + left - 8) >> (64 - 8 * left);
  } else {
    *rest = din_read_few(key, left);
  }
#else
  W w[GROUPS][4], left[GROUPS];
  M m[GROUPS];
  EACH {
    left[g] = n[g] & 31;
    L(words)(p[g] + (n[g] - left[g]), left[g], room, w[g]);
    rest[g] = w[g][0];
  }
  for (int k = 0; k < 3; ++k) {
    EACH m[g] = L(above)(left[g], 8 * k + 7);
    if (!L(any)(m)) break;
    EACH {
      h[g] = L(choose)(m[g], L(xxh64_mix8)(h[g], w[g][k]), h[g]);
      rest[g] = L(choose)(m[g], w[g][k + 1], rest[g]);
    }
  }
#endif
}

DIN_INLINE void L(xxh64)(const W *p, const W *n, int room, uint64_t seed, W *h) {
  W rest[GROUPS];
  M m[GROUPS];
  EACH h[g] = L(same)(seed + DIN_PRIME_5);
  EACH m[g] = L(above)(n[g], 31);
  if (L(any)(m)) L(xxh64_stripes)(p, n, room, seed, h);
  EACH h[g] += n[g];
  L(xxh64_words)(p, n, room, h, rest);
  EACH m[g] = L(has)(n[g], 4);
  if (L(any)(m)) {
    EACH {
      h[g] = L(choose)(m[g], L(xxh64_mix4)(h[g], rest[g] & DIN_LOW32), h[g]);
      rest[g] = L(choose)(m[g], rest[g] >> 32, rest[g]);
    }
  }
  EACH m[g] = L(has)(n[g], 2);
  if (L(any)(m)) {
    EACH {
      const W first = L(xxh64_mix1)(h[g], rest[g] & 255);
      h[g] = L(choose)(m[g], L(xxh64_mix1)(first, rest[g] >> 8 & 255), h[g]);
      rest[g] = L(choose)(m[g], rest[g] >> 16, rest[g]);
    }
  }
  EACH m[g] = L(has)(n[g], 1);
  if (L(any)(m)) {
    EACH h[g] = L(choose)(m[g], L(xxh64_mix1)(h[g], rest[g] & 255), h[g]);
  }
  EACH h[g] = L(xxh64_avalanche)(h[g]);
}

DIN_INLINE W L(xxh64_int)(W key, uint64_t seed) {
  return L(xxh64_avalanche)(L(xxh64_mix8)(L(same)(seed + DIN_PRIME_5 + 8), key));
}

/* ------------------------------------------------------------------------------ XXH3 */

DIN_INLINE W L(xxh3_avalanche)(W h) {
  h = (h ^ h >> 37) * DIN_XXH3_AVALANCHE;
  return h ^ h >> 32;
}

/* Of 4 to 8 bytes: the first four in the high half of `words`, the last in the low. */
DIN_INLINE W L(xxh3_4to8)(W words, W n, uint64_t seed) {
  seed ^= din_swap_bytes_1(seed & DIN_LOW32);
  W h = words ^ ((din_xxh3_secret(8) ^ din_xxh3_secret(16)) - seed);
  h = (h ^ L(turn)(h, 49) ^ L(turn)(h, 24)) * DIN_XXH3_RRMXMX;
  h = (h ^ ((h >> 35) + n)) * DIN_XXH3_RRMXMX;
  return h ^ h >> 28;
}

/* Of 16 bytes; 0 where the mask says no. */
DIN_INLINE W L(xxh3_mix16)(W address, M mask, int secret, uint64_t seed) {
  W w[2];
  L(two_words)(address, mask, w);
  const W h = L(fold)(w[0] ^ (din_xxh3_secret(secret) + seed),
                      w[1] ^ (din_xxh3_secret(secret + 8) - seed));
  return L(choose)(mask, h, L(same)(0));
}

/* Of 17 to 128 bytes: pairs of 16 from both ends; sums do not mind the order. */
DIN_INLINE void L(xxh3_17to128)(const W *p, const W *n, const M *mask, uint64_t seed,
                                W *h) {
  W sum[GROUPS];
  M m[GROUPS];
  EACH sum[g] = n[g] * DIN_PRIME_1;
  for (int i = 0; i < 4; ++i) {
    const uint64_t at = 16 * (uint64_t)i;
    EACH m[g] = L(above)(n[g], 32 * i) & mask[g];
    if (!L(any)(m)) break;
    EACH {
      sum[g] += L(xxh3_mix16)(p[g] + at, m[g], 32 * i, seed);
      sum[g] += L(xxh3_mix16)(p[g] + n[g] - at - 16, m[g], 32 * i + 16, seed);
    }
  }
  EACH h[g] = L(choose)(mask[g], L(xxh3_avalanche)(sum[g]), h[g]);
}

/* Of 129 to 240 bytes; 3 and 119 are where the secrets of the later ones begin. */
DIN_INLINE W L(xxh3_129to240)(W p, W n, M is_long, uint64_t seed) {
  W h = n * DIN_PRIME_1;
  for (int i = 0; i < 8; ++i) {
    h += L(xxh3_mix16)(p + 16 * (uint64_t)i, is_long, 16 * i, seed);
  }
  h = L(xxh3_avalanche)(h);
  for (int i = 8; i < 15; ++i) {
    const M m = L(above)(n, 16 * i + 15) & is_long;
    if (!L(any_of)(m)) break;
    h += L(xxh3_mix16)(p + 16 * (uint64_t)i, m, 16 * (i - 8) + 3, seed);
  }
  h += L(xxh3_mix16)(p + n - 16, is_long, 119, seed);
  return L(xxh3_avalanche)(h);
}

DIN_INLINE void L(xxh3_stripe)(W acc[8], W p, M mask, const uint8_t *secret) {
  W w[8];
  L(stripe)(p, mask, 0, w);
  L(stripe)(p + 32, mask, 0, w + 4);
  for (int k = 0; k < 8; ++k) {
    const W key = w[k] ^ din_read_u64(secret + 8 * k);
    const W sum = acc[k] + w[k ^ 1] + L(mul32)(key, key >> 32);
    acc[k] = L(choose)(mask, sum, acc[k]);
  }
}

/* Of more: stripes of 64 bytes, 16 to a block; the last ends with the key. */
DIN_INLINE W L(xxh3_stripes)(W p, W n, M is_long, uint64_t seed) {
  const uint64_t start[8] = {DIN_PRIME32_3, DIN_PRIME_1,   DIN_PRIME_2, DIN_PRIME_3,
                             DIN_PRIME_4,   DIN_PRIME32_2, DIN_PRIME_5, DIN_PRIME32_1};
  uint8_t secret[DIN_XXH3_SECRET_BYTES];
  W acc[8], h = n * DIN_PRIME_1;
  for (int i = 0; i < DIN_XXH3_SECRET_BYTES; i += 8) {
    const uint64_t word = din_xxh3_secret(i) + (i % 16 == 0 ? seed : 0 - seed);
    for (int k = 0; k < 8; ++k) secret[i + k] = (uint8_t)(word >> (8 * k));
  }
  for (int k = 0; k < 8; ++k) acc[k] = L(same)(start[k]);
  for (int64_t at = 0;; at += 64) {
    const M m = L(above)(n, at + 64) & is_long;
    if (!L(any_of)(m)) break;
    const int64_t of_block = at / 64 % 16;
    L(xxh3_stripe)(acc, p + (uint64_t)at, m, secret + 8 * of_block);
    for (int k = 0; of_block == 15 && k < 8; ++k) {
      const uint64_t word = din_read_u64(secret + 128 + 8 * k);
      const W mixed = (acc[k] ^ acc[k] >> 47 ^ word) * DIN_PRIME32_1;
      acc[k] = L(choose)(m, mixed, acc[k]);
    }
  }
  L(xxh3_stripe)(acc, p + n - 64, is_long, secret + 121);
  for (int k = 0; k < 8; k += 2) {
    const uint8_t *words = secret + 11 + 8 * k;
    h += L(fold)(acc[k] ^ din_read_u64(words), acc[k + 1] ^ din_read_u64(words + 8));
  }
  return L(xxh3_avalanche)(h);
}

/* Up to 3: the first byte, the middle one and the last. */
DIN_INLINE W L(xxh3_0to3)(S s, W n, uint64_t seed) {
  const uint64_t of_none = din_xxh3_secret(56) ^ din_xxh3_secret(64) ^ seed;
  const uint64_t secret = din_xxh3_secret(0);
  const uint64_t flip = ((secret & DIN_LOW32) ^ secret >> 32) + seed;
  const W first = L(byte)(s, n - n, n), middle = L(byte)(s, n >> 1, n);
  const W bytes = first << 16 ^ middle << 24 ^ L(byte)(s, n - 1, n);
  const W mixed = bytes ^ n << 8 ^ flip;
  return L(xxh64_avalanche)(L(choose)(L(above)(n, 0), mixed, L(same)(of_none)));
}

DIN_INLINE W L(xxh3_9to16)(S s, W n, uint64_t seed) {
  const uint64_t first = (din_xxh3_secret(24) ^ din_xxh3_secret(32)) + seed;
  const uint64_t second = (din_xxh3_secret(40) ^ din_xxh3_secret(48)) - seed;
  const W low = L(first8)(s) ^ first, high = L(last8)(s, n) ^ second;
  return L(xxh3_avalanche)(n + L(swap_bytes)(low) + high + L(fold)(low, high));
}

DIN_INLINE void L(xxh3)(const W *p, const W *n, int room, uint64_t seed, W *h) {
  S s[GROUPS];
  M m[GROUPS];
  EACH {
    s[g] = L(take_short)(p[g], n[g], room);
    h[g] = L(same)(0);
  }
  WHERE(0, 3, SET(L(xxh3_0to3)(s[g], n[g], seed)))
  WHERE(4, 8,
        SET(L(xxh3_4to8)(L(first4)(s[g]) << 32 | L(last4)(s[g], n[g]), n[g], seed)))
  WHERE(9, 16, SET(L(xxh3_9to16)(s[g], n[g], seed)))
  WHERE(17, 128, L(xxh3_17to128)(p, n, m, seed, h))
  WHERE(129, 240, SET(L(xxh3_129to240)(p[g], n[g], m[g], seed)))
  WHERE(241, INT64_MAX, SET(L(xxh3_stripes)(p[g], n[g], m[g], seed)))
}

DIN_INLINE W L(xxh3_int)(W key, uint64_t seed) {
  return L(xxh3_4to8)(L(turn)(key, 32), L(same)(8), seed);
}

/* --------------------------------------------------- MurmurHash3, in lanes of 32 bits */

DIN_INLINE H L(murmur3_turn)(H x, int bits) { return x << bits | x >> (32 - bits); }

DIN_INLINE H L(murmur3_scramble)(H word) {
  return L(murmur3_turn)(word * DIN_MURMUR3_1, 15) * DIN_MURMUR3_2;
}

DIN_INLINE H L(murmur3_stir)(H h) { return L(murmur3_turn)(h, 13) * 5 + DIN_MURMUR3_3; }

DIN_INLINE H L(murmur3_finish)(H h, H n) {
  h ^= n;
  h = (h ^ h >> 16) * DIN_MURMUR3_4;
  h = (h ^ h >> 13) * DIN_MURMUR3_5;
  return h ^ h >> 16;
}

#if LANES == 1
DIN_INLINE void din_murmur3_1(const W *p, const W *n, int room, uint64_t seed, H *h) {
  const uint8_t *key = (const uint8_t *)(uintptr_t)*p;
  uint64_t left = *n;
  (void)room;
  *h = (H)seed;
  for (; left >= 4; left -= 4, key += 4) {
    *h = din_murmur3_stir_1(*h ^ din_murmur3_scramble_1(din_read_u32(key)));
  }
  *h ^= din_murmur3_scramble_1((H)din_read_few(key, (int64_t)left));
  *h = din_murmur3_finish_1(*h, (H)*n);
}
#else
/* Words behind the end of a key are 0: they change nothing. */
DIN_INLINE void L(murmur3)(const W *p, const W *n, int room, uint64_t seed, H *h) {
  enum { PER = 2, HALVES = GROUPS / PER }; /* groups in a vector of halves */
  W w[GROUPS][4], left[GROUPS];
  M m[GROUPS];
  (void)room;
  H size[HALVES], here[HALVES];
  L(half_mask) inside[HALVES];
#define EACH_HALF DIN_UNROLL for (int g = 0; g < HALVES; ++g)
  EACH_HALF size[g] = L(join)(n + g * PER, 0);
  EACH_HALF h[g] = (size[g] ^ size[g]) + (uint32_t)seed;
  for (int64_t at = 0;; at += 32) {
    EACH m[g] = L(above)(n[g], at);
    if (!L(any)(m)) break;
    EACH {
      left[g] = n[g] - (uint64_t)at;
      left[g] = L(choose)(L(above)(left[g], 32), L(same)(32), left[g]);
      left[g] = L(choose)(m[g], left[g], L(same)(0));
      L(words)(p[g] + (uint64_t)at, left[g], 0, w[g]);
    }
    EACH_HALF here[g] = L(join)(left + g * PER, 0);
    for (int k = 0; k < 8; ++k) {
      EACH_HALF inside[g] = L(halves_above)(here[g], 4 * k);
      if (!L(any_half)(inside)) break;
      EACH_HALF {
        const W pair[2] = {w[g * PER][k / 2], w[g * PER + PER - 1][k / 2]};
        h[g] ^= L(murmur3_scramble)(L(join)(pair, k % 2));
        inside[g] = L(halves_above)(here[g], 4 * k + 3);
        h[g] = L(choose_halves)(inside[g], L(murmur3_stir)(h[g]), h[g]);
      }
    }
  }
  EACH_HALF h[g] = L(murmur3_finish)(h[g], size[g]);
#undef EACH_HALF
}
#endif

DIN_INLINE H L(murmur3_int)(const W *key, uint64_t seed) {
  H h = L(join)(key, 0);
  h = L(murmur3_stir)(L(murmur3_scramble)(h) ^ (uint32_t)seed);
  h = L(murmur3_stir)(L(murmur3_scramble)(L(join)(key, 1)) ^ h);
  return L(murmur3_finish)(h, (h ^ h) + 8);
}

/* -------------------------------------------------------------------------- FarmHash */

DIN_INLINE W L(farmhash_shift)(W x) { return x ^ x >> 47; }

/* Of two numbers; FarmHash turns to the right. */
DIN_INLINE W L(farmhash_16)(W x, W y, W k) {
  const W a = L(farmhash_shift)((x ^ y) * k);
  return L(farmhash_shift)((y ^ a) * k) * k;
}

DIN_INLINE W L(farmhash_8to16)(W first, W last, W n) {
  const W k = 2 * n + DIN_FARMHASH_2;
  const W a = first + DIN_FARMHASH_2;
  const W c = L(turn)(last, 27) * k + a;
  return L(farmhash_16)(c, (L(turn)(a, 39) + last) * k, k);
}

DIN_INLINE W L(farmhash_17to64)(W p, W n, M is_long) {
  const M above32 = L(above)(n, 32) & is_long;
  const W k = 2 * n + DIN_FARMHASH_2;
  const W two = L(same)(DIN_FARMHASH_2);
  W front[4], back[4];
  L(two_words)(p, is_long, front);
  L(two_words)(p + n - 16, is_long, back);
  const W a = front[0] * L(choose)(above32, two, L(same)(DIN_FARMHASH_1));
  const W b = front[1];
  const W c = back[1] * k;
  const W x = L(turn)(a + b, 21) + L(turn)(c, 34) + back[0] * two;
  const W z = L(farmhash_16)(x, a + L(turn)(b + two, 46) + c, k);
  if (!L(any_of)(above32)) return z;
  L(two_words)(p + 16, above32, front + 2);
  L(two_words)(p + n - 32, above32, back + 2);
  const W e = front[2] * k;
  const W f = front[3];
  const W g = (x + back[2]) * k;
  const W h = (z + back[3]) * k;
  const W y = L(turn)(e + f, 21) + L(turn)(g, 34) + h;
  const W joined = L(farmhash_16)(y, e + L(turn)(f + a, 46) + g, k);
  return L(choose)(above32, joined, z);
}

/* Two numbers of 32 bytes and of two numbers. */
DIN_INLINE void L(farmhash_weak32)(const W w[4], W a, W b, W out[2]) {
  a += w[0];
  b = L(turn)(b + a + w[3], 43);
  const W c = a + w[1] + w[2];
  out[0] = c + w[3];
  out[1] = b + L(turn)(c, 20) + a;
}

/* One stripe of 64 bytes into x, y, z, v and w; `nine` is 9 in the last one, else 1. */
DIN_INLINE void L(farmhash_stripe)(W s[7], W p, M mask, W k, uint64_t nine) {
  W w[8], t[7];
  L(stripe)(p, mask, 0, w);
  L(stripe)(p + 32, mask, 0, w + 4);
  t[2] = L(turn)(s[0] + s[1] + s[3] + w[1], 27) * k ^ s[6] * nine;
  t[1] = L(turn)(s[1] + s[4] + w[6], 22) * k + s[3] * nine + w[5];
  t[0] = L(turn)(s[2] + s[5], 31) * k;
  L(farmhash_weak32)(w, s[4] * k, t[2] + s[5], t + 3);
  L(farmhash_weak32)(w + 4, t[0] + s[6], t[1] + w[2], t + 5);
  for (int i = 0; i < 7; ++i) s[i] = L(choose)(mask, t[i], s[i]);
}

DIN_INLINE W L(farmhash_stripes)(W p, W n, M is_long) {
  const uint64_t y = 81 * DIN_FARMHASH_1 + 113;
  W s[7] = {L(same)(81 * DIN_FARMHASH_2),
            L(same)(y),
            L(same)(din_farmhash_shift_1(y * DIN_FARMHASH_2 + 113) * DIN_FARMHASH_2),
            L(same)(0),
            L(same)(0),
            L(same)(0),
            L(same)(0)};
  W first[2];
  L(two_words)(p, is_long, first);
  s[0] += first[0];
  for (int64_t at = 0;; at += 64) {
    const M m = L(above)(n, at + 64) & is_long;
    if (!L(any_of)(m)) break;
    L(farmhash_stripe)(s, p + (uint64_t)at, m, L(same)(DIN_FARMHASH_1), 1);
  }
  const W k = ((s[2] & 255) << 1) + DIN_FARMHASH_1;
  s[5] += (n - 1) & 63;
  s[3] += s[5];
  s[5] += s[3];
  L(farmhash_stripe)(s, p + n - 64, is_long, k, 9);
  const W one =
      L(farmhash_16)(s[3], s[5], k) + L(farmhash_shift)(s[1]) * DIN_FARMHASH_0;
  return L(farmhash_16)(one + s[2], L(farmhash_16)(s[4], s[6], k) + s[0], k);
}

DIN_INLINE W L(farmhash_0to3)(S s, W n) {
  const W y = L(byte)(s, n - n, n) + (L(byte)(s, n >> 1, n) << 8);
  const W z = n + (L(byte)(s, n - 1, n) << 2);
  const W x = L(farmhash_shift)(y * DIN_FARMHASH_2 ^ z * DIN_FARMHASH_0);
  const W two = L(same)(DIN_FARMHASH_2);
  return L(choose)(L(above)(n, 0), x * DIN_FARMHASH_2, two);
}

DIN_INLINE W L(farmhash_4to7)(S s, W n) {
  const W x = n + (L(first4)(s) << 3);
  return L(farmhash_16)(x, L(last4)(s, n), 2 * n + DIN_FARMHASH_2);
}

DIN_INLINE void L(farmhash)(const W *p, const W *n, int room, uint64_t seed, W *h) {
  S s[GROUPS];
  M m[GROUPS];
  (void)seed;
  EACH {
    s[g] = L(take_short)(p[g], n[g], room);
    h[g] = L(same)(0);
  }
  WHERE(0, 3, SET(L(farmhash_0to3)(s[g], n[g])))
  WHERE(4, 7, SET(L(farmhash_4to7)(s[g], n[g])))
  WHERE(8, 16, SET(L(farmhash_8to16)(L(first8)(s[g]), L(last8)(s[g], n[g]), n[g])))
  WHERE(17, 64, SET(L(farmhash_17to64)(p[g], n[g], m[g])))
  WHERE(65, INT64_MAX, SET(L(farmhash_stripes)(p[g], n[g], m[g])))
}

DIN_INLINE W L(farmhash_int)(W key, uint64_t seed) {
  (void)seed;
  return L(farmhash_8to16)(key, key, L(same)(8));
}

#undef SET
#undef WHERE
#undef S
#undef EACH
#undef GROUPS
#undef H
#undef M
#undef W
#undef L
#undef DIN_JOIN
#undef DIN_JOIN_
#undef LANES
