// A service in JavaScript: raw rows as JSON on stdin, answers of the table's model in this folder on stdout.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const session = await ort.InferenceSession.create("model.onnx");
const { columns } = JSON.parse(readFileSync("metadata.json")).parameters; // onnxruntime shows no metadata_props here
const codes = columns.map(({ levels }) => new Map(levels.map((level, code) => [level, code])));

// Of a date as ISO 8601 writes it, in the zone that the model's dates have.
const parts = {
  month: (text) => Number(text.slice(5, 7)) - 1,
  weekday: (text) => (new Date(text.slice(0, 10)).getUTCDay() + 6) % 7,
  hour: (text) => Number(text.slice(11, 13)),
  year: (text) => Number(text.slice(0, 4)),
};

// A number as it is, true as 1, a level as its code; NaN is missing, and -1 an unknown level.
function feature(row, { name, kind, from, part }, at) {
  const value = row[from ?? name];
  if (value === null || value === undefined) return NaN;
  if (part) return parts[part](value);
  return kind === "category" ? (codes[at].get(String(value)) ?? -1) : Number(value);
}

const rows = JSON.parse(readFileSync(0));
const features = Float32Array.from(rows.flatMap((row) => columns.map((column, at) => feature(row, column, at))));
const answers = await session.run({ features: new ort.Tensor("float32", features, [rows.length, columns.length]) });
console.log(JSON.stringify(Object.fromEntries(Object.entries(answers).map(([name, { data }]) => [name, Array.from(data, Number)]))));
