// One user and three candidates -> ids, in C++: owners of the two handles, and a column
// of strings. Built and run as encode.c is; it needs C++17.
#include <din_encode.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Close {
  void operator()(din_encode_spec *spec) const { din_encode_close(spec); }
  void operator()(din_encode_batch *batch) const { din_encode_release(batch); }
};
using Spec = std::unique_ptr<din_encode_spec, Close>;
using Batch = std::unique_ptr<din_encode_batch, Close>;

// Columns of one side, laid out as Arrow has them; to be filled before it is passed on.
class Columns {
 public:
  explicit Columns(std::int64_t rows) : rows_(rows) {}

  void strings(std::string name, const std::vector<std::string> &values) {
    Column &column = add(std::move(name), "u", rows_);
    fill(column, values);
  }

  // One list of strings: that of a single request.
  void list(std::string name, const std::vector<std::string> &values) {
    Column &column = add(std::move(name), "+l", rows_);
    column.ends = {0, static_cast<std::int32_t>(values.size())};
    column.buffers = {nullptr, column.ends.data()};
    column.child = std::make_unique<Column>();
    Column &child = *column.child;
    child.type.format = "u";
    child.type.name = "item";
    child.array.length = static_cast<std::int64_t>(values.size());
    fill(child, values);
    column.types = {&child.type};
    column.arrays = {&child.array};
    column.type.n_children = column.array.n_children = 1;
    column.type.children = column.types.data();
    column.array.children = column.arrays.data();
    finish(column);
  }

  void numbers(std::string name, const std::vector<double> &values) {
    Column &column = add(std::move(name), "g", rows_);
    column.numbers = values;
    column.buffers = {nullptr, column.numbers.data()};
    finish(column);
  }

  const ArrowSchema *type() {
    for (auto &column : columns_) types_.push_back(&column->type);
    type_.format = "+s";
    type_.name = "";
    type_.n_children = static_cast<std::int64_t>(types_.size());
    type_.children = types_.data();
    return &type_;
  }

  const ArrowArray *array() {
    for (auto &column : columns_) arrays_.push_back(&column->array);
    array_.length = rows_;
    array_.n_children = static_cast<std::int64_t>(arrays_.size());
    array_.children = arrays_.data();
    return &array_;
  }

 private:
  struct Column {
    std::string name, bytes;
    std::vector<std::int32_t> ends;
    std::vector<double> numbers;
    std::vector<const void *> buffers;
    std::unique_ptr<Column> child;
    std::vector<ArrowSchema *> types;
    std::vector<ArrowArray *> arrays;
    ArrowSchema type{};
    ArrowArray array{};
  };

  Column &add(std::string name, const char *format, std::int64_t rows) {
    columns_.push_back(std::make_unique<Column>());
    Column &column = *columns_.back();
    column.name = std::move(name);
    column.type.format = format;
    column.type.name = column.name.c_str();
    column.array.length = rows;
    return column;
  }

  static void fill(Column &column, const std::vector<std::string> &values) {
    column.ends = {0};
    for (const auto &value : values) {
      column.bytes += value;
      column.ends.push_back(static_cast<std::int32_t>(column.bytes.size()));
    }
    column.buffers = {nullptr, column.ends.data(), column.bytes.data()};
    finish(column);
  }

  static void finish(Column &column) {
    column.array.n_buffers = static_cast<std::int64_t>(column.buffers.size());
    column.array.buffers = column.buffers.data();
  }

  std::int64_t rows_;
  std::vector<std::unique_ptr<Column>> columns_;
  std::vector<ArrowSchema *> types_;
  std::vector<ArrowArray *> arrays_;
  ArrowSchema type_{};
  ArrowArray array_{};
};

static Spec open_spec(const std::string &json) {
  char error[400];
  Spec spec(din_encode_open(json.data(), static_cast<std::int64_t>(json.size()), error,
                            sizeof error));
  if (!spec) throw std::runtime_error(error);
  return spec;
}

static void print(const din_encode_tensor &t) {
  std::printf("%s", t.name);
  for (std::int64_t i = 0; i < t.dims[0] * t.dims[1]; ++i) {
    if (t.type == DIN_ENCODE_INT64) {
      const auto id = static_cast<const std::int64_t *>(t.data)[i];
      std::printf(" %lld", static_cast<long long>(id));
    } else {
      std::printf(" %.9g", static_cast<double>(static_cast<const float *>(t.data)[i]));
    }
  }
  std::printf("\n");
}

int main(int argc, char **argv) try {
  if (argc != 2) throw std::runtime_error("usage: encode spec.json");
  std::ifstream file(argv[1], std::ios::binary);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  const Spec spec = open_spec(json);

  Columns user(1), items(3);
  user.strings("user_id", {"ann"});
  user.list("hist_goods_id", {"a", "b", "xy"});
  items.strings("goods_id", {"a", "b", "\xC3\xA9"});
  items.numbers("price", {0.5, 10.0, 2.25});

  char error[400];
  const Batch batch(din_encode_requests(spec.get(), user.type(), user.array(),
                                        items.type(), items.array(), nullptr, error,
                                        sizeof error));
  if (!batch) throw std::runtime_error(error);
  for (std::int64_t i = 0; i < din_encode_num_inputs(spec.get()); ++i) {
    print(din_encode_input(batch.get(), i));
  }
  return 0;
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
