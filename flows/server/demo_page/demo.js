// Ask the published file about a picture or a row, and show its answer; see ../demo.py for what serves this.
import { showForm } from "./form.js";
import { showDrawing } from "./drawing.js";

const SHOWN = 20; // classes; of more the most probable
const at = (id) => document.getElementById(id);

async function inBrowser(model) {
  const ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  return async (row) => {
    const outputs = await session.run({ [model.input]: new ort.Tensor(model.dtype, row, [1, ...model.shape]) });
    return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, Array.from(data, Number)]));
  };
}

async function byServer(row) {
  const answer = await fetch("predict", { method: "POST", body: row });
  if (!answer.ok) throw new Error(await answer.text());
  const outputs = Object.entries(await answer.json());
  return Object.fromEntries(outputs.map(([name, data]) => [name, data.map(Number)])); // "NaN" is none of JSON's
}

async function computing(model) {
  if (model.server_because) return [byServer, `Computed by the local server: ${model.server_because}.`];
  try {
    return [await inBrowser(model), "Computed in this browser by the published model.onnx; nothing leaves this machine."];
  } catch (error) {
    return [byServer, `Computed by the local server: this browser cannot (${error.message}).`];
  }
}

function told(model, { prediction, probabilities }) {
  if (prediction) return [`${model.target}: ${prediction[0].toLocaleString("en", { maximumSignificantDigits: 6 })}`, []];
  const all = probabilities.map((share, label) => ({ name: model.class_names[label], share }));
  const best = all.reduce((one, other) => (other.share > one.share ? other : one));
  const many = all.length > SHOWN;
  const shown = many ? all.toSorted((one, other) => other.share - one.share).slice(0, SHOWN) : all;
  const answer = `${model.columns ? `${model.target}: ` : ""}${best.name}, ${percent(best.share)}`;
  return [answer, shown.map((each) => ({ ...each, isBest: each === best }))];
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function show([answer, rows]) {
  at("answer").textContent = answer;
  at("probabilities").replaceChildren(
    ...rows.map(({ name, share, isBest }) => {
      const [item, words, bar, figure] = ["li", "span", "progress", "span"].map((tag) => document.createElement(tag));
      item.className = isBest ? "best" : "";
      [words.textContent, bar.value, figure.textContent] = [name, share, percent(share)];
      bar.ariaLabel = name;
      item.append(words, bar, figure);
      return item;
    }),
  );
}

// One question at a time: of those that come meanwhile only the last is asked. Of nothing, there is nothing to say.
function asking(model, compute) {
  let waiting = null;
  let busy = false;
  return async (row) => {
    waiting = { row };
    if (busy) return;
    busy = true;
    while (waiting) {
      const asked = waiting.row;
      waiting = null;
      try {
        show(asked ? told(model, await compute(asked)) : ["Draw something, or choose a picture.", []]);
      } catch (error) {
        show([`no answer: ${error.message}`, []]);
      }
    }
    busy = false;
  };
}

const model = await (await fetch("model.json")).json();
document.title = at("title").textContent = `Try ${model.name}, version ${model.version}`;
const [compute, where] = await computing(model);
at("where").textContent = where;
const bytes = Uint8Array.from(atob(model.samples), (letter) => letter.charCodeAt(0));
const values = model.dtype === "uint8" ? bytes : new Float32Array(bytes.buffer);
const size = model.shape.reduce((one, other) => one * other, 1);
const samples = Array.from({ length: values.length / size }, (_, row) => values.slice(row * size, (row + 1) * size));
(model.columns ? showForm : showDrawing)(model, samples, asking(model, compute));
document.body.dataset.ready = "yes";
