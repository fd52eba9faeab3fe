// Ask the model about the rows of a folder in Node; prints one JSON object of its outputs.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";

const folder = process.argv[2];
const { name, type, shape } = JSON.parse(await readFile(`${folder}/rows.json`));
const bytes = new Uint8Array(await readFile(`${folder}/rows.bin`)).buffer;
const session = await ort.InferenceSession.create(`${folder}/model.onnx`);
const rows = new ort.Tensor(type, type === "uint8" ? new Uint8Array(bytes) : new Float32Array(bytes), shape);
const outputs = await session.run({ [name]: rows });
// Labels arrive as a BigInt64Array.
const answer = Object.entries(outputs).map(([output, { data }]) => [output, Array.from(data, Number)]);
console.log(JSON.stringify(Object.fromEntries(answer)));
