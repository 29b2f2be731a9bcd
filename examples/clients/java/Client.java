import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/** Raw rows to ids: java Client VECTORS. Scoring: OnnxTensor.createTensor of each input. */
final class Client {
  @SuppressWarnings("unchecked")
  static Map<String, Object> encode(Map<String, Object> batch) {
    var users = (List<Map<String, Object>>) batch.get("requests");
    var items = (List<Map<String, Object>>) batch.get("candidates");
    Map<String, Object> made = new LinkedHashMap<>();
    made.put("user_id", Encoder.column(users, "user_id", Encoder::user));
    made.put("goods_id", Encoder.column(items, "goods_id", Encoder::goods));
    made.put("shop_id", Encoder.column(items, "shop_id", Encoder::shop));
    made.put("slot", Encoder.column(items, "slot", Encoder::slot));
    made.put("hist_goods_id", Encoder.lists(users, "hist_goods_id", Encoder::goods));
    made.put("hist_shop_id", Encoder.lists(users, "hist_shop_id", Encoder::shop));
    made.put("history.lengths", Encoder.column(users, "hist_goods_id",
        v -> Encoder.newest((List<?>) v).size()));
    float[][] prices = new float[items.size()][1];
    for (int n = 0; n < prices.length; ++n) {
      prices[n][0] = Encoder.price(items.get(n).get("price"));
    }
    made.put("price", prices);
    var owners = (List<Double>) batch.get("request_of_candidate");
    made.put("request_of_candidate", owners.stream().mapToLong(Double::longValue).toArray());
    return made;
  }

  /** The numbers of an array, whatever its type and shape. */
  static List<Double> flat(Object array) {
    List<Double> out = new ArrayList<>();
    if (array instanceof long[] ids) LongStream.of(ids).forEach(id -> out.add((double) id));
    if (array instanceof long[][] rows) for (long[] row : rows) out.addAll(flat(row));
    if (array instanceof float[][] rows) for (float[] row : rows) out.add((double) row[0]);
    return out;
  }

  @SuppressWarnings("unchecked")
  public static void main(String[] arguments) throws Exception {
    int wrong = 0;
    for (String line : Files.readAllLines(Path.of(arguments[0], "vectors.jsonl"))) {
      var vector = (Map<String, Object>) Json.read(line);
      var right = (Map<String, Map<String, Object>>) vector.get("inputs");
      for (var input : encode(vector).entrySet()) {
        if (!flat(input.getValue()).equals(right.get(input.getKey()).get("data"))) ++wrong;
      }
    }
    System.out.println("{\"wrong\":" + wrong + "}");
  }
}
