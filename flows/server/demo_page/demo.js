// Ask the command about a picture or a row, and show its answer; see ../demo_server.py for what serves this.
import { showForm } from "./form.js";
import { showDrawing } from "./drawing.js";

const SHOWN = 20; // classes; of more the most probable
const at = (id) => document.getElementById(id);

async function predict(row) {
  const answer = await fetch("predict", { method: "POST", body: row });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function told(model, { prediction, probabilities }) {
  if (!probabilities) return [`${model.target}: ${written(prediction)}`, []];
  const all = probabilities.map((share, label) => ({ name: model.class_names[label], share }));
  const best = all.reduce((one, other) => (other.share > one.share ? other : one));
  const many = all.length > SHOWN;
  const shown = many ? all.toSorted((one, other) => other.share - one.share).slice(0, SHOWN) : all;
  const answer = `${model.columns ? `${model.target}: ` : ""}${best.name}, ${percent(best.share)}`;
  return [answer, shown.map((each) => ({ ...each, isBest: each === best }))];
}

const written = (number) => number.toLocaleString("en", { maximumSignificantDigits: 6 });
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

// What each column adds, the largest first, and what all of it adds up from.
function explain({ added, unexplained }) {
  at("explained").hidden = !added && !unexplained;
  at("added-to").textContent = unexplained ?? (added ? `What each column adds to ${added.to === "prediction" ? model.target : added.to}` : "");
  const values = [...(added?.values ?? [])];
  const intercept = values.pop();
  const rows = values.map((value, index) => [added.columns[index], value]);
  rows.sort(([, one], [, other]) => Math.abs(other) - Math.abs(one));
  if (added) rows.push(["at the means of the training rows", intercept]);
  at("added").replaceChildren(
    ...rows.map(([name, value]) => {
      const [line, head, figure] = ["tr", "th", "td"].map((tag) => document.createElement(tag));
      [head.scope, head.textContent, figure.textContent] = ["row", name, `${value > 0 ? "+" : ""}${written(value)}`];
      line.append(head, figure);
      return line;
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
        explain({});
      }
    }
    busy = false;
  };
}

// Of nothing, there is nothing to say.
const ask = lastOnly(async (row) => {
  const answer = row ? await predict(row) : {};
  show(row ? told(model, answer) : ["Draw something, or choose a picture.", []]);
  explain(answer);
});
const model = await (await fetch("model.json")).json();
document.title = at("title").textContent = `Try ${model.name}, version ${model.version}`;
at("where").textContent = "Computed on this machine by the published model.onnx.";
if (model.columns) {
  showForm(model, model.samples, ask);
} else {
  const values = Uint8Array.from(atob(model.samples), (letter) => letter.charCodeAt(0));
  const size = model.shape.reduce((one, other) => one * other, 1);
  const count = values.length / size;
  const samples = Array.from({ length: count }, (_, row) => values.slice(row * size, (row + 1) * size));
  showDrawing(model, samples, ask, lastOnly);
}
document.body.dataset.ready = "yes";
