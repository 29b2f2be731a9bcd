// Raw rows to scores in Node: node client.mjs MODEL.onnx VECTORS
import fs from "node:fs";
import ort from "onnxruntime-node";
import { xxh64 } from "./xxh64.mjs";

const bytes = (v) => (v.hex === undefined ? Buffer.from(v) : Buffer.from(v.hex, "hex"));
const text = (buckets, seed) => (v) => v === null ? 0n : 1n + (xxh64(bytes(v), seed) % (buckets - 1n));
const [user, goods] = [text(1000n, 42n), text(5000n, 0n)];
function shop(v) { // the decimal text of an integer; pmod: of the signed hash, never negative
  const key = Buffer.alloc(8);
  key.writeBigUInt64LE(BigInt.asUintN(64, BigInt(v ?? 0)));
  return v === null ? 0n : ((BigInt.asIntN(64, xxh64(key, 0n)) % 500n) + 500n) % 500n;
}
const slot = (v) => v === null ? 0n : BigInt(["top", "side", "bottom"].indexOf(v) + 1 || 4);
const scale = (x) => Math.fround((x - 20.0) / 7.5);
const price = (v) => v !== null && Number.isFinite(scale(Number(v))) ? scale(Number(v)) : scale(20.0);

function encode({ requests, candidates, request_of_candidate: owners }) {
  const ids = (list, shape) => new ort.Tensor("int64", BigInt64Array.from(list, BigInt), shape);
  const column = (rows, name, idOf) => ids(rows.map((r) => idOf(r[name])), [rows.length]);
  const kept = (name) => requests.map((r) => (r[name] ?? []).slice(-20)); // the newest
  const lengths = kept("hist_goods_id").map((l) => l.length), T = Math.max(0, ...lengths);
  const lists = (name, idOf) => ids(kept(name).flatMap((l) => // zeros on the right
    [...l.map(idOf), ...Array(T - l.length).fill(0n)]), [requests.length, T]);
  return {
    user_id: column(requests, "user_id", user),
    goods_id: column(candidates, "goods_id", goods),
    shop_id: column(candidates, "shop_id", shop),
    slot: column(candidates, "slot", slot),
    hist_goods_id: lists("hist_goods_id", goods),
    hist_shop_id: lists("hist_shop_id", shop),
    "history.lengths": ids(lengths, [requests.length]),
    price: new ort.Tensor("float32", candidates.map((r) => price(r.price)), [candidates.length, 1]),
    request_of_candidate: ids(owners, [owners.length]),
  };
}

const [model, folder] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
let [worst, wrong] = [0, 0];
for (const line of fs.readFileSync(`${folder}/vectors.jsonl`, "utf8").trim().split("\n")) {
  const vector = JSON.parse(line), inputs = encode(vector);
  for (const [name, { shape, data }] of Object.entries(vector.inputs))
    wrong += `${inputs[name].dims}:${inputs[name].data}` !== `${shape}:${data}`;
  const { logit } = await session.run(inputs, ["logit"]);
  vector.logits.forEach((right, n) => {
    worst = Math.max(worst, Math.abs(logit.data[n] - right) / Math.max(1, Math.abs(right)));
  });
}
console.log(JSON.stringify({ wrong, worst }));
