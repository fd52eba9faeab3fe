// Label raw images with the published model in Node; prints one JSON object.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";

const folder = process.argv[2];
const session = await ort.InferenceSession.create(`${folder}/model.onnx`);
const pixels = new Uint8Array(await readFile(`${folder}/images.bin`));
const images = new ort.Tensor("uint8", pixels, [pixels.length / 784, 28, 28]);
const { probabilities, label } = await session.run({ images });
// Labels arrive as a BigInt64Array.
console.log(JSON.stringify({ probabilities: Array.from(probabilities.data), label: Array.from(label.data, Number) }));
