// XXH64, https://github.com/Cyan4973/xxHash: a Buffer and a BigInt in [0, 2^64) to another.
const u64 = (x) => BigInt.asUintN(64, x);
const P1 = 0x9e3779b185ebca87n, P2 = 0xc2b2ae3d27d4eb4fn, P3 = 0x165667b19e3779f9n;
const P4 = 0x85ebca77c2b2ae63n, P5 = 0x27d4eb2f165667c5n;
const turn = (x, bits) => u64(x << bits) | (x >> (64n - bits));
const round = (a, word) => u64(turn(u64(a + word * P2), 31n) * P1);

export function xxh64(key, seed) {
  let at = 0, h = u64(seed + P5);
  if (key.length >= 32) {
    let v = [seed + P1 + P2, seed + P2, seed, seed - P1].map(u64);
    for (; at + 32 <= key.length; at += 32)
      v = v.map((a, i) => round(a, key.readBigUInt64LE(at + 8 * i)));
    h = u64(turn(v[0], 1n) + turn(v[1], 7n) + turn(v[2], 12n) + turn(v[3], 18n));
    for (const a of v) h = u64((h ^ round(0n, a)) * P1 + P4);
  }
  h = u64(h + BigInt(key.length));
  for (; at + 8 <= key.length; at += 8)
    h = u64(turn(h ^ round(0n, key.readBigUInt64LE(at)), 27n) * P1 + P4);
  for (; at + 4 <= key.length; at += 4)
    h = u64(turn(h ^ u64(BigInt(key.readUInt32LE(at)) * P1), 23n) * P2 + P3);
  for (; at < key.length; ++at) h = u64(turn(h ^ u64(BigInt(key[at]) * P5), 11n) * P1);
  h = u64((h ^ (h >> 33n)) * P2);
  h = u64((h ^ (h >> 29n)) * P3);
  return h ^ (h >> 32n);
}
