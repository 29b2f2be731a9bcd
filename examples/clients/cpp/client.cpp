// Raw rows to scores in C++17: client MODEL.onnx VECTORS [_ops.so, the native operators]
#include <onnxruntime_cxx_api.h>

#include <fstream>
#include <iostream>

#include "encoder.h"

std::map<std::string, Tensor> encode(const Json &batch) {
  const Json &users = batch["requests"], &items = batch["candidates"];
  std::map<std::string, Tensor> made;
  made["user_id"] = column(users, "user_id", user);
  made["goods_id"] = column(items, "goods_id", goods);
  made["shop_id"] = column(items, "shop_id", shop);
  made["slot"] = column(items, "slot", slot);
  made["hist_goods_id"] = lists(users, "hist_goods_id", goods, &made["history.lengths"]);
  made["hist_shop_id"] = lists(users, "hist_shop_id", shop, &made["history.lengths"]);
  Tensor &prices = made["price"] = {{static_cast<int64_t>(items.list.size()), 1}, {}, {}};
  for (const auto &item : items.list) prices.numbers.push_back(price(item["price"]));
  Tensor &owners = made["request_of_candidate"] = {{prices.shape[0]}, {}, {}};
  for (const auto &owner : batch["request_of_candidate"].list) owners.ids.push_back(owner.number);
  return made;
}

int main(int argc, char **argv) {
  Ort::Env env;
  Ort::SessionOptions options;
  if (argc > 3) options.RegisterCustomOpsLibrary(argv[3]);
  Ort::Session session(env, argv[1], options);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::ifstream file(std::string(argv[2]) + "/vectors.jsonl");
  double worst = 0;
  int wrong = 0;
  for (std::string line; std::getline(file, line);) {
    const char *at = line.c_str();
    const Json vector = Json::read(at);
    auto inputs = encode(vector);
    std::vector<const char *> names;
    std::vector<Ort::Value> values;
    for (auto &[name, t] : inputs) {
      const Json &right = vector["inputs"][name.c_str()];
      std::vector<double> data(t.ids.begin(), t.ids.end()), shape(t.shape.begin(), t.shape.end());
      data.insert(data.end(), t.numbers.begin(), t.numbers.end());
      wrong += data != right["data"].numbers() || shape != right["shape"].numbers();
      names.push_back(name.c_str());
      values.push_back(name == "price"
          ? Ort::Value::CreateTensor<float>(memory, t.numbers.data(), t.numbers.size(), t.shape.data(), 2)
          : Ort::Value::CreateTensor<int64_t>(memory, t.ids.data(), t.ids.size(), t.shape.data(), t.shape.size()));
    }
    const char *wanted[] = {"logit"};
    auto out = session.Run(Ort::RunOptions{nullptr}, names.data(), values.data(), names.size(), wanted, 1);
    const float *logits = out[0].GetTensorData<float>();
    for (double right : vector["logits"].numbers())
      worst = std::max(worst, std::abs(*logits++ - right) / std::max(1.0, std::abs(right)));
  }
  std::cout << "{\"wrong\":" << wrong << ",\"worst\":" << worst << "}\n";
}
