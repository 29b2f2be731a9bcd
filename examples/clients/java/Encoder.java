import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;

/** Raw values to ids, by the rules of docs/without-python.md. */
final class Encoder {
  static byte[] bytes(Object v) {
    if (v instanceof String text) return text.getBytes(StandardCharsets.UTF_8);
    return HexFormat.of().parseHex((String) ((Map<?, ?>) v).get("hex"));
  }

  /** The hash is unsigned: % alone would give half of all keys a negative id. */
  static long offset(Object v, long buckets, long seed) {
    return v == null ? 0 : 1 + Long.remainderUnsigned(Xxh64.hash(bytes(v), seed), buckets - 1);
  }
  static long user(Object v) { return offset(v, 1000, 42); }
  static long goods(Object v) { return offset(v, 5000, 0); }
  /** pmod: of the signed hash, never negative. An integer may have all of 64 bits. */
  static long shop(Object v) {
    if (v == null) return 0;
    long number = new BigInteger((String) v).longValue();
    ByteBuffer key = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(number);
    return Math.floorMod(Xxh64.hash(key.array(), 0), 500L);
  }

  static long slot(Object v) {
    int at = v == null ? -1 : List.of("top", "side", "bottom").indexOf(v);
    return v == null ? 0 : at < 0 ? 4 : at + 1;
  }

  static float scale(double x) { return (float) ((x - 20.0) / 7.5); }
  static float price(Object v) {
    double x = v instanceof Double number ? number : Double.NaN;
    return Float.isFinite(scale(x)) ? scale(x) : scale(20.0);
  }

  static long[] column(List<Map<String, Object>> rows, String name, ToLongFunction<Object> id) {
    return rows.stream().mapToLong(row -> id.applyAsLong(row.get(name))).toArray();
  }

  /** The newest 20 of each list, zeros on the right: [B, T], and T may be 0. */
  static long[][] lists(List<Map<String, Object>> rows, String name, ToLongFunction<Object> id) {
    var kept = rows.stream().map(row -> newest((List<?>) row.get(name))).toList();
    int width = kept.stream().mapToInt(List::size).max().orElse(0);
    long[][] ids = new long[rows.size()][width];
    for (int b = 0; b < ids.length; ++b)
      for (int t = 0; t < kept.get(b).size(); ++t) ids[b][t] = id.applyAsLong(kept.get(b).get(t));
    return ids;
  }

  static List<?> newest(List<?> list) {
    return list == null ? List.of() : list.subList(Math.max(0, list.size() - 20), list.size());
  }
}
