// Ask the published file about a picture or a row, and show its answer; see ../demo.py for what serves this.
import { showForm } from "./form.js";
import { showDrawing } from "./drawing.js";

const SHOWN = 20; // classes; of more the most probable
const at = (id) => document.getElementById(id);

async function predict(row) {
  const answer = await fetch("predict", { method: "POST", body: row });
  if (!answer.ok) throw new Error(await answer.text());
  const outputs = Object.entries(await answer.json());
  return Object.fromEntries(outputs.map(([name, data]) => [name, data.map(Number)])); // "NaN" is none of JSON's
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

// One at a time: of what comes meanwhile only the last is done.
function lastOnly(work) {
  let waiting = null;
  let busy = false;
  return async (given) => {
    waiting = { given };
    if (busy) return;
    busy = true;
    while (waiting) {
      const { given: next } = waiting;
      waiting = null;
      try {
        await work(next);
      } catch (error) {
        show([`no answer: ${error.message}`, []]);
      }
    }
    busy = false;
  };
}

// Of nothing, there is nothing to say.
const ask = lastOnly(async (row) =>
  show(row ? told(model, await predict(row)) : ["Draw something, or choose a picture.", []]),
);
const model = await (await fetch("model.json")).json();
document.title = at("title").textContent = `Try ${model.name}, version ${model.version}`;
at("where").textContent = "Computed on this machine by the published model.onnx.";
const bytes = Uint8Array.from(atob(model.samples), (letter) => letter.charCodeAt(0));
const values = model.dtype === "uint8" ? bytes : new Float32Array(bytes.buffer);
const size = model.shape.reduce((one, other) => one * other, 1);
const samples = Array.from({ length: values.length / size }, (_, row) => values.slice(row * size, (row + 1) * size));
(model.columns ? showForm : showDrawing)(model, samples, ask, lastOnly);
document.body.dataset.ready = "yes";
