import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Just enough JSON to read vectors.jsonl, which no service does: bring your own library. */
final class Json {
  private final String text;
  private int at = 0;

  private Json(String text) { this.text = text; }

  static Object read(String text) { return new Json(text).value(); }

  private char next() {
    while (" ,:".indexOf(text.charAt(at)) >= 0) ++at;
    return text.charAt(at);
  }

  private Object value() {
    char c = next();
    if (c == '"') return string();
    if (c == '[') {
      List<Object> list = new ArrayList<>();
      for (++at; next() != ']';) list.add(value());
      ++at;
      return list;
    }
    if (c == '{') {
      Map<String, Object> table = new LinkedHashMap<>();
      for (++at; next() != '}';) table.put(string(), value());
      ++at;
      return table;
    }
    int start = at;
    while (at < text.length() && ",]} ".indexOf(text.charAt(at)) < 0) ++at;
    String word = text.substring(start, at);
    return word.equals("null") ? null : (Object) Double.valueOf(word);
  }

  private String string() {
    StringBuilder out = new StringBuilder();
    for (next(), ++at; text.charAt(at) != '"'; ++at) {
      char c = text.charAt(at);
      if (c == '\\') {
        c = text.charAt(++at);
        int known = "bfnrt".indexOf(c);
        if (known >= 0) c = "\b\f\n\r\t".charAt(known);
        if (text.charAt(at) == 'u') {
          c = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16);
          at += 4;
        }
      }
      out.append(c);
    }
    ++at;
    return out.toString();
  }
}
