// A service in JavaScript: raw rows as JSON on stdin, answers of the table's model in this folder on stdout.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const session = await ort.InferenceSession.create("model.onnx");
const { columns } = JSON.parse(readFileSync("metadata.json")).parameters; // onnxruntime shows no metadata_props here
const codes = columns.map(({ levels }) => new Map(levels.map((level, code) => [level, code])));

const parts = {
  month: (date) => date.getUTCMonth(),
  weekday: (date) => (date.getUTCDay() + 6) % 7,
  hour: (date) => date.getUTCHours(),
  year: (date) => date.getUTCFullYear(),
};
const ISO_8601 = /^(\d{4}-\d\d-\d\d)?(?:(?:^|[ T])(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?)?$/;

// Reads a part of a date or time, which must be in the time zone of the model's dates; NaN if the value is neither.
function readPart(value, part) {
  const noDay = ["month", "weekday", "year"].includes(part) ? "none" : "1970-01-01"; // a time alone has no such part
  const [text, day = noDay, time = "00:00"] = ISO_8601.exec(typeof value === "string" ? value.trim() : "") ?? [];
  const date = new Date(`${day}T${time}Z`);
  return text && date.toJSON()?.startsWith(day) ? parts[part](date) : NaN; // February 31 would be in March
}

// Reads a number or, for a boolean, true or false; NaN if the value is something else. Of text it reads whole numbers
// only, since a point or comma may set thousands apart where the model comes from.
function readNumber(value, kind) {
  const text = String(value).toLowerCase();
  if (kind === "boolean" && ["false", "true"].includes(text)) return Number(text === "true");
  if (typeof value === "string") return /^[+-]?\d+$/.test(text.trim()) ? Number(text) : NaN;
  return typeof value === "number" ? value : NaN;
}

// Writes a level as the model's file does: whole numbers without a decimal point, true and false in lower case.
function nameLevel(value) {
  const text = String(value).replace(/^([+-]?\d+)\.0*$/, "$1");
  return /^(true|false)$/i.test(text) ? text.toLowerCase() : text;
}

// A number stays as it is, true is 1, and a level is its code; NaN is missing, and -1 is an unknown level (average).
function feature(row, { name, kind, from, part }, at) {
  const column = from ?? name;
  const value = row[column];
  if (value === undefined) throw new Error(`column '${column}' is missing`);
  if (value === null) return NaN;
  if (kind === "category" && !part && typeof value !== "object") return codes[at].get(nameLevel(value)) ?? -1;
  if (typeof value === "string" && value.trim() === "") return NaN;
  const number = part ? readPart(value, part) : readNumber(value, kind);
  if (kind === "boolean" ? number === 0 || number === 1 : Number.isFinite(Math.fround(number))) return number;
  throw new Error(`${column} is ${JSON.stringify(value)}, not a ${part ? "date" : kind}`);
}

const rows = JSON.parse(readFileSync(0));
const features = Float32Array.from(rows.flatMap((row) => columns.map((column, at) => feature(row, column, at))));
const answers = await session.run({ features: new ort.Tensor("float32", features, [rows.length, columns.length]) });
const outputs = Object.entries(answers).map(([name, { data }]) => [name, Array.from(data, Number)]);
const areFinite = outputs.every(([, numbers]) => numbers.every(Number.isFinite));
if (!areFinite) throw new Error("a prediction is not a finite number, because a value is too large");
console.log(JSON.stringify(Object.fromEntries(outputs)));
