import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** XXH64, https://github.com/Cyan4973/xxHash. The result is unsigned, in a long. */
final class Xxh64 {
  private static final long P1 = 0x9e3779b185ebca87L, P2 = 0xc2b2ae3d27d4eb4fL;
  private static final long P3 = 0x165667b19e3779f9L, P4 = 0x85ebca77c2b2ae63L;
  private static final long P5 = 0x27d4eb2f165667c5L;

  private static long round(long a, long word) {
    return Long.rotateLeft(a + word * P2, 31) * P1;
  }

  static long hash(byte[] key, long seed) {
    ByteBuffer in = ByteBuffer.wrap(key).order(ByteOrder.LITTLE_ENDIAN);
    long h = seed + P5;
    if (key.length >= 32) {
      long[] v = {seed + P1 + P2, seed + P2, seed, seed - P1};
      while (in.remaining() >= 32) {
        for (int i = 0; i < 4; ++i) v[i] = round(v[i], in.getLong());
      }
      h = Long.rotateLeft(v[0], 1) + Long.rotateLeft(v[1], 7);
      h += Long.rotateLeft(v[2], 12) + Long.rotateLeft(v[3], 18);
      for (long a : v) h = (h ^ round(0, a)) * P1 + P4;
    }
    h += key.length;
    while (in.remaining() >= 8) h = Long.rotateLeft(h ^ round(0, in.getLong()), 27) * P1 + P4;
    while (in.remaining() >= 4) {
      h = Long.rotateLeft(h ^ (in.getInt() & 0xffffffffL) * P1, 23) * P2 + P3;
    }
    while (in.hasRemaining()) h = Long.rotateLeft(h ^ (in.get() & 0xff) * P5, 11) * P1;
    h = (h ^ h >>> 33) * P2;
    h = (h ^ h >>> 29) * P3;
    return h ^ h >>> 32;
  }
}
